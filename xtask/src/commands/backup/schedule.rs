//! `backup --schedule`: what a host's own scheduler needs to take a backup every night.

use crate::cli::Scheduler;
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

/// Takes one, proves it, copies it where that is wanted, and only after that deletes old ones: one command, because
/// these are deleted also where there was no room for more of them, and not after another failure.
fn step(is_pushed: bool) -> &'static str {
    if is_pushed {
        "backup --verify --push --prune --yes"
    } else {
        "backup --verify --prune --yes"
    }
}

/// The text of a timer and its service, or a line for a crontab.
pub(super) fn text(ctx: &Ctx, project: &Project, scheduler: Scheduler, is_pushed: bool) -> String {
    let cargo =
        ctx.find("cargo").map_or_else(|| "cargo".to_owned(), |path| path.display().to_string());
    let root = ctx.root().display().to_string();
    let env_file = project.env_file.display().to_string();
    let step = step(is_pushed);
    let command = format!("{} xtask --env-file {} {step}", quoted(&cargo), quoted(&env_file));
    match scheduler {
        Scheduler::Systemd => systemd(&project.name, &user(ctx), &root, &command, is_pushed),
        Scheduler::Cron => cron(&project.name, &root, &command, is_pushed),
    }
}

/// Who backs up by hand does so by night: the same Rust, files of the same owner, and one lock for both.
fn user(ctx: &Ctx) -> String {
    let id = ctx.read(Invocation::new("id").args(["--user", "--name"]));
    id.map_or_else(|_| "root".to_owned(), |name| name.trim().to_owned())
}

/// Where the keys of the place for copies are: no timer and no crontab is a place for secrets.
fn key_file(name: &str) -> String {
    format!("/etc/{name}-backup.env")
}

fn systemd(name: &str, user: &str, root: &str, command: &str, is_pushed: bool) -> String {
    let keys = if is_pushed {
        format!(
            "# AWS_ACCESS_KEY_ID=… and so on, one a line; root's alone, mode 0600. Absent for a folder.\n\
             EnvironmentFile=-{}\n",
            key_file(name)
        )
    } else {
        String::new()
    };
    format!(
        "# /etc/systemd/system/{name}-backup.service\n\
         # A failure makes the unit fail: `systemctl --failed` shows it, and OnFailure= can tell somebody.\n\
         [Unit]\n\
         Description=Back up {name}, prove it, delete old backups\n\
         After=docker.service\n\
         Requires=docker.service\n\
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
         # /etc/systemd/system/{name}-backup.timer\n\
         [Unit]\n\
         Description=Back up {name} every night\n\
         \n\
         [Timer]\n\
         OnCalendar=*-*-* 02:30:00\n\
         RandomizedDelaySec=15min\n\
         # After a night in which the host was off.\n\
         Persistent=true\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n\
         \n\
         # then: systemctl daemon-reload && systemctl enable --now {name}-backup.timer\n"
    )
}

fn cron(name: &str, root: &str, command: &str, is_pushed: bool) -> String {
    let file = key_file(name);
    let (note, keys) = if is_pushed {
        let note = format!(
            "# {file} has AWS_ACCESS_KEY_ID=… and so on, one a line, mode 0600; empty for a folder.\n"
        );
        (note, format!("set -a && . {} && ", quoted(&file)))
    } else {
        (String::new(), String::new())
    };
    format!(
        "# Back up {name} every night, prove it, delete old backups. What it says comes by mail.\n\
         {note}30 2 * * *  cd {} && {keys}{command}\n",
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

    #[test]
    fn old_backups_are_deleted_after_a_new_one_was_proven() {
        let command = format!("cargo xtask {}", step(false));
        let timer = systemd("shop", "ann", "/srv/shop", &command, false);
        // By one command, which knows after which failures it may.
        let starts = "\nExecStart=cargo xtask backup --verify --prune --yes\n";
        assert_eq!((timer.matches(starts).count(), timer.matches("ExecStart").count()), (1, 1), "{timer}");
        assert!(timer.contains("WorkingDirectory=/srv/shop\n"), "{timer}");
        let line = cron("shop", "/srv/my shop", &command, false);
        let end = "cd '/srv/my shop' && cargo xtask backup --verify --prune --yes\n";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_copy_is_made_with_keys_from_a_file() {
        let command = step(true);
        let timer = systemd("shop", "ann", "/srv/shop", command, true);
        assert!(timer.contains("\nEnvironmentFile=-/etc/shop-backup.env\n"), "{timer}");
        let line = cron("shop", "/srv/shop", command, true);
        assert!(
            line.contains("set -a && . /etc/shop-backup.env && backup --verify --push --prune"),
            "{line}"
        );
    }
}
