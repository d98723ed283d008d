//! Backups and restores of real stacks: under load, damaged, and after the loss of everything else.
//! Interrupted ones are in `interruptions`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::domain;
use crate::stand::{Run, Stand, Visitor, run};

/// Somebody who signed up, with what was acknowledged and when.
struct Person {
    visitor: Visitor,
    signed_up: Instant,
    texts: Vec<(String, Instant)>,
}

/// What the people who write are told, and how many of them have written all their texts.
#[derive(Default)]
struct Load {
    end: AtomicBool,
    done: AtomicUsize,
}

/// People who sign up and write until they are told to stop, or are not let in any more.
fn writers(stand: &Stand, number: usize, load: &Arc<Load>) -> JoinHandle<Vec<Person>> {
    let (load, fresh) = (load.clone(), Visitor::new(stand));
    thread::spawn(move || {
        let mut people = Vec::new();
        while !load.end.load(Ordering::Relaxed) {
            let mut visitor = fresh.somebody_else();
            let email = format!("w{number}-{}@example.com", people.len());
            let body = json!({"email": email, "password": "a long enough password"});
            if visitor.post("/api/accounts", body).0 != 201 {
                continue;
            }
            let mut person = Person { visitor, signed_up: Instant::now(), texts: Vec::new() };
            for number in 0..5 {
                let text = format!("text {number} of {email}");
                if person.visitor.post(domain::PATH, domain::body(&text)).0 == 201 {
                    person.texts.push((text, Instant::now()));
                }
            }
            people.push(person);
            load.done.fetch_add(1, Ordering::Relaxed);
        }
        people
    })
}

pub(crate) fn id_of_the_newest(stand: &Stand) -> String {
    list(stand).last().unwrap()["id"].as_str().unwrap().to_owned()
}

pub(crate) fn list(stand: &Stand) -> Vec<Value> {
    let run = stand.xtask(&["backup", "list", "--format", "json"]).ok();
    serde_json::from_str(&run.stdout).unwrap()
}

