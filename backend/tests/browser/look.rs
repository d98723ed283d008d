//! How a page looks: on a screen, on a phone, in the dark; and whether everybody can read it.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::driver::chromium;

/// A screen and a colour scheme.
pub(crate) struct Look {
    pub(crate) name: &'static str,
    width: u32,
    height: u32,
    scheme: &'static str,
}

/// 320 pixels is a wide screen at 400 %: WCAG's criterion of reflow.
pub(crate) const LOOKS: [Look; 4] = [
    Look { name: "light", width: 1280, height: 900, scheme: "light" },
    Look { name: "dark", width: 1280, height: 900, scheme: "dark" },
    Look { name: "phone", width: 390, height: 844, scheme: "light" },
    Look { name: "narrow", width: 320, height: 640, scheme: "dark" },
];

/// Every text that can be seen with less contrast to what is behind it than WCAG's level AA asks of
/// small text; and `count`, of all texts that were looked at.
const CONTRAST: &str = r#"
    const parse = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => {
        const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const seen = [...document.body.querySelectorAll("*")].filter((e) => own(e) && e.checkVisibility());
    const poor = seen.flatMap((element) => {
        const [a, b] = [parse(getComputedStyle(element).color), behind(element)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        return ratio < 4.5 ? [`${element.tagName} "${element.textContent.trim()}": ${ratio.toFixed(2)}`] : [];
    });
    return { poor, count: seen.length };
"#;

/// How far what could be seen already was pushed about since the page was opened, other than by a key
/// or a click: 0 is nothing, and Google calls less than 0.1 good.
const SHIFT: &str = r#"
    const shifts = [];
    const watch = (list) => shifts.push(...list.getEntries());
    const observer = new PerformanceObserver(watch);
    observer.observe({ type: "layout-shift", buffered: true });
    return new Promise((done) => requestAnimationFrame(() => setTimeout(() => {
        watch({ getEntries: () => observer.takeRecords() });
        done(shifts.filter((s) => !s.hadRecentInput).reduce((sum, s) => sum + s.value, 0));
    })));
"#;

/// Where it ends to the right of the screen, if it does.
const TOO_WIDE: &str = r#"
    const width = document.documentElement.clientWidth;
    const sticksOut = (e) => e.checkVisibility() && e.getBoundingClientRect().right > width + 1;
    const out = [...document.body.querySelectorAll("*")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
    return document.documentElement.scrollWidth > width ? [`${width} pixels:`, ...out] : [];
"#;

impl Browser {
    pub(crate) async fn look(&self, look: &Look) {
        let screen = json!({
            "screenWidth": look.width, "screenHeight": look.height,
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        chromium(&self.client, "Emulation.setDeviceMetricsOverride", screen).await;
        let feature = json!({ "name": "prefers-color-scheme", "value": look.scheme });
        let motion = json!({ "name": "prefers-reduced-motion", "value": "reduce" });
        let media = json!({ "features": [feature, motion] });
        chromium(&self.client, "Emulation.setEmulatedMedia", media).await;
        let width = look.width;
        // Not the window's: a page that is too wide makes that wider on a phone.
        self.until(&format!("screen.width === {width}")).await;
        self.until(&format!("matchMedia('(prefers-color-scheme: {})').matches", look.scheme)).await;
    }

    /// Fails where somebody could not read the page as it is now.
    pub(crate) async fn expect_legible(&self, what: &str) {
        let contrast = self.run(CONTRAST).await;
        assert_eq!(contrast["poor"], json!([]), "{what}: too little contrast");
        assert!(contrast["count"].as_u64() > Some(2), "{what}: nothing to read: {contrast}");
        assert_eq!(self.run(TOO_WIDE).await, json!([]), "{what}: scrolls to the side");
    }

    /// Fails where parts of the page jumped while it loaded.
    pub(crate) async fn expect_calm(&self, what: &str) {
        let shift = self.run(SHIFT).await.as_f64().unwrap();
        assert!(shift < 0.02, "{what}: what was on the screen jumped, by {shift}");
    }

    /// The page's background.
    pub(crate) async fn background(&self) -> Value {
        self.run("return getComputedStyle(document.body).backgroundColor").await
    }

    /// Looks at the page in every way, with a screenshot of each.
    pub(crate) async fn looks(&self, name: &str) {
        let mut backgrounds = Vec::new();
        for look in &LOOKS {
            let what = format!("{name}-{}", look.name);
            self.look(look).await;
            self.screenshot(&what).await;
            self.expect_legible(&what).await;
            backgrounds.push(self.background().await);
        }
        assert_ne!(backgrounds[0], backgrounds[1], "{name}: the dark scheme changes nothing");
        assert_eq!(backgrounds[0], backgrounds[2], "{name}: a phone is another scheme");
    }
}
