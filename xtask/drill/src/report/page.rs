//! The report as one HTML file that needs nothing else: no script, no font, no other host.

use std::fmt::Write as _;

use super::plot::plot;
use super::{CaseReport, Report, Verdict};

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(report: &Report) -> String {
    let count = |verdict| report.cases.iter().filter(|case| case.verdict == verdict).count();
    let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
    let skipped = count(Verdict::Skipped);
    let requests: usize = report.cases.iter().map(|case| case.requests).sum();
    let last = report.cases.last();
    let (lost, duplicated) = last.map_or((0, 0), |case| (case.lost, case.duplicated));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Drill, seed {seed}</title>\n<style>\n{STYLE}</style>\n\
         <main>\n<h1>Faults under load</h1>\n\
         <p class=\"lead\">{passed} passed, {failed} failed, {skipped} skipped. {requests} requests, \
         {lost} acknowledged writes lost, {duplicated} duplicated.</p>\n\
         <p>Seed {seed}, the {stack} stack, {rate} requests a second through nginx, {took:.0} s, \
         Docker Engine {engine}. The shaded part is the fault; \
         <span class=\"key fine\"></span> did what it was sent for, \
         <span class=\"key failed\"></span> failed.</p>\n",
        seed = report.seed,
        stack = report.stack,
        rate = report.rate,
        took = report.took,
        engine = escape(&report.engine),
    );
    html.push_str("<nav><ol>\n");
    for case in &report.cases {
        // Writing to a string does not fail.
        let _ = writeln!(
            html,
            "<li class=\"{}\"><a href=\"#{name}\">{name}</a></li>",
            class(case.verdict),
            name = case.name
        );
    }
    html.push_str("</ol></nav>\n");
    for case in &report.cases {
        section(&mut html, case);
    }
    html.push_str("</main>\n</html>\n");
    html
}

fn section(html: &mut String, case: &CaseReport) {
    let word = class(case.verdict);
    let _ = write!(
        html,
        "<section id=\"{name}\">\n<h2>{name} <em class=\"{word}\">{word}</em></h2>\n<p>{what}.</p>\n",
        name = case.name,
        what = escape(case.what)
    );
    if case.verdict != Verdict::Skipped {
        html.push_str(&plot(case));
        html.push_str("\n<dl>");
        let mut fact = |name: &str, value: String| {
            let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        };
        fact("requests", case.requests.to_string());
        fact("errors", case.errors.to_string());
        fact("allowed", case.bound.errors.to_owned());
        fact("recovered after", format!("{:.1} s", case.recovered_after));
        fact("bound", format!("{} s", case.bound.recover));
        fact("lost", case.lost.to_string());
        fact("duplicated", case.duplicated.to_string());
        html.push_str("</dl>\n");
    }
    if !case.violations.is_empty() {
        html.push_str("<ul class=\"violations\">\n");
        for violation in &case.violations {
            let _ = writeln!(html, "<li>{}</li>", escape(violation));
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</section>\n");
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Skipped => "skipped",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_said_cannot_become_markup() {
        assert_eq!(escape("<b>&\"x\""), "&lt;b&gt;&amp;&quot;x&quot;");
    }
}
