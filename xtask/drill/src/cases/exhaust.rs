//! Somebody takes every connection of PostgreSQL.

use std::time::Duration;

use anyhow::ensure;

use super::{Running, Scene};

/// More than `max_connections` in deploy/postgres/postgresql.conf.
const ROGUES: u32 = 70;

/// How PostgreSQL refuses one more: those that are left are for operators, or there are none.
const FULL: [&str; 2] = ["remaining connection slots are reserved", "too many clients already"];

/// A client that opens every connection that there is and sleeps on them.
pub(super) fn connections(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let database = scene.stack.value("PG_DBNAME");
        let rogue = format!(
            "for i in $(seq {ROGUES}); do psql -XAtq -U backup -d {database} \
             -c 'SELECT pg_sleep(8)' >/dev/null 2>&1 & done; wait"
        );
        let rogue = ["sh", "-c", &rogue];
        let rogues = scene.stack.exec("postgres", &rogue);
        let others = async {
            scene.hold(Duration::from_secs(3)).await;
            let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'backup'";
            let one_more = scene.stack.sql_as("backup", "SELECT 1").await;
            (scene.stack.sql(count).await, one_more)
        };
        let (rogues, (operator, one_more)) = tokio::join!(rogues, others);
        scene.healed();
        rogues?;
        let one_more = one_more.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(
            FULL.iter().any(|reason| one_more.contains(reason)),
            "PostgreSQL took one more connection, or refused it for another reason ({one_more:?})"
        );
        match operator.map(|count| count.parse::<u32>()) {
            Ok(Ok(count)) => ensure!(count > 30, "there were only {count} rogue connections"),
            _ => scene.violation("the operator did not get in while the connections were used up"),
        }
        Ok(())
    })
}
