//! A backend of a test's own: the same binary on the stack's data services, with keys that the test
//! knows and a log that it can read.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::app::random_hex;
use crate::support::{database_config, redis_config, stack};

pub(crate) struct OwnBackend {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// What it was told to keep to itself.
    pub(crate) secrets: Vec<String>,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl OwnBackend {
    pub(crate) fn start(app_env: &str) -> Self {
        let (database, redis) = (database_config(), redis_config());
        let [session, csrf] = [random_hex(64), random_hex(64)];
        let password = database.password.current().expose().clone();
        let owner = stack("STACK_PG_OWNER_PASSWORD");
        let mut child = Command::new(env!("CARGO_BIN_EXE_backend"))
            .arg("serve")
            .env_clear()
            .envs([("APP_ENV", app_env), ("BIND", "127.0.0.1:0")])
            .envs([("PG_HOST", &database.host), ("PG_USER", &database.user)])
            .envs([("PG_PASSWORD", &password), ("PG_DBNAME", &database.dbname)])
            .envs([("SESSION_SECRET", &session), ("CSRF_SECRET_KEY", &csrf)])
            .env("PG_OWNER_PASSWORD", &owner)
            .env("PG_PORT", database.port.to_string())
            .env("REDIS_PASSWORD", redis.password.current().expose())
            .env("REDIS_HOST", &redis.host)
            .env("REDIS_PORT", redis.port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "listening" {
                    let _ = sender.send(line["address"].as_str().unwrap_or_default().to_owned());
                }
            }
        });
        let address = receiver.recv_timeout(Duration::from_secs(20));
        let address = address.unwrap_or_else(|_| panic!("{}", log.lock().unwrap()));
        let secrets =
            vec![session, csrf, password, owner, redis.password.current().expose().clone()];
        Self { child, address, secrets, log, reader: Some(reader) }
    }

    /// One request, byte for byte, and the whole answer.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A JSON request, with lines for the head.
    pub(crate) fn send(&self, method: &str, path: &str, head: &str, body: &str) -> String {
        self.ask(&format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{head}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Ends it as the engine would, and returns everything that it logged.
    pub(crate) fn stop(mut self) -> String {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert!(self.child.wait().unwrap().success(), "{}", self.log.lock().unwrap());
        self.reader.take().unwrap().join().unwrap();
        self.log.lock().unwrap().clone()
    }
}

impl Drop for OwnBackend {
    fn drop(&mut self) {
        // Gone already after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
