//! The connection to PostgreSQL breaks at `COMMIT`: what the client is told is what happened.

use serde_json::json;

use crate::{
    app::App,
    database::{connect, execute},
    relay::{Break, Relay},
    support::{PASSWORD, database_config},
};

const NEW_PASSWORD: &str = "another horse battery";

async fn app_behind() -> (App, Relay) {
    let database = database_config();
    let relay = Relay::to(database.host, database.port).await;
    let app = App::with(|config, _| config.database = relay.instead_of(&config.database));
    (app, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_whose_commit_got_no_answer_is_found_to_be_done() {
    let (app, relay) = app_behind().await;
    let mut person = app.person();
    relay.break_at_commit(Break::After);
    person.enter("/api/accounts").expect(201);
    assert_eq!(person.get("/api/session").expect(200).json()["account"]["email"], person.email);
    app.signed_in(&person.email);
}

/// Who looks at once does not see yet what is being committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_under_way_is_waited_for() {
    const SLOW: &str = "
        CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER linger AFTER INSERT OR UPDATE ON accounts
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger();";
    let (app, relay) = app_behind().await;
    execute(&mut connect(&app.database.owner).await, SLOW).await;
    let mut person = app.person();
    relay.break_at_commit(Break::During);
    person.enter("/api/accounts").expect(201);
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD }).to_string();
    relay.break_at_commit(Break::During);
    person.call("PUT", "/api/account/password", &[], change.into_bytes()).expect(200);
    person.get("/api/session").expect(200);
    let credentials = json!({ "email": person.email, "password": NEW_PASSWORD });
    app.person().post("/api/session", &credentials).expect(200);
}

/// Nobody tells a client that the other host is gone: without a deadline of its own the request would wait
/// until it is cut off, and say that nothing was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nothing_is_heard_is_found_out() {
    let (app, relay) = app_behind().await;
    let mut person = app.person();
    relay.break_at_commit(Break::Silent);
    person.enter("/api/accounts").expect(201);
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD }).to_string();
    relay.break_at_commit(Break::Silent);
    person.call("PUT", "/api/account/password", &[], change.into_bytes()).expect(200);
    person.get("/api/session").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_whose_commit_was_lost_can_be_repeated() {
    let (app, relay) = app_behind().await;
    let mut person = app.person();
    relay.break_at_commit(Break::Before);
    person.enter("/api/accounts").problem(503);
    person.enter("/api/accounts").expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_change_whose_commit_got_no_answer_is_found_to_be_done() {
    let (app, relay) = app_behind().await;
    let person = app.signed_up();
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD }).to_string();
    relay.break_at_commit(Break::After);
    person.call("PUT", "/api/account/password", &[], change.into_bytes()).expect(200);
    person.get("/api/session").expect(200);
    let credentials = json!({ "email": person.email, "password": NEW_PASSWORD });
    app.person().post("/api/session", &credentials).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_change_whose_commit_was_lost_changed_nothing() {
    let (app, relay) = app_behind().await;
    let person = app.signed_up();
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD }).to_string();
    relay.break_at_commit(Break::Before);
    person.call("PUT", "/api/account/password", &[], change.into_bytes()).problem(503);
    app.signed_in(&person.email);
}
