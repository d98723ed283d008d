// Accounts and sessions: no framework, no build. It keeps nothing but what is on the screen; the
// session is a cookie that scripts cannot read, the token for writing comes with GET /api/session.

import * as domain from "./notes.js";
import { $, action, api, dateFormat, fieldError, report, say, session } from "./page.js";

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
    end.addEventListener("click", action(end, [], async () => {
      await api("DELETE", `/api/sessions/${handle}`);
      await showSessions();
      $("sessions-title").parentElement.querySelector("summary").focus();
    }));
    item.append(end);
  }
  return item;
}

// --- What happens ----------------------------------------------------------------------------

/** A step of its own: where it fails, it alone is tried again, and not the signing in before it. */
const fillDesk = action({}, [], domain.open);

async function openDesk({ account, csrf_token }) {
  session.token = csrf_token;
  $("who-email").textContent = account.email;
  $("change-email").value = account.email;
  show("desk");
  await fillDesk();
}

function leaveDesk(text) {
  session.token = "";
  domain.close();
  $("who-email").textContent = "";
  $("change-email").value = "";
  $("account").open = false;
  $("sessions").replaceChildren();
  $("change").reset();
  enterMode(false);
  show("entrance");
  say(text);
}

async function showSessions() {
  const { sessions } = await api("GET", "/api/sessions");
  $("sessions").replaceChildren(...sessions.map(sessionItem));
  $("end-others").hidden = sessions.length < 2;
}

$("credentials").addEventListener("submit", action($("enter"), ["email", "password"], async () => {
  const form = $("credentials");
  const credentials = { email: form.email.value, password: form.password.value };
  const answer = await api("POST", signingUp ? "/api/accounts" : "/api/session", credentials);
  form.reset();
  const opened = openDesk(answer);
  domain.focus();
  await opened;
}));

$("other-way").addEventListener("click", () => {
  say("");
  enterMode(!signingUp);
  $("email").focus();
});

$("sign-out").addEventListener("click", action($("sign-out"), [], async () => {
  await api("DELETE", "/api/session");
  domain.forget();
  leaveDesk("You are signed out.");
  $("email").focus();
}));

const fillAccount = action({}, [], showSessions);
$("account").addEventListener("toggle", () => $("account").open && fillAccount());

$("end-others").addEventListener("click", action($("end-others"), [], async () => {
  await api("DELETE", "/api/sessions?keep=current");
  await showSessions();
  say("Every other browser is signed out.");
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
  await showSessions();
  say("Your password is changed.");
}));

/** Shows the desk to who is signed in, and the entrance to everybody else. */
async function begin() {
  say("");
  try {
    await openDesk(await api("GET", "/api/session"));
  } catch (error) {
    if (error.status === 401) show("entrance");
    else report(error, [], begin);
  }
}

// It ended by itself: what was being written stays in its field.
addEventListener("session-ended", () => leaveDesk("Your session has ended. Sign in again."));

// The way back may lead to the page as it was left, by somebody who has signed out since.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  leaveDesk("");
  begin();
});

await begin();
