//! Copies to a server that speaks S3 and to a folder, and everything that can be wrong with them.

// A test that panics has failed, which is what it is for; here that goes for its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use age::secrecy::ExposeSecret;
use tempfile::TempDir;

const OFFSITE: &str = env!("CARGO_BIN_EXE_offsite");
const KEY: &str = "AKTEST";
const SECRET: &str = "the secret of the test";

/// A server with one empty bucket, `shop`.
struct Server {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Server {
    fn start() -> Server {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("shop")).unwrap();
        let program = Path::new(OFFSITE).parent().unwrap().join("examples/s3-server");
        let mut child = Command::new(program)
            .arg(folder.path())
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Server { child, address: address.trim().to_owned(), folder }
    }

    fn offsite(&self, args: &[&str]) -> Output {
        self.offsite_with(SECRET, args)
    }

    fn offsite_with(&self, secret: &str, args: &[&str]) -> Output {
        Command::new(OFFSITE)
            .args(args)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_ENDPOINT_URL", &self.address)
            .env("AWS_REGION", "eu-central-1")
            .output()
            .unwrap()
    }

    /// The objects of a copy, as the server keeps them.
    fn objects(&self, copy: &str) -> PathBuf {
        self.folder.path().join("shop/nightly").join(copy)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PLACE: &str = "s3://shop/nightly";
const NAME: &str = "20261124T131502Z";

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(output: &Output, said: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it took it");
    assert!(text.contains(said), "expected {said:?} in {text}");
}

/// A folder like a backup; one file is large enough to go up in parts.
fn sample(parent: &TempDir) -> PathBuf {
    let folder = parent.path().join(NAME);
    fs::create_dir(&folder).unwrap();
    let large: Vec<u8> =
        (0..6_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(folder.join("app.data.zst"), large).unwrap();
    fs::write(folder.join("empty.zst"), "").unwrap();
    fs::write(folder.join("manifest.json"), "{}\n").unwrap();
    folder
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

fn identity(parent: &TempDir, name: &str) -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let path = parent.path().join(name);
    fs::write(&path, identity.to_string().expose_secret()).unwrap();
    (path.display().to_string(), identity.to_public().to_string())
}

#[test]
fn a_copy_comes_back_from_s3_as_it_was() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let folder = sample(&scratch);
    let from = folder.display().to_string();
    assert_eq!(ok(&server.offsite(&["list", PLACE])), "");
    ok(&server.offsite(&["push", &from, PLACE]));
    assert_eq!(ok(&server.offsite(&["list", PLACE])), format!("{NAME}\n"));
    let to = scratch.path().join("back").display().to_string();
    ok(&server.offsite(&["pull", PLACE, NAME, &to]));
    assert_eq!(contents(&folder), contents(Path::new(&to)));
    fails(&server.offsite(&["push", &from, PLACE]), "is a whole copy already");
    fails(&server.offsite(&["pull", PLACE, NAME, &to]), "make ");
    fails(&server.offsite(&["pull", PLACE, "20260101T000000Z", &to]), "there is no whole copy");
}

#[test]
fn an_encrypted_copy_is_read_by_its_recipients_alone() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let folder = sample(&scratch);
    let from = folder.display().to_string();
    let ((first, one), (second, two)) = (identity(&scratch, "one"), identity(&scratch, "two"));
    let (stranger, _) = identity(&scratch, "stranger");
    fails(&server.offsite(&["push", &from, PLACE, "--recipient", "age1nobody"]), "no recipient");
    ok(&server.offsite(&["push", &from, PLACE, "--recipient", &one, "--recipient", &two]));
    for (name, bytes) in contents(&server.objects(NAME)) {
        assert!(name == "copy.json" || bytes.starts_with(b"age-encryption.org/v1\n"), "{name}");
    }
    let to = |name: &str| scratch.path().join(name).display().to_string();
    for (number, identity) in [first, second].iter().enumerate() {
        let to = to(&format!("back {number}"));
        ok(&server.offsite(&["pull", PLACE, NAME, &to, "--identity", identity]));
        assert_eq!(contents(&folder), contents(Path::new(&to)));
    }
    fails(&server.offsite(&["pull", PLACE, NAME, &to("none")]), "--identity FILE");
    let stranger = ["pull", PLACE, NAME, &to("stranger's"), "--identity", &stranger];
    fails(&server.offsite(&stranger), "No matching keys found");
}

#[test]
fn what_was_damaged_away_from_home_is_noticed() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let from = sample(&scratch).display().to_string();
    ok(&server.offsite(&["push", &from, PLACE]));
    let object = server.objects(NAME).join("app.data.zst");
    let whole = fs::read(&object).unwrap();
    let mut number = 0;
    let mut pull = || {
        number += 1;
        let to = scratch.path().join(format!("back {number}")).display().to_string();
        server.offsite(&["pull", PLACE, NAME, &to])
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&object, flipped).unwrap();
    fails(&pull(), "app.data.zst");
    fs::write(&object, &whole[..whole.len() - 1]).unwrap();
    fails(&pull(), "app.data.zst");
    fs::remove_file(&object).unwrap();
    fails(&pull(), "app.data.zst");
    fs::write(&object, &whole).unwrap();
    fs::write(server.objects(NAME).join("more"), "x").unwrap();
    fails(&pull(), "an object too much: more");
    fs::remove_file(server.objects(NAME).join("more")).unwrap();
    ok(&pull());
    // The index is written last: without it, it is no copy, and may be copied again.
    fs::remove_file(server.objects(NAME).join("copy.json")).unwrap();
    assert_eq!(ok(&server.offsite(&["list", PLACE])), "");
    ok(&server.offsite(&["push", &from, PLACE]));
}

