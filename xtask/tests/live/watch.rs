//! `watch`, as somebody at work has it: a terminal that stays open while files change.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::kills::Started;
use crate::stand::{Stand, Visitor, root, run};

/// A build of the backend on a busy machine, and then some.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running `watch` and the lines that it says.
struct Watch {
    child: Started,
    lines: Receiver<String>,
}

impl Watch {
    fn start(stand: &Stand) -> Watch {
        let mut command = stand.command(&["watch", "--yes"]);
        let mut child = Started::new(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let said = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Watch { child, lines }
    }

    /// Reads on until a line has these words.
    #[track_caller]
    fn expect(&self, words: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("`{words}` was not said, but:\n{}", seen.join("\n"));
    }
}

#[test]
fn watch_follows_a_change_survives_a_mistake_and_ends_with_the_stack_running() {
    let stand = Stand::new();
    let original = root().join("deploy/redis");
    let copy = stand.folder().join("watched.conf");
    std::fs::copy(original.join("redis.conf"), &copy).unwrap();
    stand.overlay(&format!(
        "x-restart-on-change: {{redis: [\"{}\"]}}\nservices: {{}}\n",
        copy.display()
    ));
    let mut watch = Watch::start(&stand);
    watch.expect("watching for changes");
    let before = (stand.started_at("redis"), stand.started_at("postgres"));

    std::fs::write(&copy, "# changed\n").unwrap();
    watch.expect("all is up");
    watch.expect("watching for changes");
    assert_ne!(stand.started_at("redis"), before.0);
    assert_eq!(stand.started_at("postgres"), before.1);

    // A mistake is told and waited over; the stack serves all the while.
    let good = stand.env_text();
    stand.set_env_text(&good.replace("HTTP_PORT=", "HTTP_PORT=none-"));
    watch.expect("HTTP_PORT");
    watch.expect("watching for changes");
    stand.set_env_text(&good);
    watch.expect("nothing to do");
    assert_eq!(Visitor::new(&stand).get("/api/session").0, 401);

    run(std::process::Command::new("kill").args(["-INT", &watch.child.id().to_string()])).ok();
    assert_eq!(watch.child.wait().unwrap().code(), Some(130));
    assert_eq!(stand.status()["ready"], true);
}
