//! Production as a browser meets it: HTTPS with HTTP/2, cookies that no plain page gets, and a
//! certificate that is renewed under people's hands.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::domain;
use crate::kills::Started;
use crate::stand::{Run, Stand, root, run};

/// A browser that speaks HTTPS: curl, since it speaks HTTP/2, judges certificates and keeps cookies by
/// their rules.
pub(crate) struct Browser {
    pub(crate) site: String,
    certificate: PathBuf,
    jar: PathBuf,
    token: String,
}

/// Head and body of what came back.
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn of(run: Run) -> Answer {
        let text = run.ok().stdout;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    #[track_caller]
    fn expect(self, first: &str) -> Answer {
        assert!(self.head.starts_with(first), "{}\n{}", self.head, self.body);
        self
    }

    /// The value of a header, in whatever case it is written.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }
}

/// "Error in the HTTP2 framing layer", of curl's exit codes.
const CURLE_HTTP2: i32 = 16;

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]);
    curl
}

impl Browser {
    pub(crate) fn new(stand: &Stand) -> Browser {
        Browser {
            site: format!("https://{}:{}", stand.get("HTTP_ADDRESS"), stand.get("HTTPS_PORT")),
            certificate: Path::new(&stand.get("CERTS_DIR")).join("fullchain.pem"),
            jar: stand.folder().join("cookies"),
            token: String::new(),
        }
    }

