//! Undoing that outlives the drill. What is changed on this machine must be put right on every way out,
//! SIGKILL too, after which no code of ours runs: so a small process of its own waits for the end of
//! the drill, and carries out what it was told to. Nothing is left for the next run to repair.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::root::Root;

/// Reads until the other end of its pipe is closed, by whatever end, and then does what it read.
const WAITER: &str =
    "trap '' HUP INT TERM; undo=$(cat); case $undo in *forget) ;; *) eval \"$undo\" ;; esac";
/// How long undoing may take. A waiter that needs longer goes on alone.
const LIMIT: Duration = Duration::from_secs(8);

/// Promises that are kept when this is dropped, or when the drill's process ends without a word.
pub struct Undo {
    waiter: Child,
    pipe: Option<ChildStdin>,
}

impl Undo {
    /// Nothing is promised yet.
    ///
    /// # Errors
    /// The process that waits cannot be started; nothing must be changed then.
    pub fn new() -> Result<Undo> {
        let mut waiter = Command::new("sh");
        waiter.args(["-c", WAITER]);
        Undo::with(waiter)
    }

    /// The same for what takes root's rights.
    ///
    /// # Errors
    /// As of [`Undo::new`].
    pub fn as_root(root: &Root) -> Result<Undo> {
        Undo::with(root.command(WAITER))
    }

    fn with(mut command: Command) -> Result<Undo> {
        // A process group of its own: what ends the drill's group must not end this one.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut waiter = command.spawn().context("start `sh`, which puts things right")?;
        let pipe = waiter.stdin.take();
        Ok(Undo { waiter, pipe })
    }

    /// Promises a line of shell. Called before the change, so that no moment is without a promise.
    ///
    /// # Errors
    /// The process that waits is gone.
    pub fn promise(&mut self, command: &str) -> Result<()> {
        let pipe = self.pipe.as_mut().context("the waiter has a pipe until it is dropped")?;
        writeln!(pipe, "{command}").with_context(|| format!("promise `{command}`"))
    }

    /// Everything was put right otherwise.
    pub fn forget(mut self) {
        // By its pipe, because a signal would end the client of a container and not what waits in it. One that is
        // gone already undoes nothing either.
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "forget");
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let deadline = Instant::now() + LIMIT;
        while matches!(self.waiter.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;

    use super::*;
    use crate::root::{Stopped, state};

    /// A process of this user's own needs nobody else's rights.
    fn stopped(pid: i32) -> Stopped {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Stopped::new(&Root::Own, vec![pid])).unwrap()
    }

    /// A process that may be stopped.
    struct Victim(Child);

    impl Victim {
        fn new() -> Victim {
            Victim(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }

        fn wait_for(&self, wanted: impl Fn(Option<char>) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !wanted(state(self.pid())) {
                assert!(Instant::now() < deadline, "it is still {:?}", state(self.pid()));
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_is_stopped_goes_on_after_an_error_and_after_a_panic() {
        let victim = Victim::new();
        drop(stopped(victim.pid()));
        victim.wait_for(|state| state != Some('T'));
        let pid = victim.pid();
        let panicked = thread::spawn(move || {
            let _stopped = stopped(pid);
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        victim.wait_for(|state| state != Some('T'));
    }

    /// It starts itself once more, as the process that stops the victim and is killed.
    #[test]
    fn what_is_stopped_goes_on_after_sigkill_of_whoever_stopped_it() {
        const NAME: &str =
            "undo::tests::what_is_stopped_goes_on_after_sigkill_of_whoever_stopped_it";
        if let Ok(pid) = env::var("VICTIM") {
            let _stopped = stopped(pid.parse().unwrap());
            thread::sleep(Duration::from_secs(600));
            return;
        }
        let victim = Victim::new();
        let mut drill = Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("VICTIM", victim.pid().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        victim.wait_for(|state| state == Some('T'));
        drill.kill().unwrap();
        drill.wait().unwrap();
        victim.wait_for(|state| state != Some('T'));
    }

    #[test]
    fn promises_are_kept_once_and_not_after_they_were_forgotten() {
        let folder = env::temp_dir().join(format!("drill-undo-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (kept, forgotten) = (folder.join("kept"), folder.join("forgotten"));
        let mut undo = Undo::new().unwrap();
        undo.promise(&format!("echo once >>'{}'", kept.display())).unwrap();
        drop(undo);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "once\n");
        let mut undo = Undo::new().unwrap();
        undo.promise(&format!("echo once >>'{}'", forgotten.display())).unwrap();
        undo.forget();
        assert!(!forgotten.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
