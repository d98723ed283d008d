//! `backup --schedule`: what a host's own scheduler needs to take a backup every night.

use crate::cli::Scheduler;
use crate::ctx::Ctx;
use crate::stack::project::Project;

/// Takes one, proves it, and only after that deletes old ones.
const STEPS: [&str; 2] = ["backup --verify", "backup prune --yes"];

/// The text of a timer and its service, or a line for a crontab.
pub(super) fn text(ctx: &Ctx, project: &Project, scheduler: Scheduler) -> String {
    let cargo =
        ctx.find("cargo").map_or_else(|| "cargo".to_owned(), |path| path.display().to_string());
    let root = ctx.root().display().to_string();
    let env_file = project.env_file.display().to_string();
    let commands =
        STEPS.map(|step| format!("{cargo} xtask --env-file {} {step}", quoted(&env_file)));
    match scheduler {
        Scheduler::Systemd => systemd(&project.name, &root, &commands),
        Scheduler::Cron => cron(&project.name, &root, &commands),
    }
}

fn systemd(name: &str, root: &str, commands: &[String]) -> String {
    let steps: String = commands.iter().map(|command| format!("ExecStart={command}\n")).collect();
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
         WorkingDirectory={root}\n\
         {steps}\
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

fn cron(name: &str, root: &str, commands: &[String]) -> String {
    format!(
        "# Back up {name} every night, prove it, delete old backups. What it says comes by mail.\n\
         30 2 * * *  cd {} && {}\n",
        quoted(root),
        commands.join(" && ")
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
        let commands =
            ["cargo xtask backup --verify", "cargo xtask backup prune --yes"].map(str::to_owned);
        let timer = systemd("shop", "/srv/shop", &commands);
        let (verify, prune) = (timer.find("--verify"), timer.find("prune --yes"));
        assert!(verify.is_some() && verify < prune, "{timer}");
        assert!(timer.contains("WorkingDirectory=/srv/shop\n"), "{timer}");
        let line = cron("shop", "/srv/my shop", &commands);
        assert!(line.ends_with("cd '/srv/my shop' && cargo xtask backup --verify && cargo xtask backup prune --yes\n"), "{line}");
    }
}