    fn call(&self, words: &[&str], path: &str) -> Answer {
        let mut curl = curl();
        curl.args(["--include", "--http2", "--cacert"]).arg(&self.certificate);
        curl.arg("--cookie").arg(&self.jar).arg("--cookie-jar").arg(&self.jar);
        curl.args(words).arg(format!("{}{path}", self.site));
        Answer::of(run(&mut curl))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call(&[], path)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Answer {
        let token = format!("X-CSRF-Token: {}", self.token);
        let (body, json) = (body.to_string(), "Content-Type: application/json");
        let answer = self.call(&["--header", json, "--header", &token, "--data", &body], path);
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if let Some(token) = said["csrf_token"].as_str() {
            token.clone_into(&mut self.token);
        }
        answer
    }
}

/// What a person does on the first day, on the values that production really has.
pub(crate) fn serves_people(stand: &Stand) -> Browser {
    assert_eq!(stand.get("APP_ENV"), "production");
    let mut browser = Browser::new(stand);
    let page = browser.get("/").expect("HTTP/2 200");
    assert!(page.header("strict-transport-security").contains("max-age="), "{}", page.head);

    let person = json!({"email": "first@example.com", "password": "a long enough password"});
    for path in ["/api/accounts", "/api/session"] {
        let entered = browser.post(path, &person).expect("HTTP/2 20");
        let cookie = entered.header("set-cookie").to_owned();
        let (value, attributes) = cookie.split_once("; ").expect("a cookie with attributes");
        assert!(value.starts_with("__Host-session="), "{cookie}");
        for attribute in ["Secure", "HttpOnly", "Path=/", "SameSite="] {
            assert!(attributes.contains(attribute), "{attribute} is not in {cookie}");
        }
        assert!(!attributes.contains("Domain"), "{cookie}");
        assert!(entered.header("strict-transport-security").contains("max-age="));
    }
    browser.post(domain::PATH, &domain::body("over HTTPS")).expect("HTTP/2 201");
    assert!(browser.get(domain::PATH).expect("HTTP/2 200").body.contains("over HTTPS"));
    browser
}

/// Port 80 sends everybody to where HTTPS is, and takes nothing itself.
pub(crate) fn port_80_leads_to_https(stand: &Stand, browser: &Browser) {
    let plain = format!("http://{}:{}", stand.get("HTTP_ADDRESS"), stand.get("HTTP_PORT"));
    let mut asked = curl();
    asked.args(["--include", "--data", "text=x"]).arg(format!("{plain}/api/session?a=b"));
    let answer = Answer::of(run(&mut asked)).expect("HTTP/1.1 308");
    assert_eq!(answer.header("location"), format!("{}/api/session?a=b", browser.site));
    assert_eq!(answer.header("set-cookie"), "");
    // And the way leads there.
    let mut followed = curl();
    followed.args(["--location", "--cacert"]).arg(&browser.certificate).arg(&plain);
    assert!(run(&mut followed).ok().stdout.contains("<title>"));
}

/// The certificate is replaced and nginx reloaded while requests come in on connections old and new:
/// none fails, one that is half sent ends well, and the new certificate is shown.
pub(crate) fn a_certificate_is_renewed_unnoticed(stand: &Stand, browser: &Browser) {
    let [old, both] = ["old.pem", "both.pem"].map(|name| stand.folder().join(name));
    fs::copy(&browser.certificate, &old).unwrap();
    let (before, next) = (fs::read_to_string(&old).unwrap(), stand.folder().join("next"));
    // Made aside, so that the visitors can know both before nginx shows the second.
    let env = stand.env_text();
    stand.set("CERTS_DIR", &next.display().to_string());
    stand.xtask(&["cert", "self-signed"]).ok();
    stand.set_env_text(&env);
    let [chain, key] = ["fullchain.pem", "privkey.pem"].map(|name| next.join(name));
    let after = fs::read_to_string(&chain).unwrap();
    fs::write(&both, before + &after).unwrap();

    let [chain, key] = [chain, key].map(|path| path.display().to_string());
    let (end, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let visit = |pages: &str| {
        let mut failures = Vec::new();
        while !end.load(Ordering::Relaxed) {
            let mut once = curl();
            once.args(["--fail", "--output", "/dev/null", "--cacert"]).arg(&both);
            once.arg(format!("{}/about{pages}", browser.site));
            let mut visit = run(&mut once);
            // A worker that ends says goodbye (GOAWAY) on its connections. A browser opens another for what
            // it did not yet send; this curl gives up there, with this code and no other (its issue 4267).
            if visit.code == Some(CURLE_HTTP2) {
                visit = run(&mut once);
            }
            count.fetch_add(1, Ordering::Relaxed);
            failures.extend((visit.code != Some(0)).then_some(visit.text));
        }
        failures
    };
    let more = |rounds: u32| {
        let (goal, start) = (count.load(Ordering::Relaxed) + rounds, Instant::now());
        while count.load(Ordering::Relaxed) < goal && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(10));
        }
    };
    let failures = thread::scope(|scope| {
        // Many requests on one connection, and a connection for each.
        let visitors = ["?[1-200]", ""].map(|pages| scope.spawn(move || visit(pages)));
        more(5);
        // Open for no longer than it has to be: nginx waits ten seconds for a head.
        let half = HalfSent::new(browser);
        let installed = stand.xtask(&["cert", "install", &chain, &key]);
        let answer = half.finish();
        more(5);
        end.store(true, Ordering::Relaxed);
        installed.ok().says(&["nginx shows the new certificate"]);
        assert_eq!(answer, "HTTP/1.1 200 OK\r\n");
        visitors.map(|visitor| visitor.join().unwrap()).concat()
    });
    assert!(failures.is_empty(), "{failures:#?}");
    browser.get("/about").expect("HTTP/2 200");
    let mut outdated = curl();
    outdated.arg("--cacert").arg(&old).arg(&browser.site);
    assert_eq!(run(&mut outdated).code, Some(60), "it still shows the old certificate");
    stand.up().ok().says(&["nothing to do"]);
    the_timer_of_an_acme_client_renews_it(stand, browser, &old, [&chain, &key]);
}

