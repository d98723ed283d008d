//! What was found, as Markdown: every measurement, then the aims with what came of them.

use super::fire::Load;
use super::{Ask, Found, Memory, Row};

/// Through nginx there shall be at least this share of what there is without it.
const NGINX_AIM: f64 = 0.85;
/// So many times what Express does, however many processes it has.
const EXPRESS_AIM: f64 = 4.0;
/// What the backend may hold while nobody asks anything, in kilobytes.
const MEMORY_AIM: u64 = 30 * 1024;

pub(super) fn report(found: &Found) -> String {
    format!("{}\n{}\n{}", measurements(found), memory(&found.memory), aims(found))
}

fn measurements(found: &Found) -> String {
    let mut text = String::from(
        "| request | load | way | answers/s | p50 | p99 | p99.9 | errors | nginx | server | PostgreSQL | Redis | generator |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &found.rows {
        let ask = match row.ask {
            Ask::Read => "GET",
            Ask::Write => "POST",
        };
        let load = match row.load {
            Load::Rate(rate) => format!("{rate}/s"),
            Load::Limit(connections) => format!("limit, {connections} connections"),
        };
        let at = |quantile| millis(row.latency.value_at_quantile(quantile));
        let shares = row.processor.map(|share| format!("{:.0} %", share * 100.0)).join(" | ");
        text.push_str(&format!(
            "| {ask} | {load} | {} | {:.0} | {} | {} | {} | {} | {shares} |\n",
            found.ways[row.way],
            median(&row.rates),
            at(0.5),
            at(0.99),
            at(0.999),
            row.errors
        ));
    }
    text.push_str("\nShares of one processor; latency in milliseconds.\n");
    text
}

fn memory(containers: &[Memory]) -> String {
    let mut text =
        String::from("| container | idle before | at most | idle after |\n|---|---|---|---|\n");
    for memory in containers {
        let [before, most, after] = [memory.before, memory.most, memory.after].map(megabytes);
        text.push_str(&format!("| {} | {before} | {most} | {after} |\n", memory.name));
    }
    text.push_str("\nResident memory; pages that processes share count once.\n");
    text
}

fn aims(found: &Found) -> String {
    let mut text = String::from("| ratio, at the limit | GET | POST | aim |\n|---|---|---|---|\n");
    let mut line = |name: &str, way: &str, against: &[&str], aim: Option<f64>| {
        let cells = Ask::ALL.map(|ask| {
            let ratio = against.iter().filter_map(|other| ratios(found, ask, way, other));
            // Of several rivals the strongest counts.
            let ratio = ratio.min_by(|a, b| median(a).total_cmp(&median(b)));
            ratio.map_or_else(|| "none".to_owned(), |ratios| cell(&ratios, aim))
        });
        let aim = aim.map_or_else(|| "none".to_owned(), |aim| format!("at least {aim}"));
        text.push_str(&format!("| {name} | {} | {aim} |\n", cells.join(" | ")));
    };
    let express = ["Express", "Express, 2 processes"];
    line("through nginx to direct", "through nginx", &["direct"], Some(NGINX_AIM));
    line("direct to the faster Express", "direct", &express, Some(EXPRESS_AIM));
    line("direct to Express, 1 process", "direct", &express[..1], None);
    line("direct to minimal axum", "direct", &["minimal axum"], None);
    text.push_str("\nThe median of the runs, and their range.\n");
    if let Some(backend) = found.memory.iter().find(|memory| memory.name == "backend") {
        let idle = backend.before.max(backend.after);
        let verdict = verdict(idle <= MEMORY_AIM);
        let (idle, aim) = (megabytes(idle), megabytes(MEMORY_AIM));
        text.push_str(&format!(
            "The backend holds {idle} while idle (aim: at most {aim}): {verdict}.\n"
        ));
    }
    text
}

/// Run by run, as each run's ways were measured right after each other.
fn ratios(found: &Found, ask: Ask, way: &str, against: &str) -> Option<Vec<f64>> {
    let rates = |name: &str| {
        let is_it = |row: &&Row| {
            row.ask == ask && matches!(row.load, Load::Limit(_)) && found.ways[row.way] == name
        };
        found.rows.iter().find(is_it).map(|row| &row.rates)
    };
    let pairs = rates(way)?.iter().zip(rates(against)?);
    Some(pairs.map(|(ours, theirs)| ours / theirs).collect())
}

fn cell(ratios: &[f64], aim: Option<f64>) -> String {
    let middle = median(ratios);
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let verdict = aim.map_or_else(String::new, |aim| format!(": {}", verdict(middle >= aim)));
    format!("{middle:.2} ({least:.2} to {most:.2}){verdict}")
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

/// Of an even number, the mean of the middle two.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 0) => f64::midpoint(values[middle - 1], *upper),
        (Some(only), _) => *only,
    }
}

fn millis(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1000.0)
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::super::fire;
    use super::*;

    fn row(ask: Ask, way: usize, rates: &[f64]) -> Row {
        let mut latency = fire::histogram();
        latency.saturating_record(1500);
        let (load, rates) = (Load::Limit(32), rates.to_vec());
        Row { ask, load, way, latency, rates, errors: 0, processor: [0.5; 5] }
    }

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_middle_two() {
        let medians =
            [vec![], vec![3.0], vec![4.0, 1.0], vec![9.0, 1.0, 2.0], vec![9.0, 1.0, 4.0, 2.0]];
        assert_eq!(medians.map(|values| median(&values)), [0.0, 3.0, 2.5, 2.0, 3.0]);
    }

    #[test]
    fn ratios_are_taken_run_by_run_and_the_stronger_rival_counts() {
        let ways = vec!["through nginx", "direct", "Express", "Express, 2 processes"];
        let rates: [&[f64]; 4] =
            [&[90.0, 85.0, 70.0], &[100.0, 100.0, 100.0], &[10.0, 20.0, 10.0], &[40.0; 3]];
        let rows = Ask::ALL
            .into_iter()
            .flat_map(|ask| rates.iter().enumerate().map(move |(way, rates)| row(ask, way, rates)))
            .collect();
        let name = "backend".to_owned();
        let memory = vec![Memory { name, before: 9_000, most: 50_000, after: 31_000 }];
        let text = report(&Found { ways, rows, memory });
        for line in [
            "| GET | limit, 32 connections | through nginx | 85 | 1.50 | 1.50 | 1.50 | 0 | 50 % | 50 % | 50 % | 50 % | 50 % |",
            "| through nginx to direct | 0.85 (0.70 to 0.90): met | 0.85 (0.70 to 0.90): met | at least 0.85 |",
            "| direct to the faster Express | 2.50 (2.50 to 2.50): missed | 2.50 (2.50 to 2.50): missed | at least 4 |",
            "| direct to Express, 1 process | 10.00 (5.00 to 10.00) | 10.00 (5.00 to 10.00) | none |",
            "The backend holds 30.3 MB while idle (aim: at most 30.0 MB): missed.",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
