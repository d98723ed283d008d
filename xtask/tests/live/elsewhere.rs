//! Backups that are restored elsewhere: into a stack with other names, from a folder of copies, where there
//! is no room for them, and where the clock was wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backup::{ObjectStore, copy_folder, id_of_the_newest, ids, list};
use crate::domain;
use crate::stand::{Stand, Visitor, run};

/// A stack with one visitor's text in it, and a backup of it.
fn saved() -> Stand {
    let stand = Stand::new();
    stand.up().ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write("kept");
    stand.xtask(&["backup"]).ok();
    stand
}

/// Changes the manifest of a backup, and its sum with it.
fn edit(folder: &Path, from: &str, to: &str) {
    let (manifest, sums) = (folder.join("manifest.json"), folder.join("SHA256SUMS"));
    let sum = || run(Command::new("sha256sum").arg(&manifest)).ok().stdout[..64].to_owned();
    let (text, former) = (fs::read_to_string(&manifest).unwrap(), sum());
    assert!(text.contains(from), "{text}");
    fs::write(&manifest, text.replace(from, to)).unwrap();
    let lines = fs::read_to_string(&sums).unwrap().replace(&former, &sum());
    fs::write(&sums, lines).unwrap();
}

#[test]
fn the_application_may_use_what_was_restored_whatever_its_name() {
    let stand = saved();
    stand.sql(
        "CREATE TABLE read_only (id int); ALTER TABLE read_only OWNER TO owner; \
         REVOKE ALL ON read_only FROM app; GRANT SELECT (id) ON read_only TO app",
    );
    stand.xtask(&["backup"]).ok();
    stand.xtask(&["down", "--volumes", "--yes"]).ok();
    stand.set("PG_USER", "shopper");
    stand.up().ok();
    stand.xtask(&["restore", "latest", "--yes"]).ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write("new");
    assert!(visitor.sees("new"));
    let may = |right: &str| stand.sql(&format!("SELECT has_{right}"));
    // No more than the application of the backup had.
    assert_eq!(may("table_privilege('shopper', 'read_only', 'INSERT')"), "f");
    assert_eq!(may("table_privilege('shopper', 'read_only', 'SELECT')"), "f");
    assert_eq!(may("column_privilege('shopper', 'read_only', 'id', 'SELECT')"), "t");
    let truncate = format!("table_privilege('shopper', '{}', 'TRUNCATE')", domain::TABLE);
    assert_eq!(may(&truncate), "f");
    // And what a later migration takes away stays away, whoever else may write by default.
    let update = format!("table_privilege('shopper', '{}', 'UPDATE')", domain::TABLE);
    stand.sql(&format!(
        "REVOKE UPDATE ON {} FROM shopper; CREATE ROLE worker; ALTER DEFAULT PRIVILEGES FOR ROLE owner \
         GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO worker",
        domain::TABLE
    ));
    assert_eq!(may(&update), "f");
    stand.xtask(&["env", "rotate", "PG_PASSWORD"]).ok();
    assert_eq!(may(&update), "f");
}

#[test]
fn a_drill_does_not_begin_where_it_would_fill_the_disk_of_the_stack() {
    let stand = saved();
    let folder = stand.backups().join(id_of_the_newest(&stand));
    // A backup of a database that is larger than any disk, as far as its manifest tells.
    edit(&folder, "\"disk_bytes\": ", "\"disk_bytes\": 1000000000");
    stand.xtask(&["backup", "verify"]).fails(1, &["the drill need about", "make room"]);
    assert_eq!(list(&stand)[0]["verified_at"], Value::Null);
    // It says nothing about a backup, not even that it failed.
    assert!(!folder.join("verification.json").exists());
    // What the manifest says may be bloat, which only the person knows.
    stand.xtask(&["backup", "verify", "--force"]).ok().says(&["verified"]);

    // Nor does a disk that is not mounted keep one from being made.
    stand.set("BACKUP_REMOTE", &stand.folder().join("not-mounted").display().to_string());
    let before = ids(&stand).len();
    stand.xtask(&["backup", "--push"]).fails(1, &["mount its disk", "made all the same"]);
    assert_eq!(ids(&stand).len(), before + 1);
}