pub(crate) fn ids(stand: &Stand) -> Vec<String> {
    list(stand).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// No listed backup is damaged.
#[track_caller]
pub(crate) fn expect_whole(stand: &Stand) {
    for line in list(stand) {
        assert_eq!(line["damage"], Value::Null, "{line}");
    }
}

#[test]
fn what_was_acknowledged_before_a_backup_is_there_after_a_restore() {
    let stand = Stand::new();
    stand.up().ok();
    let load = Arc::new(Load::default());
    let writers: Vec<_> = (0..2).map(|number| writers(&stand, number, &load)).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while load.done.load(Ordering::Relaxed) < 5 {
        assert!(Instant::now() < deadline, "nobody gets their texts written");
        thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    stand.xtask(&["backup"]).ok();
    let ended = Instant::now();
    let id = id_of_the_newest(&stand);
    stand.xtask(&["backup", "verify", &id]).ok().says(&["verified", "restores in"]);
    assert!(stand.status()["last_verified_backup"] == id);
    // The load goes on while it is replaced.
    stand
        .xtask(&["restore", &id])
        .fails(1, &["replace the database app", "keys of Redis", "--yes"]);
    let run = stand.xtask(&["restore", &id, "--yes"]).ok();
    let run = run.says(&["counted: this backup was verified", "restored", "was there before"]);
    load.end.store(true, Ordering::Relaxed);
    let people: Vec<Person> =
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let known = |person: &&Person| person.signed_up < began;
    assert!(people.iter().filter(known).count() > 3, "too few people to tell");
    let mut checked = 0;
    for person in people.iter().filter(known) {
        let (status, answer) = person.visitor.get(domain::PATH_OF_MANY);
        assert_eq!(status, 200, "a session from before the backup is gone: {answer}");
        let answer = answer.to_string();
        for (text, _) in person.texts.iter().filter(|(_, at)| *at < began) {
            assert_eq!(answer.matches(&format!("\"{text}\"")).count(), 1, "{text} in {answer}");
            checked += 1;
        }
        for (text, _) in person.texts.iter().filter(|(_, at)| *at > ended) {
            assert!(!answer.contains(&format!("\"{text}\"")), "{text} came after the backup");
        }
    }
    assert!(checked > 10, "{checked} texts are too few to tell");
    // Nothing stays beside the new data, and what was replaced is a backup of its own.
    assert_eq!(stand.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'app\\_%'"), "0");
    let keys = stand.xtask(&["redis-cli", "--", "-n", "15", "dbsize"]).ok();
    assert_eq!(keys.stdout.trim(), "0");
    let before = list(&stand);
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before[1]["reason"].as_str().unwrap().contains(&id), "{before:?}");
    // It is reached by its name, which the restore has told; in the same trouble again, `latest` is what it was.
    let safety = before[1]["id"].as_str().unwrap();
    run.says(&[&format!(
        "`cargo xtask --env-file {} restore {safety}`",
        stand.env_file().display()
    )]);
    assert_eq!((&before[0]["is_safety"], &before[1]["is_safety"]), (&json!(false), &json!(true)));
    stand.xtask(&["backup", "show"]).ok().says(&[&format!("the latest is {id}"), safety]);
    stand.xtask(&["restore", "latest"]).fails(1, &[&format!("by those of the backup {id}, so")]);
    let by_name = stand.xtask(&["restore", safety]);
    by_name.fails(1, &[&format!("the backup {safety} (taken: before the restore of {id})")]);
    let elsewhere = stand.backups().display().to_string();
    let elsewhere = stand.xtask(&["restore", "latest", "--from", &elsewhere]);
    elsewhere.fails(1, &["passed over, though it is newer", &format!("of the backup {id}, so")]);
    stand.xtask(&["up"]).ok().says(&["nothing to do"]);
    the_parts_and_a_copy(&stand, &id);
}

/// One of the two alone, and a copy to look at.
fn the_parts_and_a_copy(stand: &Stand, id: &str) {
    let mut visitor = Visitor::new(stand);
    visitor.sign_up();
    let mut newcomer = Visitor::new(stand);
    newcomer.sign_up();
    let rows = stand.sql("SELECT count(*) FROM accounts");
    let run = stand.xtask(&["restore", id, "--into", "look", "--compare"]).ok();
    run.says(&["each compared with the manifest", "nothing else was changed"]);
    stand.xtask(&["restore", id, "--into", "look"]).fails(1, &["a database look already"]);
    let copied = stand.xtask(&[
        "psql",
        "--",
        "-U",
        "postgres",
        "-d",
        "look",
        "-Atc",
        "SELECT count(*) FROM accounts",
    ]);
    assert!(copied.ok().stdout.trim() != rows, "the copy is not of that time");
    stand.sql("DROP DATABASE look");
    assert_eq!(stand.sql("SELECT count(*) FROM accounts"), rows);
    let alone = ["restore", id, "--only", "redis", "--skip-safety-backup", "--yes"];
    let restored = stand.xtask(&[&alone[..], &["--format", "json"]].concat()).ok();
    let restored: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert_eq!((&restored["id"], &restored["rows"]), (&json!(id), &Value::Null), "{restored}");
    assert!(restored["keys"].as_u64() > Some(0), "{restored}");
    assert_eq!(visitor.get("/api/session").0, 401, "a session from after the backup is alive");
    assert_eq!(stand.sql("SELECT count(*) FROM accounts"), rows);
    newcomer.sign_up();
    let given = stand.sql("SELECT max(id) FROM accounts").parse::<u64>().unwrap();
    stand.xtask(&["restore", id, "--only", "postgres", "--skip-safety-backup", "--yes"]).ok();
    assert_ne!(stand.sql("SELECT count(*) FROM accounts"), rows);
    // The session of somebody who is newer than the rows is nobody's, whoever signs up next.
    assert_eq!(newcomer.get("/api/session").0, 401, "a session without its row is alive");
    Visitor::new(stand).sign_up();
    let next = stand.sql("SELECT max(id) FROM accounts").parse::<u64>().unwrap();
    assert!(next > given, "the number {next} was given out again; {given} was the last one");
    assert_eq!(newcomer.get("/api/session").0, 401, "a session became somebody else's");
}

/// What was done to a backup, and what does it.
type Damage = (String, Box<dyn Fn(&Path)>);

/// Everything that can be done to a folder of files.
fn damages(whole: &Path, other: &Path) -> Vec<Damage> {
    let mut damages: Vec<Damage> = Vec::new();
    for entry in fs::read_dir(whole).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let bytes = fs::read(whole.join(&name)).unwrap();
        let mut change = |what: &str, changed: Vec<u8>| {
            let file = name.clone();
            let write = move |folder: &Path| fs::write(folder.join(&file), &changed).unwrap();
            damages.push((format!("{name} {what}"), Box::new(write)));
        };
        change("a byte shorter", bytes[..bytes.len() - 1].to_vec());
        change("with a bit flipped", {
            let mut flipped = bytes.clone();
            flipped[bytes.len() / 2] ^= 1;
            flipped
        });
        change("empty", Vec::new());
        let another = fs::read(other.join(&name)).unwrap();
        if another != bytes {
            change("of another backup", another);
        }
        let file = name.clone();
        let delete = move |folder: &Path| fs::remove_file(folder.join(&file)).unwrap();
        damages.push((format!("{name} deleted"), Box::new(delete)));
    }
    damages.push((
        "a number in the manifest edited".to_owned(),
        Box::new(|folder| {
            let path = folder.join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"rows\": "), "{text}");
            fs::write(&path, text.replacen("\"rows\": ", "\"rows\": 1", 1)).unwrap();
        }),
    ));
    damages.push((
        "an extra file".to_owned(),
        Box::new(|folder| fs::write(folder.join("extra.zst"), "x").unwrap()),
    ));
    damages
}

