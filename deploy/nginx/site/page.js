// What every part of the page needs: messages, and actions that can fail.

import { ApiError, Overtaken, session } from "./api.js";

export const $ = (id) => document.getElementById(id);

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
function report(error, fields, again, done) {
  const known = error instanceof ApiError ? error.fields.filter((e) => fields.includes(e.field)) : [];
  for (const { field, message } of known) fieldError(field, message);
  if (known.length > 0) $(known[0].field).focus();
  else say(`${done} ${error.message}`.trim(), mayPass(error) ? again : null);
  if (!(error instanceof ApiError)) console.error(error);
}

export const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Whether the focus is nowhere: what had it has gone, or cannot be seen. */
export function isFocusLost() {
  const focused = document.activeElement;
  return !focused || focused === document.body || focused.getClientRects().length === 0;
}

/**
 * Runs an action once at a time, with its button disabled, and reports what went wrong. Where it is the
 * second step of something, `done` says what the first one did, whatever becomes of this one.
 */
export function action(button, fields, run, done = "") {
  // The visit that it runs in. What hangs in an earlier one keeps nobody waiting.
  let running = null;
  const attempted = async (event) => {
    event?.preventDefault();
    const { visit } = session;
    if (running === visit) return;
    running = visit;
    const wasFocused = document.activeElement === button;
    say(done);
    for (const field of fields) fieldError(field, "");
    button.disabled = true;
    try {
      await run();
    } catch (error) {
      if (error instanceof Overtaken) return;
      // A session that ended meanwhile: what was written stays in its field.
      if (error.status === 401 && session.token) dispatchEvent(new Event("session-ended"));
      else report(error, fields, () => attempted(event), done);
    } finally {
      if (running === visit) {
        running = null;
        button.disabled = false;
        // A browser takes the focus from what is disabled, and does not give it back.
        if (wasFocused && isFocusLost()) button.focus();
      }
    }
  };
  return attempted;
}
