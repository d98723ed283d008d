//! The whole machine: its engine, its clock. Every container on it is hit, so that these cases run
//! only when they are named.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Running, Scene};
use crate::docker::{docker, run};
use crate::root::Root;
use crate::stack::SERVICES;
use crate::undo::Undo;

/// A restart ends every container gracefully, and PostgreSQL may take its time.
const RESTART: Duration = Duration::from_secs(120);
/// By whoever looks after it: systemd, the init script where that has started it, or else nobody, as
/// where `cargo xtask up` did: then the same command line is started again when the process is gone.
const RESTART_ENGINE: &str = "\
    if [ -d /run/systemd/system ]; then
        systemctl restart docker
    elif [ -s /var/run/docker-ssd.pid ]; then
        service docker restart
    else
        pid=$(cat /var/run/docker.pid)
        set -- $(tr '\\0' ' ' </proc/$pid/cmdline)
        kill $pid
        while kill -0 $pid 2>/dev/null; do sleep 0.1; done
        setsid \"$@\" >>/var/log/docker.log 2>&1 </dev/null &
    fi";
const HOUR: i64 = 3600;

/// The engine ends and comes back, and every container with it.
pub(super) fn engine(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        // A container that has root's rights ends with the engine.
        let is_root = matches!(scene.root, Root::Own);
        ensure!(is_root, "restarting the engine takes root itself: run this drill with sudo");
        let before = started(scene).await?;
        // In a session of its own: a drill that is ended meanwhile leaves no machine without an engine.
        let words = ["--wait", "sh", "-ec", RESTART_ENGINE];
        run("setsid", &words, RESTART).await.context("restart the engine")?;
        let answers = async || Ok(docker(&["version"]).await.is_ok());
        scene.expect("the engine answers again", RESTART, answers).await;
        scene.healed();
        let are_new = || async { Ok(are_all_new(&before, &started(scene).await?)) };
        scene.expect("every service was started anew", RESTART, are_new).await;
        Ok(())
    })
}

/// When each service was started, as the engine says it.
async fn started(scene: &Scene) -> Result<Vec<String>> {
    let mut moments = Vec::new();
    for service in SERVICES {
        moments.push(scene.stack.inspect(service, "{{.State.StartedAt}}").await?);
    }
    Ok(moments)
}

/// An engine can be told to leave containers alone when it ends (`live-restore`): that would be no fault.
fn are_all_new(before: &[String], after: &[String]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| before != after)
}

/// Puts the clock back when dropped, by as much as it was moved.
struct Moved {
    /// What is put back here; none where keeping the promise does it.
    seconds: Option<i64>,
    undo: Option<Undo>,
}

impl Moved {
    async fn by(root: &Root, seconds: i64) -> Result<Moved> {
        // For the end without a word, and for a drill that is not root; otherwise the clock is put back here, to
        // the nanosecond.
        let mut undo = Undo::as_root(root)?;
        undo.promise(&date(-seconds))?;
        let moved = match root {
            Root::Own => shift(seconds),
            Root::Engine { .. } => root.run(&date(seconds)).await.map(drop),
        };
        if let Err(error) = moved {
            undo.forget();
            return Err(error).context("set the clock; this needs a machine of its own");
        }
        let seconds = matches!(root, Root::Own).then_some(seconds);
        Ok(Moved { seconds, undo: Some(undo) })
    }
}

/// The command that moves the clock.
fn date(seconds: i64) -> String {
    format!("date -s \"$(date -d '{seconds:+} seconds' '+%F %T.%N')\"")
}

impl Drop for Moved {
    fn drop(&mut self) {
        let Some(seconds) = self.seconds else { return };
        match shift(-seconds) {
            Ok(()) => self.undo.take().into_iter().for_each(Undo::forget),
            Err(error) => eprintln!("the clock was {seconds} s off: {error:#}"),
        }
    }
}

fn shift(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec { tv_sec: now.tv_sec + seconds, ..now };
    Ok(clock_settime(ClockId::Realtime, then)?)
}

async fn off(scene: &Scene, seconds: i64) -> Result<()> {
    let moved = Moved::by(&scene.root, seconds).await?;
    scene.hold(Duration::from_secs(8)).await;
    drop(moved);
    scene.healed();
    Ok(())
}

pub(super) fn clock_ahead(scene: &Scene) -> Running<'_> {
    Box::pin(off(scene, HOUR))
}

pub(super) fn clock_behind(scene: &Scene) -> Running<'_> {
    Box::pin(off(scene, -HOUR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_was_left_alone_was_not_restarted() {
        let moments = |list: [&str; 2]| list.map(str::to_owned);
        assert!(are_all_new(&moments(["1", "2"]), &moments(["3", "4"])));
        assert!(!are_all_new(&moments(["1", "2"]), &moments(["3", "2"])));
    }
}
