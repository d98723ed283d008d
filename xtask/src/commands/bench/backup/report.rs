//! What was found, as Markdown: both tables, and the aims with what came of them.

use std::time::Duration;

use crate::commands::bench::median;
use crate::ctx::Cost;
use crate::ui;

/// A backup takes at most this many times what the bare pipeline takes.
const BACKUP_AIM: f64 = 1.1;
/// A restore, likewise.
const RESTORE_AIM: f64 = 0.8;
/// What xtask may have resident, whatever the size.
const MEMORY_AIM: u64 = 100 << 20;

/// One way to do it, run by run.
#[derive(Default)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) costs: Vec<Cost>,
    /// What it wrote, of the last run.
    pub(super) bytes: Option<u64>,
    /// Whether the process that was measured is xtask, whose memory is bounded.
    pub(super) is_ours: bool,
}

/// All that was measured. In both lists the first case is ours, and the one named `bare` the measure.
pub(super) struct Found {
    /// What there was to save, in words.
    pub(super) data: String,
    pub(super) backups: Vec<Case>,
    pub(super) restores: Vec<Case>,
    /// Where the bare pipeline is in each list.
    pub(super) bare: usize,
}

pub(super) fn report(found: &Found) -> String {
    format!(
        "{}\n\n{}\n{}\n{}",
        found.data,
        table("backup", &found.backups, found.bare),
        table("restore", &found.restores, found.bare),
        aims(found)
    )
}

fn table(title: &str, cases: &[Case], bare: usize) -> String {
    let mut text = format!(
        "| {title} | runs | time | from | to | ratio | processor | size | memory of xtask |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for case in cases {
        let times = times(case);
        let processor: Vec<Duration> = case.costs.iter().map(|cost| cost.processor).collect();
        let [least, most] = [times.iter().min(), times.iter().max()];
        let cell = |time: Option<&Duration>| ui::seconds(time.copied().unwrap_or_default());
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {:.2} | {} | {} | {} |\n",
            case.name,
            times.len(),
            ui::seconds(median(&times)),
            cell(least),
            cell(most),
            middle(&ratios(case, &cases[bare])),
            ui::seconds(median(&processor)),
            case.bytes.map_or_else(String::new, ui::bytes),
            if case.is_ours { ui::bytes(peak(case)) } else { String::new() },
        ));
    }
    text
}

fn aims(found: &Found) -> String {
    let mut text = String::from("| aim | found | |\n|---|---|---|\n");
    let mut line = |aim: String, found: String, is_met: bool| {
        let verdict = if is_met { "met" } else { "missed" };
        text.push_str(&format!("| {aim} | {found} | {verdict} |\n"));
    };
    for (what, cases, aim) in
        [("backup", &found.backups, BACKUP_AIM), ("restore", &found.restores, RESTORE_AIM)]
    {
        let ratio = middle(&ratios(&cases[0], &cases[found.bare]));
        let aim_text = format!("{what}: at most {aim} x the bare pipeline");
        line(aim_text, format!("{ratio:.2} x"), ratio <= aim);
    }
    let all = found.backups.iter().chain(&found.restores);
    let most = all.filter(|case| case.is_ours).map(peak).max().unwrap_or(0);
    line(
        format!("memory of xtask: at most {}", ui::bytes(MEMORY_AIM)),
        ui::bytes(most),
        most <= MEMORY_AIM,
    );
    text
}

fn times(case: &Case) -> Vec<Duration> {
    case.costs.iter().map(|cost| cost.time).collect()
}

/// Run by run, as each run's cases were measured right after each other.
fn ratios(case: &Case, bare: &Case) -> Vec<f64> {
    let pairs = times(case).into_iter().zip(times(bare));
    pairs.map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64()).collect()
}

fn middle(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn peak(case: &Case) -> u64 {
    case.costs.iter().map(|cost| cost.peak).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &'static str, seconds: &[u64], is_ours: bool) -> Case {
        let cost = |&seconds: &u64| Cost {
            time: Duration::from_secs(seconds),
            processor: Duration::from_secs(2 * seconds),
            peak: 30 << 20,
        };
        let costs = seconds.iter().map(cost).collect();
        Case { name, costs, bytes: Some(5 << 20), is_ours }
    }

    #[test]
    fn ratios_are_taken_run_by_run_and_aims_are_judged() {
        let backups = vec![case("ours", &[11, 22, 60], true), case("bare", &[10, 20, 20], false)];
        let restores = vec![case("ours", &[9], true), case("bare", &[10], false)];
        let text = report(&Found { data: "Data.".to_owned(), backups, restores, bare: 1 });
        for line in [
            "| ours | 3 | 22.0 s | 11.0 s | 1 min 00 s | 1.10 | 44.0 s | 5.0 MiB | 30.0 MiB |",
            "| bare | 3 | 20.0 s | 10.0 s | 20.0 s | 1.00 | 40.0 s | 5.0 MiB |  |",
            "| backup: at most 1.1 x the bare pipeline | 1.10 x | met |",
            "| restore: at most 0.8 x the bare pipeline | 0.90 x | missed |",
            "| memory of xtask: at most 100.0 MiB | 30.0 MiB | met |",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