#[test]
fn a_backup_is_not_begun_where_it_would_fill_the_disk_and_old_ones_go_all_the_same() {
    const HUGE: u64 = 2 << 40;
    let stand = saved();
    stand.xtask(&["backup"]).ok();
    stand.xtask(&["backup"]).ok();
    let (first, newest) = (ids(&stand)[0].clone(), id_of_the_newest(&stand));
    // One that takes more than there is, with holes in it.
    let folder = stand.backups().join(&newest);
    let roles = folder.join("roles.sql.zst");
    let length = format!("\"bytes\": {},", roles.metadata().unwrap().len());
    edit(&folder, &length, &format!("\"bytes\": {HUGE},"));
    fs::File::options().write(true).open(&roles).unwrap().set_len(HUGE).unwrap();
    let refused = ["there is no room for a backup", "--force"];
    stand.xtask(&["backup", "--dry-run"]).fails(1, &refused);
    let restore = ["restore", &first, "--yes"];
    stand.xtask(&restore).fails(1, &["nothing was changed", "--skip-safety-backup", refused[0]]);
    assert_eq!(ids(&stand).len(), 3);
    let only = "--prune --keep-last=1 --keep-daily=0 --keep-weekly=0 --keep-monthly=0 --yes";
    let nightly: Vec<&str> = ["backup", "--verify"].into_iter().chain(only.split(' ')).collect();
    stand.xtask(&nightly).fails(1, &["Nothing was begun", "deleted 2 backups, kept 1"]);
    assert_eq!(ids(&stand), [&*newest]);
    stand.xtask(&["backup", "--force"]).ok();
    // After any other failure nothing is deleted.
    stand.xtask(&["down"]).ok();
    stand.xtask(&nightly).fails(1, &["does not run"]);
    assert_eq!(ids(&stand).len(), 2);
}

#[test]
fn a_copy_in_a_folder_is_found_and_a_dry_run_fetches_none() {
    let stand = saved();
    let id = id_of_the_newest(&stand);
    let (remote, store) =
        (stand.folder().join("remote"), ObjectStore::start(&stand.folder().join("objects")));
    stand.set("BACKUP_REMOTE", &remote.display().to_string());
    // As a disk that is not mounted.
    stand.xtask(&["backup", "push"]).fails(1, &["mount its disk", "mkdir"]);
    assert!(!remote.exists());
    fs::create_dir(&remote).unwrap();
    stand.xtask(&["backup", "list", "--remote"]).ok().says(&["no copy in"]);
    let doctor =
        |words: &str| stand.xtask(&["doctor", "--format", "json"]).says(&["\"copies\"", words]);
    doctor("has copied no backup to");
    assert_eq!(list(&stand)[0]["copied_at"], Value::Null);
    stand.xtask(&["backup", "push"]).ok().says(&["on the same file system as the backups"]);
    doctor(&format!("/remote/{} is {id}", stand.name));
    let status = stand.status();
    assert_eq!(status["last_copied_backup"], *id);
    assert!(status["last_copied_age_seconds"].is_u64() && list(&stand)[0]["copied_at"].is_string());
    stand.xtask(&["backup", "--schedule"]).ok().says(&["without --push this copies nothing"]);
    stand.set("BACKUP_REMOTE", "s3://shop/nightly");
    // That is another place.
    doctor("has copied no backup to s3://shop/nightly/");
    store.xtask(&stand, &["backup", "push"]).ok();
    let (folder, bucket) = (
        remote.join(&stand.name).display().to_string(),
        format!("s3://shop/nightly/{}", stand.name),
    );
    let restore = ["restore", "latest", "--from"];
    for place in [&folder, &bucket] {
        let dry = [&restore[..], &[place, "--dry-run"]].concat();
        store.xtask(&stand, &dry).ok().says(&["would fetch", &id, "the keys of Redis"]);
    }
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    stand.xtask(&[&restore[..], &[&folder, "--yes"]].concat()).ok().says(&["restored", &id]);
    assert_eq!(stand.sql("SELECT count(*) FROM accounts"), "1");
    let above = remote.display().to_string();
    let above = [&restore[..], &[&above, "--yes"]].concat();
    stand.xtask(&above).fails(1, &[&folder]);
    what_a_killed_restore_fetched_goes_away(&stand, &[&restore[..], &[&folder, "--yes"]].concat());
}

