//! What operators do at a bad moment: migrate beside a long transaction, and back up while things break.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Running, Scene};
use crate::stack::kill;

/// How long somebody's report keeps the table.
const REPORT: Duration = Duration::from_secs(8);
/// How often a migration is tried, and the pause between, as the backend's engine does it.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

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

/// Backups, one after the other, while data services are killed. Each is whole or none at all, and
/// the one that is taken afterwards restores.
pub(super) fn backup(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let is_over = AtomicBool::new(false);
        let backups = async {
            while !is_over.load(Ordering::Relaxed) {
                // It may fail, and it may not: what is kept afterwards counts.
                let _ = scene.xtask(&["backup"]).await;
            }
        };
        let kills = async {
            for service in ["postgres", "redis", "postgres"] {
                scene.hold(Duration::from_millis(900)).await;
                scene.stack.wait_up(service, Duration::from_secs(20)).await?;
                kill(scene.stack.pid(service).await?).await?;
            }
            anyhow::Ok(())
        };
        let kills = async {
            let killed = kills.await;
            is_over.store(true, Ordering::Relaxed);
            killed
        };
        let ((), killed) = tokio::join!(backups, kills);
        scene.healed();
        killed?;
        scene.stack.wait_healthy(Duration::from_secs(30)).await?;
        if let Err(error) = scene.xtask(&["backup", "--verify"]).await {
            scene.violation(format!("no backup can be taken after the faults: {error:#}"));
        }
        for damaged in damaged(&scene.xtask(&["backup", "list", "--format", "json"]).await?)? {
            scene.violation(format!("a backup that is not whole is kept: {damaged}"));
        }
        Ok(())
    })
}

/// The backups of a list that cannot be restored.
fn damaged(list: &str) -> Result<Vec<String>> {
    let list: Value = serde_json::from_str(list).context("read the list of backups")?;
    let lines = list.as_array().context("find the backups in their list")?;
    let damaged = lines.iter().filter(|line| !line["damage"].is_null());
    Ok(damaged.map(Value::to_string).collect())
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
    }
}