/// Once more, as root and on a host without Rust.
fn the_timer_of_an_acme_client_renews_it(
    stand: &Stand,
    browser: &Browser,
    old: &Path,
    [chain, key]: [&str; 2],
) {
    let script = root().join("scripts/deploy/renew-certificate.sh");
    let pair = stand.folder().join("lineage");
    let renew = || {
        let (pair, script) = (pair.display(), script.display());
        stand.as_root(&format!("RENEWED_LINEAGE={pair} {script} {}", stand.name))
    };
    fs::create_dir(&pair).unwrap();
    fs::copy(old, pair.join("fullchain.pem")).unwrap();
    let folder = stand.get("CERTS_DIR");
    let owner_and_mode = |file: &str| {
        let path = format!("{folder}/{file}");
        run(Command::new("stat").args(["-c", "%u:%g %a", &path])).ok().stdout
    };
    let as_installed = ["privkey.pem", "fullchain.pem"].map(owner_and_mode);
    renew().fails(2, &["privkey.pem cannot be read"]);
    fs::copy(key, pair.join("privkey.pem")).unwrap();
    renew().fails(1, &["nginx refuses"]);
    browser.get("/about").expect("HTTP/2 200");
    fs::copy(chain, pair.join("fullchain.pem")).unwrap();
    renew().ok();
    browser.get("/about").expect("HTTP/2 200");
    // Whoever could read the pair before can read it now, and nobody else.
    assert_eq!(["privkey.pem", "fullchain.pem"].map(owner_and_mode), as_installed);
    stand.xtask(&["cert", "check"]).ok();
    stand.up().ok().says(&["nothing to do"]);

    // By lego, of either version; where the folder above lets everybody pass, the key is nginx' alone.
    let above = Path::new(&folder).parent().unwrap().display().to_string();
    run(Command::new("chmod").args(["755", &above])).ok();
    let is_open = Path::new(&folder)
        .ancestors()
        .all(|folder| fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 1 == 1));
    let lego = |prefix: &str| {
        let pair = pair.display();
        let names = format!(
            "{prefix}_CERT_PATH={pair}/fullchain.pem {prefix}_CERT_KEY_PATH={pair}/privkey.pem"
        );
        stand.as_root(&format!("{names} {} {}", script.display(), stand.name))
    };
    lego("LEGO").ok().says(&["shows the certificate in"]);
    if is_open {
        assert_eq!(owner_and_mode("privkey.pem"), "101:101 400\n");
    }
    run(Command::new("chmod").args(["700", &above])).ok();
    lego("LEGO_HOOK").ok();
    assert_eq!(["privkey.pem", "fullchain.pem"].map(owner_and_mode), as_installed);
    stand
        .as_root(&format!("{} {}", script.display(), stand.name))
        .fails(2, &["RENEWED_LINEAGE", "LEGO_"]);
}

/// A request whose end is still to come, on a connection that is open.
struct HalfSent {
    client: Started,
    /// Open for as long as the client may say something there.
    _said: BufReader<ChildStderr>,
}

impl HalfSent {
    fn new(browser: &Browser) -> HalfSent {
        let place = browser.site.trim_start_matches("https://");
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-connect", place]).stderr(Stdio::piped());
        let mut client = Started::new(client.stdin(Stdio::piped()).stdout(Stdio::piped()));
        // It says what it thinks of the certificate once it has seen it, so a worker has taken the connection.
        let mut said = BufReader::new(client.stderr.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        let start = format!("GET /about HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n");
        client.stdin.as_mut().unwrap().write_all(start.as_bytes()).unwrap();
        HalfSent { client, _said: said }
    }

    /// Sends the rest, and says how the answer begins.
    fn finish(mut self) -> String {
        // A connection that is gone is told by the answer that does not come.
        let _ = self.client.stdin.as_mut().unwrap().write_all(b"\r\n");
        let mut first = String::new();
        BufReader::new(self.client.stdout.take().unwrap()).read_line(&mut first).unwrap();
        first
    }
}

/// openssl, quietly, on files of the folder of the certificates.
fn openssl(folder: &Path, words: &str) {
    run(Command::new("openssl").args(words.split(' ')).current_dir(folder)).ok();
}

#[test]
fn production_does_not_start_with_a_certificate_that_nginx_could_not_use() {
    let stand = Stand::production();
    let folder = PathBuf::from(stand.get("CERTS_DIR"));
    let [chain, key] = ["fullchain.pem", "privkey.pem"].map(|name| folder.join(name));
    let good = [&chain, &key].map(|path| fs::read(path).unwrap());
    let new_key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out";
    let forbid = |path: &Path, mode: &str| {
        run(Command::new("chmod").arg(mode).arg(path)).ok();
    };
    // What is wrong, how it comes about, which file is named, and what is said beside.
    type Wrong<'a> = (&'a Path, &'a dyn Fn(), &'a str);
    let wrongs: [Wrong; 10] = [
        (&chain, &|| fs::remove_file(&chain).unwrap(), "cert self-signed"),
        (&key, &|| fs::remove_file(&key).unwrap(), "cert install CHAIN KEY"),
        (&chain, &|| fs::write(&chain, "").unwrap(), "holds no certificate in PEM form"),
        (&chain, &|| fs::write(&chain, "-----BEGIN CERTIFICATE-----\nx\n").unwrap(), "read "),
        (&key, &|| fs::write(&key, "no key").unwrap(), "must be in PEM form"),
        (
            &key,
            &|| openssl(&folder, &format!("{new_key} privkey.pem -aes-128-cbc -pass pass:longer")),
            "without a passphrase",
        ),
        (&key, &|| openssl(&folder, &format!("{new_key} privkey.pem")), "is not the key of"),
        (&key, &|| forbid(&key, "600"), "runs as user 101 and cannot read"),
        (&chain, &|| forbid(&chain, "600"), "runs as user 101 and cannot read"),
        (&folder, &|| forbid(&folder, "700"), "runs as user 101 and cannot read"),
    ];
    for (named, spoil, reason) in wrongs {
        spoil();
        let shown = named.strip_prefix(crate::stand::root()).unwrap().display().to_string();
        stand.up().fails(1, &[&shown, reason]);
        stand.xtask(&["cert", "check"]).fails(1, &[&shown, reason]);
        assert_eq!(stand.container_ids(), [""; 0], "something was started all the same");
        forbid(&folder, "755");
        for (path, bytes) in [&chain, &key].into_iter().zip(&good) {
            fs::write(path, bytes).unwrap();
            forbid(path, "644");
        }
        stand.xtask(&["cert", "check"]).ok();
    }
}

