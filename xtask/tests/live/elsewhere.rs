//! Backups that are restored elsewhere: from a folder of copies, and where there is no room for them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::backup::{ObjectStore, id_of_the_newest, list};
use crate::stand::{Stand, Visitor, run};

/// A stack with one visitor's note in it, and a backup of it.
fn saved() -> Stand {
    let stand = Stand::new();
    stand.up().ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write_note("kept");
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
fn a_drill_does_not_begin_where_it_would_fill_the_disk_of_the_stack() {
    let stand = saved();
    let folder = stand.backups().join(id_of_the_newest(&stand));
    // A backup of a database that is larger than any disk, as far as its manifest tells.
    edit(&folder, "\"disk_bytes\": ", "\"disk_bytes\": 1000000000");
    stand.xtask(&["backup", "verify"]).fails(1, &["the drill need about", "make room"]);
    assert_eq!(list(&stand)[0]["verified_at"], Value::Null);
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
    stand.xtask(&["backup", "push"]).ok().says(&["on the same file system as the backups"]);
    stand.set("BACKUP_REMOTE", "s3://shop/nightly");
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
}
