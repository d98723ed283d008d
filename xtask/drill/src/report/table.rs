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
    "recovered after",
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
        "none" => format!("no error, each in {} s", case.bound.slowest),
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
        cells[0] = format!("`{}`", case.name);
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cases::CASES;
    use crate::report::{skipped, tests::empty};

    /// The names in the first column of the table under a heading.
    fn names<'a>(document: &'a str, heading: &str) -> BTreeSet<&'a str> {
        let lines = document.lines().skip_while(|line| *line != heading).skip(1);
        let section = lines.take_while(|line| !line.starts_with("## "));
        section.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
    }

    #[test]
    fn the_results_in_the_document_are_of_the_cases_that_there_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability.md");
        let document = fs::read_to_string(path).unwrap();
        let shown = names(&document, "## Results");
        // Those that hit the whole machine may have no result: not everybody has one to give.
        let must = CASES.iter().filter(|case| case.ground != Ground::Machine);
        let must: BTreeSet<&str> = must.map(|case| case.name).collect();
        let may: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
        let missing: Vec<_> = must.difference(&shown).collect();
        assert!(missing.is_empty(), "docs/reliability.md, Results: add the rows of {missing:?}");
        let unknown: Vec<_> = shown.difference(&may).collect();
        assert!(unknown.is_empty(), "docs/reliability.md, Results: no case is called {unknown:?}");
    }

    #[test]
    fn the_table_of_the_report_is_one_for_that_section() {
        let report = Report { cases: vec![skipped(&CASES[0], 1, "a test")], ..empty() };
        let document = format!("## Results\n\n{}", markdown(&report));
        assert_eq!(names(&document, "## Results"), BTreeSet::from([CASES[0].name]));
        let columns = |line: &str| line.matches('|').count();
        assert!(document.lines().skip(2).all(|line| columns(line) == HEAD.len() + 1));
    }
}
