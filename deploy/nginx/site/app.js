// The page's one script: no framework, no build. It keeps nothing but what is on the screen; the
// session is a cookie that scripts cannot read, the token for writing comes with GET /api/session.

const $ = (id) => document.getElementById(id);
const MAX_CHARS = 2000;

let csrfToken = "";
let nextBefore = null;
let signingUp = false;
let attempt = {};

// --- The API ---------------------------------------------------------------------------------

/** An answer that is not a success, with the API's problem document. */
class ApiError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.status = problem.status;
    this.fields = problem.errors || [];
  }
}

async function api(method, path, body, more) {
  const headers = { Accept: "application/json", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError({ status: 0, title: "The site cannot be reached. Are you online?" });
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new ApiError(answer || { status: response.status, title: "The answer made no sense." });
}

// --- What is shown ---------------------------------------------------------------------------

function say(text) {
  $("message").textContent = text;
}

function show(name) {
  $("entrance").hidden = name !== "entrance";
  $("desk").hidden = name !== "desk";
  $("who").hidden = name !== "desk";
}

function fieldError(field, text) {
  const input = $(field);
  $(`${field}-error`).textContent = text;
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

/** Shows errors beside their fields and moves to the first; everything else goes on top. */
function report(error, fields) {
  const known = error instanceof ApiError ? error.fields.filter((e) => fields.includes(e.field)) : [];
  for (const { field, message } of known) fieldError(field, message);
  if (known.length > 0) $(known[0].field).focus();
  else say(error.message);
  if (!(error instanceof ApiError)) console.error(error);
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

const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function noteItem(note) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.dateTime = note.created_at;
  time.textContent = dateFormat.format(new Date(note.created_at));
  const text = document.createElement("p");
  text.textContent = note.text;
  item.append(time, text);
  return item;
}

function sessionItem(session) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = session.agent || "A browser without a name";
  const time = document.createElement("time");
  time.dateTime = session.last_used_at;
  time.textContent = session.current ? "this one" : dateFormat.format(new Date(session.last_used_at));
  item.append(name, time);
  if (!session.current) {
    const end = document.createElement("button");
    end.className = "quiet";
    end.type = "button";
    end.textContent = "Sign out";
    end.setAttribute("aria-label", `Sign out ${name.textContent}, last used ${time.textContent}`);
    end.addEventListener("click", action(end, [], async () => {
      await api("DELETE", `/api/sessions/${session.handle}`);
      await showSessions();
      $("sessions-title").parentElement.querySelector("summary").focus();
    }));
    item.append(end);
  }
  return item;
}

function countDown() {
  const left = MAX_CHARS - [...$("text").value].length;
  $("text-left").textContent = left < 200 ? `${left} characters left` : "";
}

// --- What happens ----------------------------------------------------------------------------

// Not crypto.randomUUID: browsers offer that on secure origins only.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

async function openDesk(session) {
  csrfToken = session.csrf_token;
  $("who-email").textContent = session.account.email;
  $("change-email").value = session.account.email;
  $("notes").replaceChildren();
  nextBefore = null;
  show("desk");
  await older();
}

function leaveDesk(text) {
  csrfToken = "";
  $("notes").replaceChildren();
  $("who-email").textContent = "";
  $("account").open = false;
  $("sessions").replaceChildren();
  $("change").reset();
  enterMode(false);
  show("entrance");
  say(text);
}

async function older() {
  const page = await api("GET", nextBefore ? `/api/notes?before=${nextBefore}` : "/api/notes");
  $("notes").append(...page.notes.map(noteItem));
  nextBefore = page.next_before ?? null;
  $("older").hidden = nextBefore === null;
  $("empty").hidden = $("notes").children.length > 0;
}

async function showSessions() {
  const { sessions } = await api("GET", "/api/sessions");
  $("sessions").replaceChildren(...sessions.map(sessionItem));
  $("end-others").hidden = sessions.length < 2;
}

/** Runs an action once at a time, with its button disabled, and reports what went wrong. */
function action(button, fields, run) {
  return async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    say("");
    for (const field of fields) fieldError(field, "");
    button.disabled = true;
    try {
      await run();
    } catch (error) {
      // A session that ended meanwhile: what was written stays in its field.
      if (error.status === 401 && csrfToken) leaveDesk("Your session has ended. Sign in again.");
      else report(error, fields);
    } finally {
      button.disabled = false;
    }
  };
}

$("credentials").addEventListener("submit", action($("enter"), ["email", "password"], async () => {
  const form = $("credentials");
  const credentials = { email: form.email.value, password: form.password.value };
  const session = await api("POST", signingUp ? "/api/accounts" : "/api/session", credentials);
  form.reset();
  await openDesk(session);
  $("text").focus();
}));

$("other-way").addEventListener("click", () => {
  say("");
  enterMode(!signingUp);
  $("email").focus();
});

$("writing").addEventListener("submit", action($("writing").querySelector("button"), ["text"], async () => {
  const text = $("text").value;
  // Sent again after a lost answer, the same text is the same note.
  if (attempt.text !== text) attempt = { text, key: randomKey() };
  const note = await api("POST", "/api/notes", { text }, { "Idempotency-Key": attempt.key });
  attempt = {};
  const item = noteItem(note);
  item.classList.add("fresh");
  $("notes").prepend(item);
  $("empty").hidden = true;
  $("text").value = "";
  countDown();
  say("");
  $("text").focus();
}));

$("text").addEventListener("input", countDown);

// Ctrl+Enter or Cmd+Enter keeps the note without leaving the keyboard.
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("writing").requestSubmit();
});

$("older").addEventListener("click", action($("older"), [], older));

$("sign-out").addEventListener("click", action($("sign-out"), [], async () => {
  await api("DELETE", "/api/session");
  leaveDesk("You are signed out.");
  $("email").focus();
}));

$("account").addEventListener("toggle", () => {
  if ($("account").open) showSessions().catch((error) => report(error, []));
});

$("end-others").addEventListener("click", action($("end-others"), [], async () => {
  await api("DELETE", "/api/sessions?keep=current");
  await showSessions();
  say("Every other browser is signed out.");
}));

$("end-all").addEventListener("click", action($("end-all"), [], async () => {
  await api("DELETE", "/api/sessions");
  leaveDesk("You are signed out everywhere.");
  $("email").focus();
}));

const passwords = ["current_password", "new_password"];
$("change").addEventListener("submit", action($("change").querySelector("button"), passwords, async () => {
  const [current_password, new_password] = passwords.map((id) => $(id).value);
  const session = await api("PUT", "/api/account/password", { current_password, new_password });
  csrfToken = session.csrf_token;
  $("change").reset();
  await showSessions();
  say("Your password is changed.");
}));

try {
  await openDesk(await api("GET", "/api/session"));
} catch (error) {
  show("entrance");
  if (error.status !== 401) report(error, []);
}
