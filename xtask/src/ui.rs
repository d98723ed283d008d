//! What a person sees: progress, tables, colour. Talk goes to stderr; stdout is for data alone.
//!
//! On a terminal, work in progress is a live line; elsewhere it is one plain line when it ends
//! (and one when it starts, if it is long). Colours follow the terminal and `NO_COLOR`.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

/// How talkative to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Volume {
    /// Errors and data only.
    Quiet,
    #[default]
    Normal,
    /// Every external command is echoed as it could be pasted.
    Verbose,
}

/// The screen. Cheap to clone; clones draw on the same one.
#[derive(Clone)]
pub(crate) struct Ui {
    volume: Volume,
    bars: MultiProgress,
    live: bool,
    aim: Arc<Aim>,
}

/// The words that choose the stack on the command line, such as `--prod`: a command that is named as the
/// next step is for that stack as well, and never for another one of this checkout.
#[derive(Default)]
pub(crate) struct Aim(String);

/// What these verbs work on is no stack that the words choose.
const WITHOUT_STACK: [&str; 6] = ["setup", "test", "ci", "bench", "drill", "completions"];

impl Aim {
    pub(crate) fn new(words: &[String]) -> Aim {
        let quoted =
            words.iter().map(|word| shlex::try_quote(word).unwrap_or_else(|_| word.into()));
        Aim(quoted.map(|word| format!("{word} ")).collect())
    }

    /// A text whose `cargo xtask VERB` are for the stack that was chosen.
    pub(crate) fn at(&self, text: &str) -> String {
        const COMMAND: &str = "cargo xtask ";
        let mut parts = text.split(COMMAND);
        let mut aimed = parts.next().unwrap_or_default().to_owned();
        for rest in parts {
            let verb =
                rest.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default();
            let is_for_stack = verb.starts_with(|c: char| c.is_ascii_lowercase())
                && !WITHOUT_STACK.contains(&verb);
            aimed.push_str(COMMAND);
            aimed.push_str(if is_for_stack { &self.0 } else { "" });
            aimed.push_str(rest);
        }
        aimed
    }
}

impl Ui {
    pub(crate) fn new(volume: Volume) -> Ui {
        // `NO_COLOR` is a promise; CLICOLOR_FORCE, which `console` knows as well, does not break it.
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
        let live = volume == Volume::Normal && console::user_attended_stderr();
        Ui { volume, bars: MultiProgress::new(), live, aim: Arc::default() }
    }

    /// The same, naming commands for the stack that was chosen.
    pub(crate) fn aimed(self, aim: Arc<Aim>) -> Ui {
        Ui { aim, ..self }
    }