#[test]
fn every_damage_is_noticed_before_anything_is_touched() {
    let stand = Stand::new();
    stand.up().ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write("first");
    stand.xtask(&["backup"]).ok();
    let id = id_of_the_newest(&stand);
    visitor.write("second");
    stand.xtask(&["backup"]).ok();
    let newest = id_of_the_newest(&stand);
    let (whole, other) = (stand.backups().join(&id), stand.backups().join(&newest));
    let kept = stand.write("kept", "");
    fs::remove_file(&kept).unwrap();
    copy_folder(&whole, &kept);
    let databases = stand.sql("SELECT string_agg(datname, ' ') FROM pg_database");
    let damages = damages(&kept, &other);
    assert!(damages.len() > 25, "{}", damages.len());
    for (what, damage) in damages {
        fs::remove_dir_all(&whole).unwrap();
        copy_folder(&kept, &whole);
        damage(&whole);
        for verb in [&["backup", "verify", &id][..], &["restore", &id, "--yes"]] {
            let run = stand.xtask(verb);
            assert_eq!(run.code, Some(1), "{what}: {verb:?} took it: {}", run.text);
            assert!(!run.text.contains("swap"), "{what}: {}", run.text);
        }
    }
    fs::remove_dir_all(&whole).unwrap();
    fs::create_dir(&whole).unwrap();
    stand.xtask(&["restore", &id, "--yes"]).fails(1, &["SHA256SUMS", &id]);
    let damaged: Vec<Value> = list(&stand).into_iter().filter(|l| !l["damage"].is_null()).collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(visitor.sees("second"));
    assert_eq!(stand.sql("SELECT string_agg(datname, ' ') FROM pg_database"), databases);
    fs::remove_dir_all(&whole).unwrap();
    copy_folder(&kept, &whole);
    // `latest` is the newest that is whole.
    stand.xtask(&["backup", "verify", "latest"]).ok().says(&[&newest]);
    fs::write(other.join("extra.zst"), "x").unwrap();
    stand.xtask(&["backup", "verify", "latest"]).ok().says(&[&id]);
    stand.xtask(&["restore", &id, "--yes"]).ok();
    assert!(visitor.sees("first") && !visitor.sees("second"));
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).ok();
}

/// A server that speaks S3, with an empty bucket `shop`.
pub(crate) struct ObjectStore {
    child: Child,
    address: String,
}