#[test]
fn a_wrong_key_and_a_place_that_is_none_are_told() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let from = sample(&scratch).display().to_string();
    fails(&server.offsite_with("another", &["push", &from, PLACE]), PLACE);
    fails(&server.offsite(&["push", &from, "ftp://shop"]), "s3://BUCKET/PREFIX");
    assert_eq!(ok(&server.offsite(&["list", PLACE])), "");
}

#[test]
fn a_folder_is_a_place_too() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let folder = sample(&scratch);
    let (from, place) = (folder.display().to_string(), scratch.path().join("disk"));
    let place = place.display().to_string();
    ok(&server.offsite(&["push", &from, &place]));
    assert_eq!(ok(&server.offsite(&["list", &place])), format!("{NAME}\n"));
    let to = scratch.path().join("back").display().to_string();
    ok(&server.offsite(&["pull", &place, NAME, &to]));
    assert_eq!(contents(&folder), contents(Path::new(&to)));
}

#[test]
fn a_folder_gets_copies_that_only_their_owner_can_read() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let from = sample(&scratch).display().to_string();
    let place = scratch.path().join("disk");
    ok(&server.offsite(&["push", &from, &place.display().to_string()]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let copy = place.join(NAME);
    assert_eq!((mode(&place), mode(&copy)), (0o700, 0o700));
    for name in contents(&copy).keys() {
        assert_eq!(mode(&copy.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_disk_that_is_not_mounted_is_not_made_on_the_one_below() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let from = sample(&scratch).display().to_string();
    let disk = scratch.path().join("disk");
    let place = disk.join("shop").display().to_string();
    fails(&server.offsite(&["push", &from, &place]), "mount its disk, or make it once by hand");
    fails(&server.offsite(&["list", &place]), &place);
    assert!(!disk.exists(), "it made the folder of a disk");
}

/// As an interruption just before its end leaves a copy.
fn interrupted(server: &Server) {
    fs::remove_file(server.objects(NAME).join("copy.json")).unwrap();
}

#[test]
fn a_copy_that_was_interrupted_is_made_again_in_another_way() {
    let (server, scratch) = (Server::start(), TempDir::new().unwrap());
    let folder = sample(&scratch);
    let from = folder.display().to_string();
    let (key, recipient) = identity(&scratch, "key");
    let plain = ["push", &from, PLACE];
    let encrypted = [&plain[..], &["--recipient", &recipient]].concat();
    let pull = |name: &str| {
        let to = scratch.path().join(name).display().to_string();
        ok(&server.offsite(&["pull", PLACE, NAME, &to, "--identity", &key]));
        assert_eq!(contents(&folder), contents(Path::new(&to)));
    };
    ok(&server.offsite(&plain));
    interrupted(&server);
    ok(&server.offsite(&encrypted));
    pull("encrypted after plain");
    let names: Vec<String> = contents(&server.objects(NAME)).into_keys().collect();
    let is_readable = |name: &&String| *name != "copy.json" && !name.ends_with(".age");
    assert_eq!(names.iter().find(is_readable), None, "everybody can read what was left");
    interrupted(&server);
    ok(&server.offsite(&plain));
    pull("plain after encrypted");
    // As such a copy was made once: what was left is there still.
    fs::write(server.objects(NAME).join("app.data.zst.age"), "half").unwrap();
    pull("with what was left");
}
