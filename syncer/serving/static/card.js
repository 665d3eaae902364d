// Shows one read model.

import { Chart } from "./charts.js";
import { attribute, make, pairs, parts, steps, text } from "./dom.js";
import { ago, axisSeconds, counted, day, duration, number, rate, seconds, UNKNOWN } from "./format.js";

const STATES = {
  running: ["Running", "good"],
  starting: ["Starting", "busy"],
  waiting: ["Waiting", "warn"],
  failed: ["Failed", "bad"],
  stopped: ["Stopped", "bad"],
};
const SINKS = { elasticsearch: "Elasticsearch", redis: "Redis" };
const BEHIND = 10; // seconds of lag from which the state says that the read model catches up

export class Card {
  #parts;
  #age = null;
  #kinds = "";
  #rates = null;

  constructor(name) {
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.element.id = `model-${name}`;
    this.name = name;
    this.#parts = parts(this.element);
    this.#parts.name.textContent = name;
  }

  /** model: its value in /overview. history: a History. now, kept: seconds. */
  update(model, history, now, kept) {
    const part = this.#parts;
    text(part.sinks, model.sinks.map((kind) => SINKS[kind] ?? kind).join(", "));
    const [word, level] = stateOf(model);
    showState(part.state, word, level);
    attribute(this.element, "data-level", level);
    text(part.reason, model.reason || calm(model));
    const hint = model.hint ? [{ text: model.commands.length ? "" : model.hint, commands: model.commands }] : [];
    steps(part.steps, [...hint, ...model.next_steps.map((one) => ({ text: one.text, commands: [one.command] }))]);
    pairs(part.figures, figures(model));
    progress(part.progress, model);
    pairs(part.facts, facts(model, now));
    this.#charts("staleness_seconds" in model, part);
    this.#age.update(history.columns(this.name, this.#kinds.split(" ")), now, kept);
    this.#rates.update(history.columns(this.name, ["records", "writes"]), now, kept);
  }

  /** Makes the charts once the card is in the page, and again if the daemon begins to report the staleness. */
  #charts(stale, part) {
    const kinds = stale ? "staleness lag" : "lag";
    if (this.#kinds !== kinds) {
      this.#age?.remove();
      this.#kinds = kinds;
      const lag = { label: "lag", color: "--lag", format: seconds, axis: axisSeconds, fill: !stale };
      const series = stale ? [{ label: "staleness", color: "--staleness", format: seconds, axis: axisSeconds, fill: true }, lag] : [lag];
      text(part["age-title"], stale ? "Staleness and lag" : "Lag");
      this.#age = new Chart(part["age-chart"], part["age-legend"], series, `${this.name}: age`);
    }
    this.#rates ??= new Chart(
      part["rate-chart"],
      part["rate-legend"],
      [
        { label: "change records", color: "--records", format: rate, fill: true },
        { label: "documents written", color: "--writes", format: rate, dash: [6, 3] },
      ],
      `${this.name}: throughput per second`,
    );
  }
}

/** Returns whether a read model waits, has failed, or needs a command. */
export function needsAttention(model) {
  const healthy = model.state === "starting" || (model.state === "running" && model.backfill?.state !== "never");
  return !healthy || model.dead_letters > 0;
}

export function showState(element, word, level) {
  text(element, word);
  attribute(element, "data-level", level);
}

function stateOf(model) {
  if (model.state !== "running") return STATES[model.state] ?? [model.state, "warn"];
  if (model.backfill?.state === "never") return ["Not backfilled", "warn"];
  if (model.backfill?.state === "unfinished") return ["Backfill", "busy"];
  if (model.resync?.running) return ["Resync", "busy"];
  return model.lag_seconds >= BEHIND ? ["Catching up", "busy"] : STATES.running;
}

/** What a read model does while it has no problem to report. */
function calm(model) {
  if (model.state === "starting") return "The daemon opens the read model and checks every server.";
  if (model.state === "stopped") return "The daemon does not run this read model.";
  if (model.resync?.running) return "A resync builds the next generation. Readers still use the current one.";
  if (model.backfill?.state === "unfinished") return "A backfill writes all documents. Changes are delivered meanwhile.";
  return "Delivers every change to every sink.";
}

function figures(model) {
  const all = [];
  if ("staleness_seconds" in model) {
    all.push(["Staleness", { text: seconds(model.staleness_seconds), title: model.watermark_reason || "" }]);
  }
  all.push(
    ["Lag", { text: seconds(model.lag_seconds), level: model.lag_seconds >= BEHIND ? "warn" : "" }],
    ["Records", { text: number(model.lag_records), title: "Change records in Kafka that are not in every sink" }],
    ["Work", { text: number(model.work_records), title: "Work items: backfill ranges, large fan-outs, sweeps" }],
    ["Dead letters", { text: number(model.dead_letters), level: model.dead_letters ? "bad" : "" }],
  );
  return all;
}

/** Shows a bar for each long operation that is under way. */
function progress(box, model) {
  const all = [];
  if (model.backfill?.state === "unfinished") all.push(["Backfill", model.backfill]);
  if (model.resync) all.push([`Resync to generation ${model.resync.generation}`, model.resync]);
  const shown = JSON.stringify([all, model.refresh]);
  if (box.dataset.shown === shown) return;
  box.dataset.shown = shown;
  const bars = all.map(([name, { percent, seconds_left: left, running }]) => {
    const row = make("div", "bar");
    const bar = make("progress");
    bar.max = 100;
    if (percent != null) bar.value = percent;
    bar.setAttribute("aria-label", name);
    const at = percent == null ? "planning its ranges" : `${percent} %`;
    const rest = running === false ? ", interrupted" : left == null ? "" : `, ${duration(left)} left`;
    row.append(make("span", "", name), make("b", "", at + rest), bar);
    return row;
  });
  if (model.refresh) {
    const row = make("p", "muted", `All documents are rendered again, ${counted(model.refresh.items_left, "work item")} left: ${model.refresh.why}`);
    bars.push(row);
  }
  box.replaceChildren(...bars);
}

function facts(model, now) {
  return [
    ["Backfilled", backfilled(model.backfill)],
    ["Verified", verified(model.verification, now)],
    ["Generation", model.generation ? number(model.generation) : UNKNOWN],
    ["Daemons", model.daemons ? number(model.daemons) : UNKNOWN],
  ];
}

function backfilled(backfill) {
  if (!backfill) return UNKNOWN;
  if (backfill.state === "never") return { text: "never", level: "warn" };
  if (backfill.state === "unfinished") return { text: "not finished", level: "warn" };
  const note = "partials" in backfill ? counted(backfill.partials, "partial") : counted(backfill.documents, "document");
  return { text: day(backfill.at), level: "good", note };
}

function verified(verification, now) {
  if (!verification) return { text: "never", level: "warn" };
  const age = ago(now - verification.at);
  if (verification.state === "different") {
    return { text: age, level: "bad", note: `${number(verification.differences)} of ${number(verification.documents)} differed` };
  }
  const level = verification.state === "old" ? "warn" : "good";
  return { text: age, level, note: `${number(verification.documents)} equal` };
}
