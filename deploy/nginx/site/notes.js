// The sample domain: what is written, and the list of it. Goes with its section of index.html.

import { api } from "./api.js";
import { $, action, dateFormat, say } from "./page.js";

const MAX_CHARS = 2000;

let nextBefore = null;
let attempt = {};

function noteItem(note) {
  const item = document.createElement("li");
  item.tabIndex = -1;
  const time = document.createElement("time");
  time.dateTime = note.created_at;
  time.textContent = dateFormat.format(new Date(note.created_at));
  const text = document.createElement("p");
  text.textContent = note.text;
  item.append(time, text);
  return item;
}

function countDown() {
  const left = MAX_CHARS - [...$("text").value].length;
  $("text-left").textContent = left < 200 ? `${left} characters left` : "";
}

// Not crypto.randomUUID: browsers offer that on secure origins only.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

/** Shows what an account has written. A draft stays with its own writer, also when a session has ended. */
export async function open(account) {
  close();
  // In the form: a browser that keeps a draft while the page is loaded anew keeps this beside it.
  const writer = String(account.id);
  if ($("writer").value !== writer) forget();
  $("writer").value = writer;
  countDown();
  await older();
}

/** Leaves nothing on the screen that belongs to somebody. */
export function close() {
  $("notes").replaceChildren();
  nextBefore = null;
}

/** Drops what was being written: its writer is going. */
export function forget() {
  $("text").value = "";
  attempt = {};
  countDown();
}

/** Goes to where something can be written. */
export function focus() {
  $("text").focus();
}

async function older() {
  const page = await api("GET", nextBefore ? `/api/notes?before=${nextBefore}` : "/api/notes");
  $("notes").append(...page.notes.map(noteItem));
  nextBefore = page.next_before ?? null;
  $("older").hidden = nextBefore === null;
  $("empty").hidden = $("notes").children.length > 0;
}

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
  // What was typed since it was sent is the beginning of the next.
  if ($("text").value === text) $("text").value = "";
  countDown();
  $("text").focus();
}));

$("text").addEventListener("input", countDown);

// Ctrl+Enter or Cmd+Enter keeps the note without leaving the keyboard.
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("writing").requestSubmit();
});

$("older").addEventListener("click", action($("older"), [], async () => {
  const first = $("notes").children.length;
  await older();
  // Reading goes on where the new ones begin, wherever the button has gone.
  $("notes").children[first]?.focus();
}));
