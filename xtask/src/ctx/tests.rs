//! The gate against real small programs: failures, time-outs, interruptions, dry runs.

use super::*;
use crate::ui::Volume;

/// A gate for tests: quiet, and without handlers for signals.
pub(crate) fn ctx(options: Options) -> Ctx {
    Ctx { options, ..ctx_in(&std::env::temp_dir()) }
}

/// The same for a project in another folder.
pub(crate) fn ctx_in(root: &Path) -> Ctx {
    Ctx {
        root: root.to_owned(),
        program: PathBuf::new(),
        options: Options::default(),
        interrupted: Arc::new(AtomicBool::new(false)),
        terminated: Arc::new(AtomicBool::new(false)),
        ui: Ui::new(Volume::Quiet),
    }
}

fn sh(script: &str) -> Invocation {
    Invocation::new("sh").args(["-c", script])
}

pub(crate) fn message(result: Result<impl Sized>) -> String {
    format!("{:#}", result.err().expect("it fails"))
}

/// The process is gone, or a zombie that waits for its new parent; the kernel may take a moment.
pub(crate) fn expect_ended(pid: &str) {
    let limit = Duration::from_secs(10);
    let ended = ctx(Options::default()).wait_until("its end", limit, TICK, || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        ensure!(state.as_ref().map_or(true, |stat| stat.contains(") Z ")), "{state:?}");
        Ok(())
    });
    ended.unwrap();
}

#[test]
fn a_failure_has_the_command_the_exit_code_and_what_was_said() {
    let said = message(ctx(Options::default()).read(sh("echo fine; echo 'no room' >&2; exit 3")));
    assert_eq!(
        said,
        "`sh -c \"echo fine; echo 'no room' >&2; exit 3\"` failed (exit code 3):\n  no room"
    );
    let said = message(ctx(Options::default()).run(sh("kill -9 $$")));
    assert!(said.contains("killed by signal 9") && said.contains("it printed nothing"), "{said}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let said = message(ctx(Options::default()).read(Invocation::new("no-such-program")));
    assert!(said.starts_with("start `no-such-program`: "), "{said}");
}

#[test]
fn a_command_that_hangs_is_ended_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    // The grandchild would outlive a signal to the child alone, and hold its output open.
    let script = format!("sleep 600 & echo $! >{}; wait", pid_file.display());
    let hang = sh(&script).limit(Duration::from_millis(300));
    let said = message(ctx(Options::default()).read(hang));
    assert!(said.contains("did not end within 0.30 s and was stopped"), "{said}");
    expect_ended(&std::fs::read_to_string(pid_file).unwrap());
}

#[test]
fn silence_at_the_start_is_told_from_slow_work() {
    let silent = sh("sleep 600").first_line(Duration::from_millis(200));
    let said = message(ctx(Options::default()).stream(&silent, |_| ()));
    assert!(said.contains("said nothing for 0.20 s"), "{said}");
    let slow = sh("echo begun; sleep 0.5; echo done").first_line(Duration::from_millis(400));
    let mut lines = Vec::new();
    ctx(Options::default()).stream(&slow, |line| lines.push(line)).unwrap();
    assert_eq!(lines, ["begun", "done"]);
}

#[test]
fn both_streams_arrive_line_by_line_and_the_last_without_an_end() {
    let mut lines = Vec::new();
    let script = sh("echo one; echo two >&2; printf three; exit 4");
    let status = ctx(Options::default()).stream(&script, |line| lines.push(line)).unwrap();
    assert_eq!((status.code(), lines), (Some(4), ["one", "two", "three"].map(String::from).into()));
}

#[test]
fn a_dry_run_looks_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made");
    let dry = ctx(Options { dry_run: true, ..Options::default() });
    let touch = Invocation::new("touch").arg(&path);
    dry.run(touch.clone()).unwrap();
    dry.run_loud(touch.clone()).unwrap();
    dry.hand_over(touch).unwrap();
    assert!(!path.exists());
    assert_eq!(dry.read(sh("echo seen")).unwrap(), "seen\n");
}

#[test]
fn what_is_echoed_can_be_pasted_and_has_no_secret() {
    let command =
        Invocation::new("docker").args(["exec", "a b", "it's", "$HOME"]).env("PASSWORD", "hidden");
    assert_eq!(command.to_string(), "docker exec 'a b' \"it's\" '$HOME'");
}

#[test]
fn standard_input_is_given_and_otherwise_empty() {
    let ctx = ctx(Options::default());
    assert_eq!(ctx.read(Invocation::new("cat").stdin("given")).unwrap(), "given");
    assert_eq!(ctx.read(Invocation::new("cat")).unwrap(), "");
}

#[test]
fn a_wait_that_runs_out_tells_the_last_reason() {
    let mut asked = 0;
    let (limit, pause) = (Duration::from_millis(60), Duration::from_millis(5));
    let result = ctx(Options::default()).wait_until("the answer", limit, pause, || {
        asked += 1;
        bail!("no answer yet ({asked})") as Result<()>
    });
    let said = message(result);
    assert!(said.starts_with("waited 0.06 s for the answer: no answer yet ("), "{said}");
}

#[test]
fn after_an_interruption_nothing_is_started_but_by_a_shielded_gate() {
    let ctx = ctx(Options::default());
    ctx.interrupted.store(true, Ordering::Relaxed);
    assert!(ctx.read(sh("true")).is_err_and(|error| error.is::<Interrupted>()));
    assert!(ctx.shielded().read(sh("true")).is_ok());
}

/// Sets a flag while something runs.
fn raise_soon(flag: &Arc<AtomicBool>) {
    let flag = flag.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        flag.store(true, Ordering::Relaxed);
    });
}

