// Accounts and sessions: no framework, no build. It keeps nothing but what is on the screen; the
// session is a cookie that scripts cannot read, the token for writing comes with GET /api/session.

import { ApiError, api, enter, leave, look, session } from "./api.js";
import * as domain from "./notes.js";
import { $, action, dateFormat, fieldError, isFocusLost, say } from "./page.js";

let signingUp = false;

// --- What is shown ---------------------------------------------------------------------------

function show(name) {
  $("entrance").hidden = name !== "entrance";
  $("desk").hidden = name !== "desk";
  $("who").hidden = name !== "desk";
}

function enterMode(up) {
  signingUp = up;
  $("entrance-title").textContent = up ? "Create an account" : "Sign in";
  $("enter").textContent = up ? "Create it" : "Sign in";
  $("other-way").textContent = up ? "I have an account" : "Create an account";
  $("password").autocomplete = up ? "new-password" : "current-password";
  $("password-hint").hidden = !up;
  for (const field of ["email", "password"]) fieldError(field, "");
}

function sessionItem({ handle, agent, last_used_at, current }) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = agent || "A browser without a name";
  const time = document.createElement("time");
  time.dateTime = last_used_at;
  time.textContent = current ? "this one" : dateFormat.format(new Date(last_used_at));
  item.append(name, time);
  if (!current) {
    const end = document.createElement("button");
    end.className = "quiet";
    end.type = "button";
    end.textContent = "Sign out";
    end.setAttribute("aria-label", `Sign out ${name.textContent}, last used ${time.textContent}`);
    end.addEventListener("click", action(end, [], () => endSession(handle)));
    item.append(end);
  }
  return item;
}

// --- What happens ----------------------------------------------------------------------------

/** For an answer that is as good as a success. */
const unless = (status) => (error) => {
  if (error.status === status) return status;
  throw error;
};

function openDesk(answer, text = "") {
  clearDesk();
  enter(answer);
  $("credentials").reset();
  $("who-email").textContent = answer.account.email;
  $("change-email").value = answer.account.email;
  show("desk");
  say(text);
  // A step of its own: where it fails, it alone is tried again, and not the signing in before it.
  action({}, [], () => domain.open(session.account), text)();
}

function clearDesk() {
  domain.close();
  $("who-email").textContent = "";
  $("change-email").value = "";
  $("account").open = false;
  $("sessions").replaceChildren();
  $("change").reset();
}

function leaveDesk(text) {
  leave();
  clearDesk();
  enterMode(false);
  show("entrance");
  say(text);
}

async function showSessions() {
  const { sessions } = await api("GET", "/api/sessions");
  $("sessions").replaceChildren(...sessions.map(sessionItem));
  $("end-others").hidden = sessions.length < 2;
  // What ended a session has gone with it, and the way goes on above the list.
  if (isFocusLost()) $("account").querySelector("summary").focus();
}

/** A step of its own: where it fails, it alone is tried again, and not what was `done` before it. */
const listSessions = (done) => action({}, [], showSessions, done)();

async function endSession(handle) {
  const gone = await api("DELETE", `/api/sessions/${handle}`).catch(unless(404));
  listSessions(gone ? "The list was out of date. This is the present one." : "That browser is signed out.");
}

$("credentials").addEventListener("submit", action($("enter"), ["email", "password"], async () => {
  const credentials = { email: $("email").value, password: $("password").value };
  openDesk(await api("POST", signingUp ? "/api/accounts" : "/api/session", credentials));
  domain.focus();
}));

$("other-way").addEventListener("click", () => {
  say("");
  enterMode(!signingUp);
  $("email").focus();
});

$("sign-out").addEventListener("click", action($("sign-out"), [], async () => {
  // Where the session had ended already, the person has what they wanted.
  await api("DELETE", "/api/session").catch(unless(401));
  domain.forget();
  leaveDesk("You are signed out.");
  $("email").focus();
}));

$("account").addEventListener("toggle", () => $("account").open && listSessions());

$("end-others").addEventListener("click", action($("end-others"), [], async () => {
  await api("DELETE", "/api/sessions?keep=current");
  listSessions("Every other browser is signed out.");
}));

$("end-all").addEventListener("click", action($("end-all"), [], async () => {
  await api("DELETE", "/api/sessions");
  domain.forget();
  leaveDesk("You are signed out everywhere.");
  $("email").focus();
}));

const passwords = ["current_password", "new_password"];
$("change").addEventListener("submit", action($("change").querySelector("button"), passwords, async () => {
  const [current_password, new_password] = passwords.map((id) => $(id).value);
  const { csrf_token } = await api("PUT", "/api/account/password", { current_password, new_password });
  session.token = csrf_token;
  $("change").reset();
  listSessions("Your password is changed.");
}));

/** Shows the desk to who is signed in, and the entrance to everybody else. */
async function settle() {
  try {
    await look();
  } catch (error) {
    if (error.status !== 401 || session.account) throw error;
    if (!$("entrance").hidden) return;
    say("");
    show("entrance");
  }
}

const begin = action({}, [], settle);

// By another tab, at the entrance or while somebody else was on the screen.
addEventListener("signed-in", ({ detail }) => {
  const isAnother = session.account !== null;
  openDesk(detail, isAnother ? "This browser is signed in with another account now. This is its page." : "");
  if (isAnother) $("main").focus();
});

// It ended by itself: what was being written stays in its field, for the same person.
addEventListener("session-ended", () => leaveDesk("Your session has ended. Sign in again."));

/** Nobody asked for it, so a line that is dead is left for the next thing that somebody does to say. */
function overlook(error) {
  if (error.status === 401) dispatchEvent(new Event("session-ended"));
  else if (!(error instanceof ApiError)) console.error(error);
}

// Back from another tab, which may have signed in anew, or out.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") settle().catch(overlook);
});

// The way back may lead to the page as it was left, by somebody who has signed out since.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  leaveDesk("");
  begin();
});

await begin();