/// Everybody's rows, in a folder below `target`.
fn what_a_killed_restore_fetched_goes_away(stand: &Stand, restore: &[&str]) {
    let fetched = || {
        let entries = fs::read_dir(stand.folder()).unwrap().flatten().map(|entry| entry.path());
        let is_it = |path: &PathBuf| path.to_string_lossy().contains("fetched-");
        entries
            .filter(is_it)
            .find(|folder| fs::read_dir(folder).is_ok_and(|mut f| f.next().is_some()))
    };
    let mut child = stand.spawn(restore);
    let deadline = Instant::now() + Duration::from_secs(60);
    while fetched().is_none() {
        assert!(Instant::now() < deadline, "nothing is fetched");
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The program that fetches goes on for a moment: it does not hear of that.
    thread::sleep(Duration::from_secs(2));
    assert!(fetched().is_some());
    stand.xtask(&["backup"]).ok().says(&["removing what a killed restore fetched"]);
    assert_eq!(fetched(), None);
    stand.xtask(restore).ok();
    assert_eq!(fetched(), None, "a restore that went well has left what it fetched");
}

#[test]
fn a_backup_from_the_future_hides_no_other() {
    let stand = saved();
    let id = id_of_the_newest(&stand);
    let (ahead, none) = ("20991231T235959Z", Value::Null);
    let folder = stand.backups().join(ahead);
    copy_folder(&stand.backups().join(&id), &folder);
    edit(&folder, &id, ahead);
    assert_eq!(ids(&stand), [&*id, ahead]);
    let lines = list(&stand);
    assert_eq!((&lines[0]["is_ahead"], &lines[1]["is_ahead"]), (&Value::from(false), &true.into()));
    assert_eq!((&lines[1]["damage"], &lines[1]["age_seconds"]), (&none, &none));
    stand.xtask(&["backup", "list"]).ok().says(&["never `latest`: its time has not come"]);
    stand.xtask(&["backup", "verify", "latest"]).ok().says(&[&id]);
    stand.xtask(&["backup", "verify", ahead]).ok();
    let status = stand.status();
    assert_eq!(
        (&status["last_backup"], &status["last_verified_backup"]),
        (&id.clone().into(), &id.clone().into())
    );
    let doctor = stand.xtask(&["doctor"]);
    doctor
        .says(&[&format!("{ahead} is never `latest`"), &format!("the last verified one is {id}")]);
    let only = "--keep-last=1 --keep-daily=0 --keep-weekly=0 --keep-monthly=0 --yes";
    let prune: Vec<&str> = ["backup", "prune"].into_iter().chain(only.split(' ')).collect();
    stand.xtask(&prune).ok().says(&["nothing to delete"]);
    let restored = stand.xtask(&["restore", "latest", "--yes", "--skip-safety-backup"]).ok();
    restored.says(&[&format!("restored {id}")]);
    fs::remove_dir_all(stand.backups().join(&id)).unwrap();
    stand.xtask(&["restore", "latest", "--yes"]).fails(1, &[ahead, "take it by its name"]);
    stand.xtask(&["restore", ahead, "--yes", "--skip-safety-backup"]).ok();
}