/// Says a word again and again without a pause in which anything else could be noticed.
fn talkative() -> Invocation {
    sh("while :; do echo word; done")
}

#[test]
fn a_running_command_ends_at_an_interruption() {
    for command in [sh("sleep 600"), talkative()] {
        let ctx = ctx(Options::default());
        raise_soon(&ctx.interrupted);
        let error = ctx.run_loud(command).expect_err("it is interrupted");
        assert!(error.is::<Interrupted>(), "{error:#}");
    }
    let ctx = ctx(Options::default());
    raise_soon(&ctx.interrupted);
    let error = ctx.run(sh("sleep 600")).expect_err("it is interrupted");
    assert!(error.is::<Interrupted>(), "{error:#}");
}

#[test]
fn a_command_that_talks_without_end_or_closes_its_streams_has_a_deadline_too() {
    for command in [talkative(), sh("exec >/dev/null 2>&1; sleep 600")] {
        let said = message(
            ctx(Options::default()).stream(&command.limit(Duration::from_millis(300)), |_| ()),
        );
        assert!(said.contains("did not end within 0.30 s and was stopped"), "{said}");
    }
}

#[test]
fn a_program_with_the_terminal_ends_with_us_and_at_a_deadline_that_is_set() {
    let gate = ctx(Options::default());
    // Ctrl-C is the program's own affair.
    raise_soon(&gate.interrupted);
    assert!(gate.hand_over(sh("sleep 0.3")).unwrap().success());
    assert!(gate.check_interrupted().is_ok());
    raise_soon(&gate.terminated);
    let error = gate.hand_over(Invocation::new("sleep").arg("600")).expect_err("it is ended");
    assert!(error.is::<Interrupted>(), "{error:#}");
    let slow = Invocation::new("sleep").arg("600").limit(Duration::from_millis(100));
    let said = message(ctx(Options::default()).hand_over(slow));
    assert!(said.contains("did not end within 0.10 s"), "{said}");
}

#[test]
fn where_nothing_is_shown_the_error_has_what_was_said() {
    let said = message(ctx(Options::default()).run_loud(sh("echo the cause; exit 1")));
    assert!(said.ends_with("failed (exit code 1):\n  the cause"), "{said}");
}

/// Far beyond what any of these programs needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn read_all(pipe: &mut Pipe, patience: Duration) -> Result<String> {
    let mut text = String::new();
    pipe.output(patience)?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_command_that_fails_after_its_last_byte_fails_the_pipe() {
    let mut pipe =
        ctx(Options::default()).pipe(sh("echo all of it; echo cut >&2; exit 3")).unwrap();
    assert_eq!(read_all(&mut pipe, PATIENCE).unwrap(), "all of it\n");
    let said = message(pipe.finish());
    assert!(said.contains("failed (exit code 3):\n  cut"), "{said}");
}

#[test]
fn a_broken_pipe_is_explained_by_the_end_of_the_command_behind_it() {
    let mut pipe = ctx(Options::default()).pipe(sh("echo 'no such role' >&2; exit 1")).unwrap();
    let mut input = pipe.input().unwrap();
    let ours = loop {
        // The command may take a moment to end; until then the pipe takes what it can hold.
        if let Err(error) = input.write_all(&[0; 4096]) {
            break error;
        }
    };
    drop(input);
    let said = format!("{:#}", pipe.explain(ours.into()));
    assert!(said.contains("no such role"), "{said}");
}

#[test]
fn a_pipe_that_goes_silent_or_on_for_ever_has_a_deadline() {
    let mut pipe = ctx(Options::default()).pipe(sh("echo begun; exec sleep 600")).unwrap();
    let said = message(read_all(&mut pipe, Duration::from_millis(200)));
    assert!(said.contains("nothing came for"), "{said}");
    drop(pipe);

    let endless = sh("exec sleep 600").limit(Duration::from_millis(200));
    let said = message(ctx(Options::default()).pipe(endless).unwrap().finish());
    assert!(said.contains("did not end within 0.20 s"), "{said}");
}

#[test]
fn a_pipe_ends_at_an_interruption_and_when_it_is_dropped() {
    let gate = ctx(Options::default());
    let pipe = gate.pipe(sh("exec sleep 600")).unwrap();
    raise_soon(&gate.interrupted);
    assert!(pipe.finish().unwrap_err().is::<Interrupted>());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ >{}; echo begun; exec sleep 600", file.display());
    let mut pipe = ctx(Options::default()).pipe(sh(&script)).unwrap();
    let mut word = [0; 5];
    pipe.output(PATIENCE).unwrap().read_exact(&mut word).unwrap();
    drop(pipe);
    let pid = std::fs::read_to_string(file).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it was ended and reaped");
}

#[test]
fn a_conversation_gives_an_answer_to_each_request_and_tells_how_it_ended() {
    let gate = ctx(Options::default());
    let echo = sh("while read -r line; do echo \"you said $line\"; done");
    let mut talk = Talk::start(&gate, echo, PATIENCE).unwrap();
    assert_eq!(talk.ask("one").unwrap(), "you said one");
    assert_eq!(talk.ask("two").unwrap(), "you said two");
    talk.finish().unwrap();

    let rude = sh("read -r line; echo 'syntax error' >&2; exit 3");
    let mut talk = Talk::start(&gate, rude, PATIENCE).unwrap();
    let ours = talk.ask("select").unwrap_err();
    let said = format!("{:#}", talk.explain(ours));
    assert!(said.contains("syntax error") && said.contains("exit code 3"), "{said}");
}
