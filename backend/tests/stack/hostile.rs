//! What a stranger may try, one row each: it gets the right status, tells nothing and changes
//! nothing. The rows are in `hostile_rows.rs`; this is what sends and judges them.

use std::{
    io::{Read, Write},
    time::Duration,
};

use redis::Commands;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::{
    database::connect,
    hostile_rows::ROWS,
    support::{
        PASSWORD, Person, database_config, redis_connection, session_cookie, unique,
        while_redis_has_room,
    },
    wire,
};

/// A name, the request line, further lines of the head, the body, and the status.
///
/// Words in braces are replaced (see `World::fill`). `Host`, `Connection` and `Content-Length` are
/// added where the row has none.
pub(crate) type Row = (&'static str, &'static str, &'static str, &'static str, u16);

/// The victim, and what an attacker may have got hold of.
pub(crate) struct World {
    host: String,
    words: Vec<(&'static str, String)>,
    account: i64,
    mark: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut victim = Person::new();
        let old_cookie = session_cookie(&victim.enter("/api/accounts").expect(201));
        let old_token = victim.token.clone().unwrap();
        let answer = victim.enter("/api/session").expect(200);
        let cookie = session_cookie(&answer);
        let token = victim.token.clone().unwrap();
        let list = victim.get("/api/sessions").expect(200).json();
        let handle = list["sessions"][0]["handle"].as_str().unwrap().to_owned();
        let other = Person::signed_up();
        let last = if cookie.ends_with('0') { "1" } else { "0" };
        let tampered = format!("{}{last}", &cookie[..63]);
        let mark = unique("hostile").replace('_', "-");
        let host = wire::host();
        let words = vec![
            ("{IN}", format!("cookie: session={cookie}\nx-csrf-token: {token}")),
            ("{JSON}", "content-type: application/json".to_owned()),
            ("{HOST}", host.clone()),
            ("{SITE}", wire::site()),
            ("{COOKIE}", cookie),
            ("{TOKEN}", token),
            ("{OLD_COOKIE}", old_cookie),
            ("{OLD_TOKEN}", old_token),
            ("{OTHER_TOKEN}", other.token.unwrap()),
            ("{TAMPERED}", tampered),
            ("{HANDLE}", handle),
            ("{EMAIL}", victim.email),
            ("{PASSWORD}", PASSWORD.to_owned()),
            ("{MARK}", mark.clone()),
            ("{300}", "x".repeat(300)),
            ("{9K}", "x".repeat(9 * 1024)),
            ("{66K}", "x".repeat(66 * 1024)),
            ("{DEEP}", "[".repeat(20_000)),
            ("{CRLF}", "\r\n".to_owned()),
        ];
        let account = answer.json()["account"]["id"].as_i64().unwrap();
        Self { host, words, account, mark }
    }

    /// The request's bytes. `{FF}` is a byte that no UTF-8 has, `{NUL}` a zero.
    fn fill(&self, row: &Row) -> Vec<u8> {
        let (_, line, head, body, _) = *row;
        let replace = |text: &str| {
            self.words.iter().fold(text.to_owned(), |text, (word, with)| text.replace(word, with))
        };
        let bytes = |text: &str| -> Vec<u8> {
            let parts = text.split("{FF}").map(|part| part.replace("{NUL}", "\0").into_bytes());
            parts.collect::<Vec<_>>().join(&0xff_u8)
        };
        let body = bytes(&replace(body));
        let mut lines = vec![replace(line)];
        let head = replace(head);
        lines.extend(head.lines().filter(|line| *line != "-host").map(str::to_owned));
        let has = |name: &str| head.lines().any(|line| line.to_lowercase().starts_with(name));
        if !has("host:") && !has("-host") {
            lines.push(format!("host: {}", self.host));
        }
        if !has("connection:") {
            lines.push("connection: close".to_owned());
        }
        if !has("content-length:") && !has("transfer-encoding:") && !body.is_empty() {
            lines.push(format!("content-length: {}", body.len()));
        }
        let mut request = bytes(&(lines.join("\r\n") + "\r\n\r\n"));
        request.extend(body);
        request
    }