/// Another certificate for the key in this folder, for so many days.
fn issue(folder: &Path, days: &str) {
    openssl(folder, "req -new -key privkey.pem -subj /CN=localhost -out request");
    let signed = format!("x509 -req -in request -signkey privkey.pem -days {days}");
    openssl(folder, &format!("{signed} -out fullchain.pem"));
}

#[test]
fn an_expired_certificate_is_no_dead_end() {
    let stand = Stand::production();
    let folder = PathBuf::from(stand.get("CERTS_DIR"));
    // Only its time is wrong: browsers refuse it, and whoever renews it over HTTP needs nginx for that.
    issue(&folder, "-1");
    stand.xtask(&["cert", "check"]).fails(1, &["expired at", "docs/tls.md"]);
    stand.up().ok().says(&["BROWSERS REFUSE THIS SITE", "expired at", "all is up"]);
    stand.up().ok().says(&["BROWSERS REFUSE THIS SITE", "nothing to do"]);
    stand.xtask(&["deploy"]).ok().says(&["BROWSERS REFUSE THIS SITE", "nothing to deploy"]);
    fs::create_dir_all(folder.join("webroot/.well-known/acme-challenge")).unwrap();
    fs::write(folder.join("webroot/.well-known/acme-challenge/token"), "proof").unwrap();
    let proof = format!(
        "http://{}:{}/.well-known/acme-challenge/token",
        stand.get("HTTP_ADDRESS"),
        stand.get("HTTP_PORT")
    );
    assert_eq!(run(curl().arg(&proof)).ok().stdout, "proof");
    issue(&folder, "9");
    let up = stand.up().ok().says(&["nginx shows the new certificate"]);
    assert!(!up.text.contains("REFUSE"), "{}", up.text);
}

#[test]
fn a_key_that_only_nginx_can_read_is_told_as_that() {
    let stand = Stand::production();
    stand.up().ok();
    let key = PathBuf::from(stand.get("CERTS_DIR")).join("privkey.pem");
    // nginx' user alone can read the key. That is said, and what is said to do about it helps.
    let (owner, key) = (run(Command::new("id").arg("-u")).ok().stdout, key.display().to_string());
    stand.as_root(&format!("chown 101 {key} && chmod 400 {key}")).ok();
    let mut check = stand.command(&["cert", "check"]);
    if owner.trim() == "0" {
        // As somebody to whom rights apply.
        let mut limited = Command::new("setpriv");
        limited.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
        limited.arg(check.get_program()).args(check.get_args());
        check = limited;
    }
    let shown = Path::new(&key).strip_prefix(root()).unwrap().display().to_string();
    let help = format!("sudo chown \"$(id -u)\" {shown} && chmod 644 {shown}");
    let said = run(&mut check).fails(1, &["belongs to user 101", &help]);
    assert!(!said.text.contains("passphrase"), "{}", said.text);
    stand.as_root(&format!("chown {} {key} && chmod 644 {key}", owner.trim())).ok();
    run(&mut check).ok();
}
