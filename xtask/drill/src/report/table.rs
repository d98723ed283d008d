//! The table on the terminal, and the same for a document.

use super::{CaseReport, Report, ShownBound, Verdict};
use crate::cases::{Case, Ground};

const HEAD: [&str; 9] = [
    "case",
    "bound",
    "errors seen",
    "requests",
    "errors",
    "lost",
    "duplicated",
    "recovered",
    "verdict",
];

/// One case in one line, as it ends.
pub fn line(case: &CaseReport) -> String {
    let [name, _, window, requests, errors, lost, duplicated, recovered, verdict] = row(case);
    let mut text = format!(
        "{verdict}  {name:<26} {errors:>4} of {requests} failed, {window}; recovered after \
         {recovered}; lost {lost}, duplicated {duplicated}"
    );
    for violation in &case.violations {
        text.push_str(&format!("\n        {violation}"));
    }
    text
}

fn row(case: &CaseReport) -> [String; 9] {
    let bound = match case.bound.errors {
        "none" => "no error".to_owned(),
        _ => format!("{} s, each in {} s", case.bound.recover, case.bound.slowest),
    };
    let window = case
        .window
        .map_or_else(|| "none".to_owned(), |(first, last)| format!("{first:+.1} to {last:+.1} s"));
    let verdict = match case.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skip",
    };
    [
        case.name.to_owned(),
        bound,
        window,
        case.requests.to_string(),
        case.errors.to_string(),
        case.lost.to_string(),
        case.duplicated.to_string(),
        format!("{:.1} s", case.recovered_after),
        verdict.to_owned(),
    ]
}

/// The cases that there are.
pub fn list(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        let bound = ShownBound::from(case.bound);
        let errors = match bound.errors {
            "none" => "no error".to_owned(),
            "honest" => format!("503 and the like, over {} s after it", bound.recover),
            _ => format!("errors, over {} s after it", bound.recover),
        };
        let mark = match (case.quick, case.ground) {
            (_, Ground::Machine) => "by name only",
            (true, _) => "--quick",
            (false, _) => "",
        };
        text.push_str(&format!("{:<26} {} ({errors}) {mark}\n", case.name, case.what));
    }
    text
}

/// All cases, in columns.
pub fn table(report: &Report) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(report.cases.iter().map(row));
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How many passed, and the names of those that did not.
pub fn summary(report: &Report) -> String {
    let names = |verdict| {
        let cases = report.cases.iter().filter(move |case| case.verdict == verdict);
        cases.map(|case| case.name).collect::<Vec<_>>()
    };
    let total = report.cases.len();
    let mut text = format!("{} of {total} cases passed", names(Verdict::Pass).len());
    for (verdict, what) in [(Verdict::Fail, "failed"), (Verdict::Skipped, "not run")] {
        let names = names(verdict);
        if !names.is_empty() {
            text.push_str(&format!("; {what}: {}", names.join(", ")));
        }
    }
    text
}

/// All cases, as a table of Markdown.
pub fn markdown(report: &Report) -> String {
    let head = HEAD.join(" | ");
    let mut text = format!("| {head} |\n|{}\n", "---|".repeat(HEAD.len()));
    for case in &report.cases {
        let mut cells = row(case);
        cells[0] = format!("`{}`: {}", case.name, case.what);
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
