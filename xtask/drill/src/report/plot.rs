//! A plot of one case as SVG: requests and errors over time, with the fault marked.

use std::fmt::Write as _;

use super::{CaseReport, STEP};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 34.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

/// The plot. Colours are the page's, by class.
pub(super) fn plot(case: &CaseReport) -> String {
    let seconds = (case.timeline.len() as f64 * STEP).max(1.0);
    let most = case.timeline.iter().map(|tick| tick.fine + tick.failed).max().unwrap_or(1).max(1);
    let x = |second: f64| LEFT + (WIDTH - LEFT - 4.0) * (second / seconds).clamp(0.0, 1.0);
    let height = HEIGHT - BOTTOM - TOP;
    let y = |count: u32| TOP + height * (1.0 - f64::from(count) / f64::from(most));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Requests and errors over \
         time, case {}\">",
        case.name
    );
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<rect class=\"fault\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{height}\"/>",
        x(case.fault_at),
        (x(case.healed_at) - x(case.fault_at)).max(1.5)
    );
    let bar = (x(STEP) - x(0.0)).max(0.5);
    for (index, tick) in case.timeline.iter().enumerate() {
        let at = x(index as f64 * STEP);
        let mut rect = |class: &str, from: u32, to: u32| {
            if to > from {
                let (top, tall) = (y(to), y(from) - y(to));
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{at:.1}\" y=\"{top:.1}\" width=\"{bar:.2}\" height=\"{tall:.1}\"/>"
                );
            }
        };
        rect("failed", 0, tick.failed);
        rect("fine", tick.failed, tick.failed + tick.fine);
    }
    let step = if seconds > 30.0 {
        10.0
    } else if seconds > 12.0 {
        5.0
    } else {
        1.0
    };
    let mut second = 0.0;
    while second <= seconds {
        let (at, low) = (x(second), HEIGHT - BOTTOM + 14.0);
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{low}\">{second:.0} s</text>");
        second += step;
    }
    let per_second = f64::from(most) / STEP;
    let _ = write!(
        svg,
        "<text class=\"y\" x=\"{}\" y=\"{}\">{per_second:.0}/s</text>",
        LEFT - 4.0,
        TOP + 8.0
    );
    svg.push_str("</svg>");
    svg
}
