//! What operators do at a bad moment: migrate beside a long transaction, and back up while things break.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use super::{Running, Scene};
use crate::arena::OVERLAY;

/// How long somebody's report keeps the table.
const REPORT: Duration = Duration::from_secs(8);
/// How often a migration is tried, and the pause between, as the backend's engine does it.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// How long a killed service may take to come back, and the next backup to begin its dump.
const UP: Duration = Duration::from_secs(20);

/// A change of a table waits for a long transaction, and everybody else waits behind the change: its
/// time-out for locks must let them through.
pub(super) fn migration(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let report =
            format!("SELECT count(*) FROM accounts; SELECT pg_sleep({})", REPORT.as_secs());
        let report = scene.stack.sql(&report);
        // As the role that migrates, with the time-outs that it has.
        let change = async {
            scene.hold(Duration::from_millis(500)).await;
            let mut outcome = Ok(String::new());
            let mut refused = 0;
            for _ in 0..ATTEMPTS {
                outcome = scene
                    .stack
                    .sql_as("owner", "ALTER TABLE accounts ADD COLUMN drill integer")
                    .await;
                if outcome.is_ok() {
                    break;
                }
                refused += 1;
                scene.hold(PAUSE).await;
            }
            (outcome, refused)
        };
        let (reported, (changed, refused)) = tokio::join!(report, change);
        scene.healed();
        reported?;
        changed.context("change a table beside a long transaction")?;
        scene.stack.sql_as("owner", "ALTER TABLE accounts DROP COLUMN drill").await?;
        ensure!(refused > 0, "the migration did not have to wait for the transaction");
        Ok(())
    })
}

/// Another configuration of the backend, which makes another version of it; the one before is written again when
/// this is dropped.
struct Version {
    overlay: PathBuf,
    before: String,
}

impl Version {
    fn with(scene: &Scene, variable: &str) -> Result<Version> {
        let overlay = scene.stack.env_file.with_file_name(OVERLAY);
        let before = fs::read_to_string(&overlay).context("read the drill's overlay")?;
        let place = "    environment:\n";
        ensure!(before.contains(place), "the drill's overlay sets no variable of the backend");
        let after = before.replacen(place, &format!("{place}      {variable}\n"), 1);
        fs::write(&overlay, after).context("change the drill's overlay")?;
        Ok(Version { overlay, before })
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        // It goes away with the stack.
        let _ = fs::write(&self.overlay, &self.before);
    }
}

/// A new version of the backend takes over while people read and write.
pub(super) fn deploy(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let before = scene.stack.inspect("backend", "{{.Id}}").await?;
        // A value that no version before it had.
        let _version = Version::with(scene, &format!("DRILL: \"{}\"", scene.workload.now()))?;
        let deployed = scene.xtask(&["deploy", "--watch", "3"]).await;
        scene.healed();
        if let Err(error) = deployed {
            scene.violation(format!("it was not deployed: {error:#}"));
        }
        let after = scene.stack.inspect("backend", "{{.Id}}").await?;
        ensure!(after != before, "the backend's container is the one that it was");
        Ok(())
    })
}

/// One that ends at its start, and the way back.
pub(super) fn deploy_broken(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let before = scene.stack.inspect("backend", "{{.Id}}").await?;
        let _version = Version::with(scene, "SESSION_SECRET: no-hexadecimal-number")?;
        let deployed = scene.xtask(&["deploy", "--watch", "3"]).await;
        scene.healed();
        let said = deployed.err().context("a version that does not start was deployed")?;
        let said = format!("{said:#}");
        ensure!(said.contains("rolled back"), "it was not rolled back: {said}");
        let after = scene.stack.inspect("backend", "{{.Id}}").await?;
        ensure!(after == before, "the backend's container is another one");
        Ok(())
    })
}

/// Backups, one after the other, while data services are killed. Each is whole or none at all, and
/// all that there are afterwards restore.
pub(super) fn backup(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let is_over = AtomicBool::new(false);
        let backups = async {
            let mut failed = 0;
            while !is_over.load(Ordering::Relaxed) {
                // It may fail, and it may not: what is kept afterwards counts.
                failed += u32::from(scene.xtask(&["backup"]).await.is_err());
            }
            failed
        };
        let kills = async {
            let killed = kills(scene).await;
            is_over.store(true, Ordering::Relaxed);
            killed
        };
        let (failed, killed) = tokio::join!(backups, kills);
        scene.healed();
        killed?;
        ensure!(failed > 0, "no backup was broken by a kill");
        scene.stack.wait_healthy(Duration::from_secs(30)).await?;
        if let Err(error) = scene.xtask(&["backup"]).await {
            scene.violation(format!("no backup can be taken after the faults: {error:#}"));
        }
        let list = scene.xtask(&["backup", "list", "--format", "json"]).await?;
        for damaged in damaged(&list)? {
            scene.violation(format!("a backup that is not whole is kept: {damaged}"));
        }
        for id in ids(&list)? {
            if let Err(error) = scene.xtask(&["backup", "verify", &id]).await {
                scene.violation(format!("a backup that is kept does not restore: {error:#}"));
            }
        }
        Ok(())
    })
}

/// At some moment twice, and once in the midst of a dump.
async fn kills(scene: &Scene) -> Result<()> {
    for (service, in_a_dump) in [("postgres", false), ("redis", false), ("postgres", true)] {
        scene.hold(Duration::from_millis(900)).await;
        scene.stack.wait_up(service, UP).await?;
        let deadline = Instant::now() + UP;
        while in_a_dump && !is_dumping(scene).await? {
            ensure!(Instant::now() < deadline, "no dump was seen within {} s", UP.as_secs());
        }
        scene.root.kill(scene.stack.pid(service).await?).await?;
    }
    Ok(())
}

async fn is_dumping(scene: &Scene) -> Result<bool> {
    let processes = scene.stack.processes("postgres").await?;
    Ok(processes.iter().any(|(_, args)| args.starts_with("pg_dump ")))
}

/// The backups of a list that cannot be restored.
fn damaged(list: &str) -> Result<Vec<String>> {
    let lines = lines(list)?;
    let damaged = lines.iter().filter(|line| !line["damage"].is_null());
    Ok(damaged.map(Value::to_string).collect())
}

/// The names of the others.
fn ids(list: &str) -> Result<Vec<String>> {
    let lines = lines(list)?;
    let whole = lines.iter().filter(|line| line["damage"].is_null());
    let ids: Vec<String> = whole.filter_map(|line| Some(line["id"].as_str()?.to_owned())).collect();
    ensure!(!ids.is_empty(), "there is no backup in {list}");
    Ok(ids)
}

fn lines(list: &str) -> Result<Vec<Value>> {
    serde_json::from_str(list).context("read the list of backups")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_with_damage_is_found_in_the_list() {
        let list = r#"[{"id":"a","damage":null},{"id":"b","damage":"a file is missing"}]"#;
        let found = damaged(list).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("a file is missing"));
        assert_eq!(ids(list).unwrap(), ["a"]);
        assert!(ids("[]").is_err());
    }
}