    pub(crate) fn aim(&self) -> &Aim {
        &self.aim
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.volume == Volume::Verbose
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// One line of talk.
    pub(crate) fn say(&self, line: impl Display) {
        if self.volume != Volume::Quiet {
            self.print(line);
        }
    }

    /// A failure that the work goes on after: it is told whatever the volume.
    pub(crate) fn complain(&self, line: impl Display) {
        self.print(line);
    }

    /// One or the other.
    pub(crate) fn complain_if(&self, is_bad: bool, line: impl Display) {
        if is_bad { self.complain(line) } else { self.say(line) }
    }

    /// Something the person should know although the work goes on.
    pub(crate) fn warn(&self, line: impl Display) {
        self.print(format!("{} {line}", style("warning:").yellow().bold().for_stderr()));
    }

    /// Begins a section of the output; GitHub Actions can fold it.
    pub(crate) fn group(&self, name: &str) {
        if on_github() {
            self.say(format!("::group::{name}"));
        } else {
            self.say(format!("\n{}", style(format!("── {name}")).bold().for_stderr()));
        }
    }

    /// Ends the section.
    pub(crate) fn end_group(&self) {
        if on_github() {
            self.say("::endgroup::");
        }
    }

    /// An external command, as it could be pasted.
    pub(crate) fn echo(&self, command: &str) {
        if self.is_verbose() {
            self.print(style(format!("$ {command}")).dim().for_stderr());
        }
    }

    /// Starts a piece of work; the returned value ends it.
    pub(crate) fn step(&self, label: impl Into<String>) -> Step {
        let label = label.into();
        let bar = self.live.then(|| self.spinner(&label));
        Step { ui: self.clone(), label, bar, started: Instant::now() }
    }

    fn spinner(&self, label: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(
            ProgressStyle::with_template(
                "{spinner:.cyan} {prefix}  {elapsed:.dim}  {wide_msg:.dim}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Prints above the live lines.
    fn print(&self, line: impl Display) {
        let line = self.aim.at(&line.to_string());
        if self.live {
            self.bars.suspend(|| talk(&line));
        } else {
            talk(&line);
        }
    }
}

/// One line on standard error. Where nobody reads it any more, because the terminal or the pipe was closed,
/// the work goes on and what it made is cleaned up.
pub(crate) fn talk(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A piece of work on the screen, from its start to its verdict.
pub(crate) struct Step {
    ui: Ui,
    label: String,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    /// What the work is called.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// What is going on right now, for the live line.
    pub(crate) fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(console::strip_ansi_codes(text).trim().to_owned());
        }
    }

    /// Announces long work where no live line shows it.
    pub(crate) fn announce(self) -> Step {
        if self.bar.is_none() {
            self.ui.say(format!("  … {}", self.label));
        }
        self
    }

    /// Ends the work well.
    pub(crate) fn done(self, detail: impl Display) {
        let mark = style("✓").green().for_stderr();
        self.end(format!("{mark} {}  {}", self.label, self.ended(detail)));
    }

    /// Ends the work badly; the error itself is reported by whoever gets it.
    pub(crate) fn failed(self) {
        let mark = style("✗").red().for_stderr();
        self.end(format!("{mark} {}  {}", self.label, self.ended("")));
    }

    /// Takes the line away without a word.
    pub(crate) fn vanish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn ended(&self, detail: impl Display) -> String {
        let detail = detail.to_string();
        let time = seconds(self.started.elapsed());
        let time = style(time).dim().for_stderr();
        if detail.is_empty() { time.to_string() } else { format!("{detail}  {time}") }
    }

    fn end(&self, line: String) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.ui.say(line);
    }
}

/// How many columns the terminal has that standard output goes to; none where it goes elsewhere.
pub(crate) fn width() -> Option<usize> {
    let terminal = console::Term::stdout();
    terminal.size_checked().filter(|_| terminal.is_term()).map(|(_, columns)| columns.into())
}

/// Data for standard output, with an end of line. A reader that has closed its end, such as `head`, has
/// seen enough: that is no failure.
///
/// # Errors
/// It cannot be written, because a disk is full for instance.
pub(crate) fn data(text: impl Display) -> Result<()> {
    is_read(text).map(drop)
}

/// The same, for what has no end of its own: whether somebody still reads.
///
/// # Errors
/// As [`data`].
pub(crate) fn is_read(text: impl Display) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.context("write to standard output").map(|()| true),
    }
}

/// Prints a value as JSON, as [`data`] prints a text.
///
/// # Errors
/// As [`data`].
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    data(serde_json::to_string_pretty(value).context("write it as JSON")?)
}

fn on_github() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some()
}

/// A duration as people read it: `0.42 s`, `12.3 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`.
pub(crate) fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    match total {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", total / 60, total % 60),
        3600..86_400 => format!("{} h {:02} min", total / 3600, total % 3600 / 60),
        _ => format!("{} d {} h", total / 86_400, total % 86_400 / 3600),
    }
}

/// A size as people read it, in powers of 1024.
pub(crate) fn bytes(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Rows under a header, in columns as wide as their widest cell; the last column is not padded.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| console::measure_text_width(&row[column]));
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| {
            console::pad_str(cell, width, console::Alignment::Left, None).into_owned()
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(header.iter().map(|cell| style(cell).bold().to_string()).collect());
    let body = rows.iter().map(|row| line(row.clone()));
    [head].into_iter().chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let cases = [
            (Duration::from_millis(420), "0.42 s"),
            (Duration::from_millis(12_340), "12.3 s"),
            (Duration::from_secs(185), "3 min 05 s"),
            (Duration::from_secs(7800), "2 h 10 min"),
            (Duration::from_secs(4 * 86_400 + 3 * 3600), "4 d 3 h"),
        ];
        for (duration, expected) in cases {
            assert_eq!(seconds(duration), expected);
        }
    }

    #[test]
    fn sizes_use_powers_of_1024() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn a_next_step_is_for_the_stack_that_was_chosen() {
        let aim = Aim::new(&["--env-file".to_owned(), "my env".to_owned()]);
        for (said, aimed) in [
            ("`cargo xtask up` starts it", "`cargo xtask --env-file 'my env' up` starts it"),
            ("next: cargo xtask backup", "next: cargo xtask --env-file 'my env' backup"),
            ("`cargo xtask setup` starts it", "`cargo xtask setup` starts it"),
            ("cargo xtask --prod up", "cargo xtask --prod up"),
            ("another cargo xtask", "another cargo xtask"),
        ] {
            assert_eq!(aim.at(said), aimed);
            assert_eq!(Aim::default().at(said), said);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "2".into()]];
        let text = console::strip_ansi_codes(&table(&["NAME", "N"], &rows)).into_owned();
        assert_eq!(text, "NAME  N\na     1\nlong  2");
    }
}
