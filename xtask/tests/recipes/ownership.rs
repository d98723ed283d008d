//! Whose a container, an environment file and a secret are.

use std::fs;

use crate::bench::{Bench, container, ok, said};

/// Compose makes the new container under a passing name before it stops the old one.
#[test]
fn what_an_interrupted_replacement_left_is_removed_and_never_taken_for_the_service() {
    let bench = Bench::with_a_container();
    let old = container("id-1", "trial-db-1", "").replace("hash-db", "hash-old");
    let new =
        container("id-2", "0123456789ab_trial-db-1", r#""com.docker.compose.replace":"id-1","#);
    bench.state("containers", &format!("[{new},{old}]"));
    let dry = ok(&bench.xtask(&["up", "--dry-run"]));
    assert!(
        dry.contains("remove    0123456789ab_trial-db-1 an interrupted command left it"),
        "{dry}"
    );
    assert!(dry.contains("recreate  db        its configuration changed"), "{dry}");
    assert!(!bench.calls().iter().any(|call| call.starts_with("rm ")));
    bench.xtask(&["up"]);
    let calls = bench.calls();
    let place = |start: &str| calls.iter().position(|call| call.contains(start));
    assert!(place("rm --force id-2") < place("up --no-start"), "{calls:?}");
    assert!(place("rm --force id-2").is_some() && place("id-1 ").is_none(), "{calls:?}");
}

/// Only root can give a file away, and only root is kept from a mistake by it: nobody else could write there.
#[test]
fn the_stack_of_another_user_is_left_alone() {
    let bench = Bench::with_a_container();
    ok(&bench.xtask(&["up"]));
    bench.calls();
    let folder = bench.path(".secrets/trial");
    if std::os::unix::fs::chown(&folder, Some(54_321), None).is_err() {
        return;
    }
    for verb in [&["up"][..], &["down"], &["backup", "prune"]] {
        let output = bench.xtask(verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        let text = said(&output);
        let words = [".secrets/trial belongs to #54321", "sudo -iu #54321", "chown -R"];
        assert!(words.iter().all(|word| text.contains(word)), "{verb:?}: {text}");
    }
    assert!(!bench.calls().iter().any(|call| call.contains(" up ") || call.contains(" down ")));
    // Who only looks may be anybody.
    ok(&bench.xtask(&["env", "check"]));
}

#[test]
fn the_stack_of_another_checkout_is_left_alone() {
    let bench = Bench::with_a_container();
    let other = tempfile::tempdir().unwrap();
    let label =
        format!(r#""com.docker.compose.project.working_dir":"{}","#, other.path().display());
    let containers = format!("[{}]", container("id-1", "trial-db-1", &label));
    bench.state("containers", &containers);
    // It was there, and was moved to here.
    ok(&bench.xtask(&["up"]));
    bench.calls();
    bench.state("containers", &containers);
    fs::write(other.path().join("compose.yaml"), "").unwrap();
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("the stack of another checkout"), "{text}");
    let calls = bench.calls();
    let is_look = |call: &&String| {
        ["ps ", "inspect ", "image inspect "].iter().any(|look| call.starts_with(look))
    };
    assert!(
        calls.iter().filter(|call| !call.contains("config")).all(|call| is_look(&call)),
        "{calls:?}"
    );
    // Its data least of all.
    for verb in [&["down", "--volumes", "--yes"][..], &["backup"]] {
        let output = bench.xtask(verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(said(&output).contains("the stack of another checkout"), "{}", said(&output));
    }
    assert!(!bench.calls().iter().any(|call| call.contains(" down ")));
}

#[test]
fn another_environment_file_is_another_stack() {
    let bench = Bench::new();
    let output = bench.xtask(&["--env-file", ".env.staging", "up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("`cargo xtask --env-file .env.staging env init` writes it"), "{text}");
    assert!(!bench.path(".env.staging").exists());
    ok(&bench.xtask(&["--env-file", ".env.staging", "env", "init"]));
    let text = fs::read_to_string(bench.path(".env.staging")).unwrap();
    assert!(text.contains("COMPOSE_PROJECT_NAME=trial-staging\n"), "{text}");
    assert!(!text.contains("PORT=1\n") && !text.contains("PORT=2\n"), "{text}");

    // Of production it shares neither the certificate nor the address that the world knows.
    let example = fs::read_to_string(bench.path(".env.example")).unwrap();
    let more =
        "\n# HTTP_ADDRESS=0.0.0.0\nHTTP_ADDRESS=127.0.0.1\n\nCERTS_DIR=./deploy/certs/live\n";
    fs::write(bench.path(".env.example"), example + more).unwrap();
    let values = |file: &str| {
        let init = ["--env-file", file, "--prod", "env", "init"];
        let said = ok(&bench.xtask(&init[usize::from(file == ".env.production") * 2..]));
        (fs::read_to_string(bench.path(file)).unwrap(), said)
    };
    let (text, said) = values(".env.stage");
    assert!(text.contains("\nHTTP_ADDRESS=127.0.0.1\n"), "{text}");
    assert!(text.contains("\nCERTS_DIR=./deploy/certs/trial-production-stage/live\n"), "{text}");
    assert!(said.contains("HTTP_ADDRESS, HTTP_PORT and HTTPS_PORT"), "{said}");
    let (text, said) = values(".env.production");
    assert!(text.contains("\nHTTP_ADDRESS=0.0.0.0\n"), "{text}");
    assert!(text.contains("\nCERTS_DIR=./deploy/certs/live\n"), "{text}");
    assert!(!said.contains("HTTP_ADDRESS"), "{said}");
}

/// The password of a provider of e-mail, say: no random value would do.
#[test]
fn a_secret_that_somebody_else_gives_is_asked_for_and_never_made_up() {
    let bench = Bench::new();
    let example = fs::read_to_string(bench.path(".env.example")).unwrap();
    let more = "\n# Secret from outside. The provider of e-mail gives it.\nSMTP_PASSWORD=\n";
    fs::write(bench.path(".env.example"), example + more).unwrap();
    let said = ok(&bench.xtask(&["env", "init"]));
    assert!(said.contains("fill in SMTP_PASSWORD in .env"), "{said}");
    let env = || fs::read_to_string(bench.path(".env")).unwrap();
    assert!(env().contains("SMTP_PASSWORD=\n"), "{}", env());
    let again = ok(&bench.xtask(&["env", "init"]));
    assert!(again.contains("fill in SMTP_PASSWORD in .env"), "{again}");
    let missing = "SMTP_PASSWORD is empty in .env: it comes from outside";
    for verb in [&["up"][..], &["env", "check"]] {
        let output = bench.xtask(verb);
        let text = crate::said(&output);
        assert!(!output.status.success() && text.contains(missing), "{verb:?}: {text}");
    }
    assert_eq!(bench.calls(), Vec::<String>::new(), "something was started all the same");

    // Short, a word, and with signs of a shell.
    let fill =
        |from: &str, to: &str| fs::write(bench.path(".env"), env().replace(from, to)).unwrap();
    fill("SMTP_PASSWORD=\n", "SMTP_PASSWORD='secret $1'\n");
    let mut told = ok(&bench.xtask(&["up", "--verbose"]));
    let file = bench.path(".secrets/trial/smtp_password");
    assert_eq!(fs::read_to_string(&file).unwrap(), "secret $1\n");
    let output = bench.xtask(&["env", "rotate", "SMTP_PASSWORD"]);
    assert_eq!(output.status.code(), Some(2));
    let rotate = crate::said(&output);
    assert!(rotate.contains("comes from outside") && rotate.contains("into .env"), "{rotate}");
    let names = crate::said(&bench.xtask(&["env", "rotate", "OTHER"]));
    assert!(names.contains("there are PG_PASSWORD\n"), "{names}");

    // Another one is in force alone, and a lost environment file gets it back.
    fill("secret $1", "its another\"");
    told += &ok(&bench.xtask(&["up", "--verbose"]));
    assert_eq!(fs::read_to_string(&file).unwrap(), "its another\"\n");
    fs::remove_file(bench.path(".env")).unwrap();
    told += &ok(&bench.xtask(&["env", "init"]));
    assert!(env().contains("SMTP_PASSWORD='its another\"'\n"), "{}", env());
    told += &bench.calls().concat();
    assert!(!told.contains("secret $1") && !told.contains("its another"), "{told}");
}

/// Data that was made with the old secrets is there all the same.
#[test]
fn an_environment_file_that_was_lost_gets_the_secrets_in_use() {
    let bench = Bench::new();
    let folder = bench.path(".secrets/trial");
    fs::create_dir_all(&folder).unwrap();
    let secret = "5".repeat(64);
    fs::write(folder.join("pg_password"), format!("{secret}\nthe one before\n")).unwrap();
    let said = ok(&bench.xtask(&["env", "init"]));
    assert!(said.contains("with the PG_PASSWORD of .secrets"), "{said}");
    assert!(!said.contains(&secret));
    let text = fs::read_to_string(bench.path(".env")).unwrap();
    assert!(text.contains(&format!("PG_PASSWORD={secret}\n")), "{text}");
}
