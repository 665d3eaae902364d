// Polls /overview and shows it. One request brings the state and the samples since the last one.

import { Card, needsAttention } from "./card.js";
import { make, steps, text } from "./dom.js";
import { duration, time } from "./format.js";
import { History } from "./history.js";
import { Source } from "./source.js";

const EVERY = 2000; // ms between two requests
const TIMEOUT = 5000; // ms
const element = (id) => document.getElementById(id);

const history = new History();
const cards = new Map();
const source = new Source();
let answered = null; // ms, when the last answer came
let failed = null; // ms, when the daemon answered last before it stopped answering
let trouble = ""; // what the daemon does instead of answering
let timer = 0;

async function poll() {
  clearTimeout(timer);
  let overview = null;
  try {
    const token = sessionStorage.getItem("token");
    const answer = await fetch(`overview?since=${history.last}`, {
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      signal: AbortSignal.timeout(TIMEOUT),
      cache: "no-store",
    });
    if (answer.status === 401) return askForToken(Boolean(token));
    trouble = answer.ok ? "" : `answers with status ${answer.status}`;
    if (answer.ok) overview = await answer.json();
  } catch {
    trouble = "does not answer";
  }
  if (trouble) failed ??= answered ?? Date.now();
  else [answered, failed] = [Date.now(), null];
  showSilence();
  if (!document.hidden) timer = setTimeout(poll, EVERY);
  if (overview) show(overview); // last: an error of the page itself must not look like a silent daemon
}

function show(overview) {
  element("token").hidden = true;
  element("main").hidden = false;
  history.add(overview.history, overview.now);
  const names = Object.keys(overview.models);
  for (const [name, card] of cards) {
    if (names.includes(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  for (const name of names) {
    if (!cards.has(name)) {
      cards.set(name, new Card(name));
      element("models").append(cards.get(name).element);
    }
    cards.get(name).update(overview.models[name], history, overview.now, overview.history.kept);
  }
  source.update(overview.source, history, overview.now, overview.history.kept);
  element("broken").hidden = !overview.broken.length;
  steps(element("broken"), overview.broken.map((one) => ({ text: `Invalid declaration: ${one.reason}`, commands: [] })));
  showSummary(overview, names);
  const { host, pid } = overview.process;
  text(element("daemon"), `daemon on ${host}, pid ${pid}, version ${overview.version}, at ${time(overview.now)}`);
}

/** Names what needs attention, with links. Without problems, says so. */
function showSummary(overview, names) {
  const concerned = names.filter((name) => needsAttention(overview.models[name]));
  const links = concerned.map((name) => [name, `#model-${name}`]);
  if (overview.source.findings.length) links.push(["the source", "#source"]);
  if (overview.broken.length) links.push(["an invalid declaration", "#broken"]);
  document.title = links.length ? `(${links.length}) syncer` : "syncer";
  const summary = element("summary");
  const shown = JSON.stringify([names.length, links]);
  if (summary.dataset.shown === shown) return;
  summary.dataset.shown = shown;
  summary.dataset.level = links.length ? "bad" : "good";
  if (!links.length) {
    const models = names.length === 1 ? "The read model is" : `All ${names.length} read models are`;
    summary.replaceChildren(`${models} kept in sync`);
    return;
  }
  summary.replaceChildren("Needs attention: ");
  links.forEach(([name, target], index) => {
    summary.append(index ? ", " : "", Object.assign(make("a", "", name), { href: target }));
  });
}

/** Says that the daemon does not answer. The page keeps the last values, and goes on by itself. */
function showSilence() {
  document.body.classList.toggle("silent", failed != null);
  element("silence").hidden = failed == null;
  if (failed == null) return;
  const ago = duration((Date.now() - failed) / 1000);
  text(
    element("silence"),
    answered == null
      ? `The daemon ${trouble}. The page tries again every ${EVERY / 1000} s.`
      : `The daemon ${trouble} since ${time(failed / 1000)} (${ago}). The values are of that time. The page tries again every ${EVERY / 1000} s.`,
  );
}

function askForToken(wrong) {
  sessionStorage.removeItem("token");
  element("token").hidden = false;
  element("main").hidden = true;
  text(element("summary"), "A token is required");
  text(element("token-error"), wrong ? "The daemon does not accept this token." : "");
  element("token-value").focus();
}

element("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", element("token-value").value);
  element("token-value").value = "";
  poll();
});
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
