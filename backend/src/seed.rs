//! `backend seed`: data to look at on a developer's machine. Seeds are no migrations: they may be
//! edited, they run again without harm, and they are refused in production.

use sqlx::Connection;

use crate::{
    config::{AppEnv, DatabaseConfig},
    db,
    migrate::{files::Set, history::History},
};

static EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/seeds.rs"));

/// Runs every file of `backend/seeds`, in order, in one transaction. The error is a sentence.
pub async fn run(
    app_env: AppEnv,
    config: &DatabaseConfig,
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    if app_env == AppEnv::Production {
        return Err("seeds are refused where APP_ENV=production: they hold an account whose \
                    password is public"
            .to_owned());
    }
    let mut connection = db::connect(config, "backend seed", &[])
        .await
        .map_err(|error| format!("connecting to seed: {}", db::describe(&error)))?;
    let set = Set::embedded().map_err(|error| error.to_string())?;
    let history = History::read(&mut connection).await.map_err(|error| error.to_string())?;
    if !history.compare(&set).is_current() {
        return Err("the schema is not current: run `backend migrate` first".to_owned());
    }
    let failed = |error: sqlx::Error| format!("seeding: {}", db::describe(&error));
    let mut transaction = connection.begin().await.map_err(failed)?;
    for (file, statements) in EMBEDDED {
        sqlx::raw_sql(*statements).execute(&mut *transaction).await.map_err(|error| {
            format!("seeds/{file} failed: {}. No seed was kept", db::describe(&error))
        })?;
        report(&format!("ran {file}"));
    }
    transaction.commit().await.map_err(failed)
}
