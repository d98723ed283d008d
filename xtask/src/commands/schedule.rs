//! `backup --schedule` and `doctor --schedule`: what a host's own scheduler needs to run a command again and again.

use anyhow::Result;

use crate::cli::Scheduler;
use crate::ctx::{Ctx, Invocation};
use crate::stack::lock;
use crate::stack::project::Project;

/// What is to be run, and when.
pub(crate) struct Job {
    /// The verb, and the end of the names of files and units.
    verb: &'static str,
    /// A sentence without its end; PROJECT stands for the project's name.
    does: &'static str,
    /// Behind `cargo xtask`.
    words: &'static str,
    on_calendar: &'static str,
    cron: &'static str,
    /// Whether it needs the keys of the place for copies.
    has_keys: bool,
    /// Whether it prints much when all is well, of which nobody wants a mail.
    is_talkative: bool,
}

impl Job {
    /// Takes a backup, proves it, copies it where that is wanted, and only after that deletes old ones: one command,
    /// because these are deleted also where there was no room for more of them, and not after another failure.
    pub(crate) fn backup(is_pushed: bool) -> Job {
        Job {
            verb: "backup",
            does: "Back up PROJECT every night, prove it, delete old backups",
            words: if is_pushed {
                "backup --verify --push --prune --yes"
            } else {
                "backup --verify --prune --yes"
            },
            on_calendar: "*-*-* 02:30:00",
            cron: "30 2 * * *",
            has_keys: is_pushed,
            is_talkative: false,
        }
    }

    /// Looks what could go wrong; a warning counts as well.
    pub(crate) fn doctor() -> Job {
        Job {
            verb: "doctor",
            does: "Look every hour whether PROJECT is well",
            words: "doctor --strict",
            on_calendar: "*-*-* *:17:00",
            cron: "17 * * * *",
            has_keys: false,
            is_talkative: true,
        }
    }
}

/// Where a job runs: as who drives the stack by hand. The same Rust, files of the same owner, and one lock for both.
struct Place {
    name: String,
    user: String,
    root: String,
    /// With its words: no scheduler has the person's PATH.
    command: String,
}

/// The text of a timer and its service, or a line for a crontab.
///
/// # Errors
/// The stack is another user's, as whom it would have to run.
pub(crate) fn text(
    ctx: &Ctx,
    project: &Project,
    scheduler: Scheduler,
    job: &Job,
) -> Result<String> {
    lock::expect_own(ctx, project)?;
    let cargo =
        ctx.find("cargo").map_or_else(|| "cargo".to_owned(), |path| path.display().to_string());
    let env_file = project.env_file.display().to_string();
    let user = ctx.read(Invocation::new("id").args(["--user", "--name"]));
    let place = Place {
        name: project.name.clone(),
        user: user.map_or_else(|_| "root".to_owned(), |name| name.trim().to_owned()),
        root: ctx.root().display().to_string(),
        command: format!("{} xtask --env-file {} {}", quoted(&cargo), quoted(&env_file), job.words),
    };
    Ok(match scheduler {
        Scheduler::Systemd => systemd(&place, job),
        Scheduler::Cron => cron(&place, job),
    })
}

/// Where the keys of the place for copies are: no timer and no crontab is a place for secrets.
fn key_file(name: &str) -> String {
    format!("/etc/{name}-backup.env")
}

