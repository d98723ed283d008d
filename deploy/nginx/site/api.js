// The API, and whose session it is asked in. The cookie is the browser's and not this page's: another
// tab may replace it at any moment, by a new session of the same account or by somebody else's.

/** nginx gives up after 15 s and says so: after more than that nobody is going to say anything. */
const LIMIT_MS = 20_000;

/** Whichever part it is: a person can do the same about each. */
const AWAY = "The site cannot do this at the moment. Try again a little later.";

/** An answer that is not a success, with the API's problem document. */
export class ApiError extends Error {
  constructor(problem) {
    super([502, 503].includes(problem.status) ? AWAY : problem.detail || problem.title);
    this.status = problem.status;
    this.fields = problem.errors || [];
  }
}

/** Who asked is not here any more: nobody is told what became of it. */
export class Overtaken extends ApiError {
  constructor() {
    super({ title: "Somebody else is here by now." });
  }
}

// --- Who is here -----------------------------------------------------------------------------

/**
 * Who is on the screen, and the token of their session: empty while nobody is. A visit lasts from one
 * change of this to the next; what was asked in an earlier one counts for nothing.
 */
export const session = { account: null, token: "", visit: new AbortController() };

function turn(account, token) {
  session.visit.abort();
  Object.assign(session, { account, token, visit: new AbortController() });
}

export const enter = ({ account, csrf_token }) => turn(account, csrf_token);
export const leave = () => turn(null, "");

/** Asks whose session the browser has by now. Where it is somebody else's, the page is told. */
export async function look() {
  const { account, token } = session;
  const answer = await ask("GET", "/api/session");
  // A new session of this page's own came first.
  if (session.token !== token) return;
  if (answer.account.id === account?.id) session.token = answer.csrf_token;
  else dispatchEvent(new CustomEvent("signed-in", { detail: answer }));
}

// --- Asking ----------------------------------------------------------------------------------

/** Asks for who is on the screen and for nobody else, also where another tab has signed in anew. */
export async function api(method, path, body, more) {
  const { token, visit } = session;
  try {
    return await ask(method, path, body, more);
  } catch (error) {
    if (!token || ![401, 403].includes(error.status)) throw error;
    if (session.token === token) await look();
    if (session.visit !== visit) throw new Overtaken();
    if (session.token === token) throw error;
    // It was refused, so nothing was done: once more, with the token of the new session.
    return ask(method, path, body, more);
  }
}

/** What is answered counts while who asked is here. */
async function ask(...request) {
  const { visit } = session;
  const [outcome] = await Promise.allSettled([exchange(...request)]);
  if (session.visit !== visit) throw new Overtaken();
  if (outcome.status === "rejected") throw outcome.reason;
  return outcome.value;
}

async function exchange(method, path, body, more) {
  const headers = { Accept: "application/json", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  // Says which session is meant, of reads too: with another one's cookie beside it, it is refused. Only
  // the question whose session there is means any.
  const meansAny = method === "GET" && path === "/api/session";
  if (session.token && !meansAny) headers["X-CSRF-Token"] = session.token;
  const signal = AbortSignal.any([session.visit.signal, AbortSignal.timeout(LIMIT_MS)]);
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    text = await response.text();
  } catch (error) {
    throw new ApiError({ status: 0, title: whyNothingCame(error, method) });
  }
  if (response.status === 204) return null;
  const answer = parsed(text);
  if (response.ok && answer) return answer;
  throw new ApiError(answer || { status: response.status, title: "The answer made no sense." });
}

function whyNothingCame(error, method) {
  if (error.name !== "TimeoutError") return "The site cannot be reached. Are you online?";
  const late = "The site did not answer in time.";
  return method === "GET" ? late : `${late} Whether it carried the request out is not known.`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