impl ObjectStore {
    const KEYS: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", "AKTEST"),
        ("AWS_SECRET_ACCESS_KEY", "the secret of the test"),
        ("AWS_REGION", "eu-central-1"),
    ];

    pub(crate) fn start(folder: &Path) -> ObjectStore {
        fs::create_dir_all(folder.join("shop")).unwrap();
        let words = ["run", "--quiet", "--locked", "--package", "offsite"];
        let mut child = Command::new(env!("CARGO"))
            .args(words)
            .args(["--example", "s3-server", "--"])
            .arg(folder)
            .envs(ObjectStore::KEYS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        ObjectStore { child, address: address.trim().to_owned() }
    }

    /// Runs xtask with the store's address and keys.
    pub(crate) fn xtask(&self, stand: &Stand, args: &[&str]) -> Run {
        let mut command = stand.command(args);
        run(command.envs(ObjectStore::KEYS).env("AWS_ENDPOINT_URL", &self.address))
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // It ends with its standard input, also behind cargo.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_new_server_the_runbook_leads_to_a_serving_stack() {
    let lost = Stand::production();
    let store = ObjectStore::start(&lost.folder().join("objects"));
    let key = age::x25519::Identity::generate();
    let identity = lost.write("identity", key.to_string().expose_secret()).display().to_string();
    lost.set("BACKUP_REMOTE", "s3://shop/nightly");
    lost.set("BACKUP_RECIPIENTS", &key.to_public().to_string());
    lost.up().ok();
    let password = "'$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA'";
    lost.sql(&format!(
        "INSERT INTO accounts (email, password_hash) VALUES ('a@example.com', {password}); {}",
        domain::insert("SELECT id, 'kept' FROM accounts")
    ));
    lost.xtask(&["redis-cli", "--", "set", "test:key", "kept"]).ok();
    store.xtask(&lost, &["backup", "--verify", "--push"]).ok().says(&["encrypted, read back"]);
    // What was kept elsewhere: the environment file, the secret key, the copy, and here a folder, too.
    let id = id_of_the_newest(&lost);
    let (env, elsewhere) = (lost.env_text(), lost.folder().join("elsewhere"));
    copy_folder(&lost.backups(), &elsewhere);
    lost.xtask(&["down", "--volumes", "--yes"]).ok();
    fs::remove_dir_all(lost.backups()).unwrap();
    let new = lost;
    new.set_env_text(&env);
    let folder = elsewhere.display().to_string();
    let remote = format!("s3://shop/nightly/{}", new.name);
    for place in [vec![&*folder], vec![&*remote, "--identity", &identity]] {
        new.xtask(&["down", "--volumes", "--yes"]).ok();
        new.up().ok();
        assert_eq!(new.sql(&format!("SELECT count(*) FROM {}", domain::TABLE)), "0");
        let restore = [&["restore", "latest", "--yes", "--from"], &place[..]].concat();
        store.xtask(&new, &restore).ok().says(&[&id, "1 keys"]);
        assert_eq!(new.sql(&format!("SELECT {} FROM {}", domain::TEXT, domain::TABLE)), "kept");
        let key = new.xtask(&["redis-cli", "--", "get", "test:key"]).ok();
        assert_eq!(key.stdout.trim(), "kept");
        assert_eq!(new.status()["ready"], true);
    }
    store.xtask(&new, &["restore", &id, "--from", &remote, "--yes"]).fails(1, &["--identity FILE"]);
    store.xtask(&new, &["backup", "list", "--remote"]).ok().says(&[&id]);
    let pull = ["backup", "pull", &id, "--identity", &identity, "--format", "json"];
    let pulled: Value = serde_json::from_str(&store.xtask(&new, &pull).ok().stdout).unwrap();
    assert_eq!(pulled["id"], *id);
    // The result of its drill came along.
    assert!(list(&new)[0]["verified_at"].is_string());
    the_timer(&new);
}

/// What the timer would run.
fn the_timer(stand: &Stand) {
    stand.xtask(&["backup", "--verify"]).ok();
    let none = ["--keep-daily", "0", "--keep-weekly", "0", "--keep-monthly", "0"];
    prune(stand, &[&["--keep-last", "1"], &none[..]].concat()).ok().says(&["deleted"]);
    assert_eq!(ids(stand).len(), 1);
    let schedule = stand.xtask(&["backup", "--schedule"]).ok();
    schedule.says(&["OnCalendar=", "backup --verify --prune --yes\n"]);
    let schedule = stand.xtask(&["backup", "--schedule", "cron", "--push"]).ok();
    schedule.says(&["backup --verify --push --prune --yes", "-backup.env"]);
}

fn prune(stand: &Stand, rule: &[&str]) -> Run {
    let dry: Vec<&str> = [&["backup", "prune", "--dry-run"], rule].concat();
    let before = ids(stand);
    stand.xtask(&dry).ok().says(&["would delete"]);
    assert_eq!(ids(stand), before);
    let asked: Vec<&str> = [&["backup", "prune"], rule].concat();
    stand.xtask(&asked).fails(1, &["--yes"]);
    assert_eq!(ids(stand), before);
    stand.xtask(&[&asked[..], &["--yes"]].concat())
}
