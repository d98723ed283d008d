//! The command line. The doc comments are the manual that `--help` prints.

mod args;
mod backup;
mod bench;
mod verb;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser};

pub(crate) use args::*;
pub(crate) use backup::*;
pub(crate) use bench::*;
pub(crate) use verb::Verb;

use crate::ctx::{Ctx, Options};
use crate::env::Kind;
use crate::stack::project::{LOCAL_ENV, PRODUCTION_ENV};
use crate::ui::Volume;

/// Drives the stack: nginx, the backend, PostgreSQL and Redis.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// What was asked for on the command line. Help, a version and wrong usage end the process here, as clap does
    /// it: 0 or 2.
    pub(crate) fn read() -> Cli {
        let matches = flowing(Cli::command()).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The manual with its prose as wide as the terminal. The doc comments are taken word by word for the sake of their
/// examples, and with that line by line.
fn flowing(command: Command) -> Command {
    let about = command.get_long_about().map(|text| flow(&text.to_string()));
    let command = match about {
        Some(text) => command.long_about(text),
        None => command,
    };
    command.mut_subcommands(flowing)
}

/// Makes one line of each paragraph; what is indented, and the line before it, stay as they are.
fn flow(text: &str) -> String {
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut flowed = String::new();
    let mut before = "";
    for line in text.lines() {
        flowed.push_str(match is_prose(before) && is_prose(line) {
            _ if flowed.is_empty() => "",
            true => " ",
            false => "\n",
        });
        flowed.push_str(line);
        before = line;
    }
    flowed
}

/// Options of every verb.
#[derive(Args)]
pub(crate) struct Global {
    /// Consent to everything that would be asked; CI=true does the same, but for deleting data
    #[arg(long, short, global = true)]
    yes: bool,
    /// Echo every external command as it could be pasted
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Print errors and data only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// The environment file: another file is another stack, with its own name and ports
    #[arg(long, global = true, value_name = "FILE", default_value = LOCAL_ENV)]
    env_file: PathBuf,
    /// Production: the stack of .env.production
    #[arg(long, global = true)]
    prod: bool,
    /// Print what would be done, and change nothing
    #[arg(long, global = true)]
    dry_run: bool,
}

impl Global {
    pub(crate) fn options(&self) -> Options {
        Options { yes: self.yes, dry_run: self.dry_run }
    }

    pub(crate) fn volume(&self) -> Volume {
        match (self.quiet, self.verbose) {
            (true, _) => Volume::Quiet,
            (_, true) => Volume::Verbose,
            _ => Volume::Normal,
        }
    }

    /// What a new environment file is written for.
    pub(crate) fn kind(&self) -> Kind {
        if self.prod { Kind::Production } else { Kind::Local }
    }

    /// The words that chose the stack, as they would have to be typed again.
    pub(crate) fn selection(&self) -> Vec<String> {
        let other = self.env_file != Path::new(LOCAL_ENV);
        let file = ["--env-file".to_owned(), self.env_file.display().to_string()];
        let prod = self.prod.then(|| "--prod".to_owned());
        prod.into_iter().chain(file.into_iter().filter(|_| other)).collect()
    }

    /// Absolute. The defaults lie in the root, any other is seen from where the person stands.
    pub(crate) fn env_file(&self, ctx: &Ctx) -> PathBuf {
        if self.env_file == Path::new(LOCAL_ENV) {
            return ctx.root().join(if self.prod { PRODUCTION_ENV } else { LOCAL_ENV });
        }
        std::path::absolute(&self.env_file).unwrap_or_else(|_| self.env_file.clone())
    }
}

/// The project's root: the folder above this crate's, as cargo tells it.
///
/// # Errors
/// Not run through cargo, and the current folder cannot be told.
pub(crate) fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let root = here.parent().map(Path::to_owned);
    root.context("find the project's root: xtask's folder has no parent")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// The pages of every verb and of those below it, as a terminal of 80 columns shows them, each with the examples
    /// that should be in it.
    fn pages(command: clap::Command, found: &mut Vec<(String, Vec<String>)>) {
        for verb in command.get_subcommands() {
            pages(verb.clone(), found);
        }
        let text = command.get_long_about().map(ToString::to_string).unwrap_or_default();
        let examples = text.lines().filter(|line| line.starts_with("  ")).map(str::to_owned);
        let examples = examples.collect();
        found.push((command.term_width(80).render_long_help().to_string(), examples));
    }

    #[test]
    fn the_manual_fits_a_terminal_and_flows() {
        let mut found = Vec::new();
        pages(super::flowing(super::Cli::command()), &mut found);
        let lines = found.iter().flat_map(|(page, _)| page.lines());
        let wide: Vec<_> = lines.filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
        let broken = found.iter().flat_map(|(page, examples)| {
            examples.iter().filter(|example| !page.lines().any(|line| line == *example))
        });
        assert_eq!(broken.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn prose_flows_and_examples_stay() {
        let text = "One\ntwo.\n\nThree\nfour.\n\nExamples:\n  a  b\n  c  d";
        assert_eq!(super::flow(text), "One two.\n\nThree four.\n\nExamples:\n  a  b\n  c  d");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    /// Each page of the manual that lacks something, of this verb and those below it.
    fn thin(command: &clap::Command, found: &mut Vec<String>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let text = verb.get_long_about().or(verb.get_about());
            let text = text.map(ToString::to_string).unwrap_or_default().to_lowercase();
            let name = format!("{} {}", command.get_name(), verb.get_name());
            if !text.contains("\nexample") {
                found.push(format!("{name}: no example"));
            }
            let says = ["never", "nothing", "is kept", "left alone"];
            if !says.iter().any(|word| text.contains(word)) {
                found.push(format!("{name}: not a word on what it never does"));
            }
            thin(verb, found);
        }
    }

    #[test]
    fn every_page_of_the_manual_has_examples_and_says_what_the_verb_never_does() {
        let mut found = Vec::new();
        thin(&super::Cli::command(), &mut found);
        assert!(found.is_empty(), "add to the doc comment in xtask/src/cli:\n{}", found.join("\n"));
    }
}
