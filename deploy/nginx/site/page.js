// What every part of the page needs: the API, messages, and actions that can fail.

export const $ = (id) => document.getElementById(id);

/** The token for writing: it comes with the session, and is empty while nobody is signed in. */
export const session = { token: "" };

// --- The API ---------------------------------------------------------------------------------

/** Whichever part it is: a person can do the same about each. */
const AWAY = "The site cannot do this at the moment. Try again a little later.";

/** An answer that is not a success, with the API's problem document. */
class ApiError extends Error {
  constructor(problem) {
    super([502, 503].includes(problem.status) ? AWAY : problem.detail || problem.title);
    this.status = problem.status;
    this.fields = problem.errors || [];
  }
}

export async function api(method, path, body, more) {
  const headers = { Accept: "application/json", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && session.token) headers["X-CSRF-Token"] = session.token;
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

// --- What is said and done -------------------------------------------------------------------

/** Says something on top of the page; with `again`, offers to do once more what failed. */
export function say(text, again) {
  $("message-text").textContent = text;
  $("message").classList.toggle("said", text !== "");
  $("again").hidden = !again;
  $("again").onclick = again ?? null;
  if (again) $("again").focus();
}

export function fieldError(field, text) {
  const input = $(field);
  $(`${field}-error`).textContent = text;
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

/** Nobody is there, or not at the moment: what failed may well work when it is tried again. */
const mayPass = (error) => error instanceof ApiError && [0, 429, 502, 503, 504].includes(error.status);

/** Shows errors beside their fields and moves to the first; everything else goes on top. */
export function report(error, fields, again) {
  const known = error instanceof ApiError ? error.fields.filter((e) => fields.includes(e.field)) : [];
  for (const { field, message } of known) fieldError(field, message);
  if (known.length > 0) $(known[0].field).focus();
  else say(error.message, mayPass(error) ? again : null);
  if (!(error instanceof ApiError)) console.error(error);
}

export const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Runs an action once at a time, with its button disabled, and reports what went wrong. */
export function action(button, fields, run) {
  const attempted = async (event) => {
    event?.preventDefault();
    if (button.disabled) return;
    say("");
    for (const field of fields) fieldError(field, "");
    button.disabled = true;
    try {
      await run();
    } catch (error) {
      // A session that ended meanwhile: what was written stays in its field.
      if (error.status === 401 && session.token) dispatchEvent(new Event("session-ended"));
      else report(error, fields, () => attempted(event));
    } finally {
      button.disabled = false;
    }
  };
  return attempted;
}