fn systemd(place: &Place, job: &Job) -> String {
    let Place { name, user, root, command } = place;
    let Job { verb, on_calendar, .. } = job;
    let does = job.does.replace("PROJECT", name);
    let keys = if job.has_keys {
        format!(
            "# AWS_ACCESS_KEY_ID=… and so on, one a line; root's alone, mode 0600. Absent for a folder.\n\
             EnvironmentFile=-{}\n",
            key_file(name)
        )
    } else {
        String::new()
    };
    format!(
        "# /etc/systemd/system/{name}-{verb}.service\n\
         # A failure makes the unit fail: `systemctl --failed` shows it, and OnFailure= can tell somebody.\n\
         [Unit]\n\
         Description={does}\n\
         After=docker.service\n\
         Wants=docker.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         User={user}\n\
         WorkingDirectory={root}\n\
         {keys}\
         ExecStart={command}\n\
         Nice=10\n\
         IOSchedulingClass=idle\n\
         \n\
         # /etc/systemd/system/{name}-{verb}.timer\n\
         [Unit]\n\
         Description={does}\n\
         \n\
         [Timer]\n\
         OnCalendar={on_calendar}\n\
         RandomizedDelaySec=15min\n\
         # After a time in which the host was off.\n\
         Persistent=true\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n\
         \n\
         # then: systemctl daemon-reload && systemctl enable --now {name}-{verb}.timer\n"
    )
}

fn cron(place: &Place, job: &Job) -> String {
    let Place { name, root, command, .. } = place;
    let does = job.does.replace("PROJECT", name);
    let (about_keys, keys) = if job.has_keys {
        let file = key_file(name);
        let about = format!(
            "# {file} has AWS_ACCESS_KEY_ID=… and so on, one a line, mode 0600; empty for a folder.\n"
        );
        (about, format!("set -a && . {} && ", quoted(&file)))
    } else {
        (String::new(), String::new())
    };
    let command = if job.is_talkative {
        format!("out=$({command} 2>&1) || echo \"$out\"")
    } else {
        command.clone()
    };
    format!(
        "# {does}. What it says comes by mail: MAILTO=you@example.com above it.\n\
         {about_keys}{}  cd {} && {keys}{command}\n",
        job.cron,
        quoted(root)
    )
}

/// For a shell, and for systemd, which has the same quotes.
fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str, job: &Job) -> Place {
        let command = format!("/opt/cargo xtask {}", job.words);
        Place { name: "shop".to_owned(), user: "ann".to_owned(), root: root.to_owned(), command }
    }

    #[test]
    fn old_backups_are_deleted_after_a_new_one_was_proven() {
        let job = Job::backup(false);
        let timer = systemd(&place("/srv/shop", &job), &job);
        // By one command, which knows after which failures it may.
        let starts = "\nExecStart=/opt/cargo xtask backup --verify --prune --yes\n";
        let found = (timer.matches(starts).count(), timer.matches("ExecStart").count());
        assert_eq!(found, (1, 1), "{timer}");
        for line in ["WorkingDirectory=/srv/shop\n", "User=ann\n", "Description=Back up shop every"]
        {
            assert!(timer.contains(line), "{line:?} is not in {timer}");
        }
        let line = cron(&place("/srv/my shop", &job), &job);
        let end = "cd '/srv/my shop' && /opt/cargo xtask backup --verify --prune --yes\n";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_copy_is_made_with_keys_from_a_file() {
        let job = Job::backup(true);
        let place = place("/srv/shop", &job);
        let timer = systemd(&place, &job);
        assert!(timer.contains("\nEnvironmentFile=-/etc/shop-backup.env\n"), "{timer}");
        let keys = "set -a && . /etc/shop-backup.env && /opt/cargo xtask backup --verify --push";
        assert!(cron(&place, &job).contains(keys), "{}", cron(&place, &job));
    }

    #[test]
    fn what_the_doctor_says_is_mailed_where_something_is_wrong() {
        let job = Job::doctor();
        let line = cron(&place("/srv/shop", &job), &job);
        let end = "cd /srv/shop && out=$(/opt/cargo xtask doctor --strict 2>&1) || echo \"$out\"\n";
        assert!(line.contains("\n17 * * * *  ") && line.ends_with(end), "{line}");
        let timer = systemd(&place("/srv/shop", &job), &job);
        assert!(timer.contains("/shop-doctor.timer\n") && !timer.contains("EnvironmentFile"));
    }
}
