//! Which migrations `migrate lint` takes for new, told by a real git.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, ok};

/// A project that is a folder of a larger repository, as a copy of this one may become.
#[test]
fn new_migrations_are_found_below_the_root_of_the_repository() {
    let bench = Bench::new();
    symlink("/usr/bin/git", bench.path("bin/git")).unwrap();
    let linter = bench.path("bin/cargo");
    fs::write(&linter, "#!/bin/sh\nprintf '%s\\n' \"$*\" >\"$(dirname \"$0\")/state/linted\"\n")
        .unwrap();
    fs::set_permissions(&linter, fs::Permissions::from_mode(0o755)).unwrap();
    let project = bench.path("products/one");
    fs::create_dir_all(project.join("backend/migrations")).unwrap();
    fs::create_dir_all(project.join("xtask")).unwrap();
    let migration = |name: &str| project.join("backend/migrations").join(name);
    let git = |words: &[&str]| git(&bench.path(""), words);

    fs::write(migration("0001_old.sql"), "SELECT 1;\n").unwrap();
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "products"]);
    git(&["commit", "--quiet", "--message", "old"]);
    git(&["checkout", "--quiet", "-b", "change"]);
    fs::write(migration("0002_committed.sql"), "SELECT 2;\n").unwrap();
    git(&["add", "products"]);
    git(&["commit", "--quiet", "--message", "new"]);
    fs::write(migration("0003_untracked.sql"), "SELECT 3;\n").unwrap();

    let mut lint = bench.command(&["migrate", "lint"]);
    lint.current_dir(&project).env("CARGO_MANIFEST_DIR", project.join("xtask"));
    ok(&lint.env("CARGO", &linter).output().unwrap());
    let linted = fs::read_to_string(bench.path("bin/state/linted")).unwrap();
    let files = linted.trim_end().split_once(" -- ").unwrap().1;
    assert_eq!(
        files,
        "backend/migrations/0002_committed.sql backend/migrations/0003_untracked.sql"
    );
}

fn git(folder: &Path, words: &[&str]) {
    let who = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    let mut git = Command::new("git");
    git.args(who).args(words).current_dir(folder).env("HOME", folder);
    let output = git.output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
