//! What a browser is called in the list of sessions: enough for its owner to recognise it, and
//! no fingerprint.

use axum::http::{HeaderMap, header};

/// The longest name, for whatever calls itself by one that is not known here.
const MAX_CHARS: usize = 40;

/// Order matters: a browser also names those that it descends from.
const BROWSERS: [(&str, &str); 7] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];
const SYSTEMS: [(&str, &str); 7] = [
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
];

/// Such as `Firefox on Linux`, `curl/8.5.0`, or nothing.
pub(super) fn name(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let text = text.unwrap_or_default();
    let known = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
    };
    match (known(&BROWSERS), known(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        // A program, by the first word that it says.
        (None, _) => text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "./_-".contains(*c))
            .take(MAX_CHARS)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_recognised_and_nothing_else_is_kept() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/120.0.0.0 Safari/537.36";
        let edge = format!("{chrome} Edg/120.0").replace("X11; Linux", "Windows NT 10.0;");
        let phone =
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604";
        let long = "x".repeat(500);
        let cases = [
            (chrome, "Chrome on Linux"),
            (edge.as_str(), "Edge on Windows"),
            (phone, "Safari on iPhone"),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X) Gecko Firefox/121.0", "Firefox on macOS"),
            ("curl/8.5.0", "curl/8.5.0"),
            ("<script>alert(1)</script> x", "scriptalert1/script"),
            (&long, &long[..MAX_CHARS]),
            ("", ""),
        ];
        for (text, expected) in cases {
            let headers = HeaderMap::from_iter([(header::USER_AGENT, text.parse().unwrap())]);
            assert_eq!(name(&headers), expected, "{text}");
        }
        assert_eq!(name(&HeaderMap::new()), "");
    }
}