    /// Everything of the victim that a request could change, and what rows would leave behind.
    async fn state(&self) -> String {
        let mut database = connect(&database_config()).await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.columns
             WHERE column_name = 'account_id' AND table_schema = 'public' ORDER BY 1",
        )
        .fetch_all(&mut database)
        .await
        .unwrap();
        let mut queries = vec![
            format!("SELECT a::text FROM accounts a WHERE id = {}", self.account),
            format!("SELECT a::text FROM accounts a WHERE email LIKE '%{}%'", self.mark),
        ];
        queries.extend(tables.iter().map(|table| {
            format!("SELECT t::text FROM {table} t WHERE account_id = {} ORDER BY 1", self.account)
        }));
        let mut state = Vec::new();
        for query in queries {
            let rows: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut database).await.unwrap();
            state.push(rows.join("\n"));
        }
        let mut redis = redis_connection();
        let list = format!("sessions-of:{}", self.account);
        for hash in redis.zrange::<_, Vec<String>>(list, 0, -1).unwrap() {
            let record: Option<String> = redis.get(format!("session:{hash}")).unwrap();
            state.push(format!("{hash} {record:?}"));
        }
        state.join("\n")
    }

    /// Sends a row and returns the answer, complete or not.
    pub(crate) fn send(&self, row: &Row) -> String {
        let _room = while_redis_has_room();
        let mut stream = wire::connect(Duration::from_secs(15));
        // nginx answers some before it has read all, and closes: what it said is what counts.
        let _ = stream.write_all(&self.fill(row));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What is wrong with how a row was answered.
    fn judge(&self, row: &Row, answer: &str) -> Option<String> {
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let start: String = answer.chars().take(400).collect();
        if status != row.4 {
            return Some(format!("{}: {status} instead of {}: {start}", row.0, row.4));
        }
        let lower = answer.to_lowercase();
        for never in
            ["set-cookie: session=0", "access-control-allow", "sqlstate", "panick", "root:x:"]
        {
            if lower.contains(never) {
                return Some(format!("{}: `{never}` is in the answer: {start}", row.0));
            }
        }
        let injected = lower.contains("\nx-injected:") || lower.contains("set-cookie: injected");
        injected.then(|| format!("{}: a header was injected: {start}", row.0))
    }

    /// Sends every row and reports all that went wrong at once.
    pub(crate) async fn try_all(&self, rows: &[Row]) {
        let before = self.state().await;
        assert!(before.contains("session") || before.contains("account_id"), "{before}");
        let mut wrong = Vec::new();
        for row in rows {
            let answer = self.send(row);
            wrong.extend(self.judge(row, &answer));
            if self.state().await != before {
                panic!("{} changed something.\n{before}\n{}", row.0, self.state().await);
            }
        }
        assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_gets_its_status_and_changes_nothing() {
    let mut names: Vec<_> = ROWS.iter().map(|row| row.0).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len(), "two rows have one name");
    assert!(ROWS.len() >= 60, "{} rows", ROWS.len());
    tokio::task::spawn_blocking(World::new).await.unwrap().try_all(ROWS).await;
}

/// nginx gives a client that sends drop by drop ten seconds, and the backend never hears of it.
#[test]
fn a_body_that_never_comes_is_given_up() {
    let host = wire::host();
    let mut stream = wire::connect(Duration::from_secs(20));
    let body = json!({ "email": "a@b.example", "password": "x" }).to_string();
    let head = format!(
        "POST /api/session HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{}",
        body.len(),
        &body[..5]
    );
    stream.write_all(head.as_bytes()).unwrap();
    let start = std::time::Instant::now();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let waited = start.elapsed().as_secs();
    assert!((8..=15).contains(&waited), "it was given up after {waited} s");
}
