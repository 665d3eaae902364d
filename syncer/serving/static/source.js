// Shows the connector and its replication slot, which all read models share.

import { showState } from "./card.js";
import { Chart } from "./charts.js";
import { pairs, parts, steps } from "./dom.js";
import { bytes, duration, seconds, UNKNOWN } from "./format.js";

export class Source {
  #element = document.getElementById("source");
  #parts = parts(this.#element);
  #chart = null;

  update(source, history, now, kept) {
    this.#element.hidden = false;
    const part = this.#parts;
    const bad = source.findings.length > 0;
    const known = source.connector && source.connector !== "unknown";
    showState(part.state, bad ? "Changes may not arrive" : known ? "Delivering" : "Unknown", bad ? "bad" : known ? "good" : "warn");
    this.#element.dataset.level = bad ? "bad" : "good";
    steps(part.steps, source.findings.map((one) => ({ text: one.reason, commands: one.commands })));
    pairs(part.facts, [
      ["Connector", source.connector || UNKNOWN],
      ["Undelivered changes", source.late_seconds > 0 ? { text: `since ${seconds(source.late_seconds)}`, level: "warn" } : "none"],
      ...slot(source.slot),
    ]);
    this.#chart ??= new Chart(
      part["slot-chart"],
      part["slot-legend"],
      [{ label: "retained", color: "--records", format: bytes, fill: true, binary: true }],
      "WAL that the slot retains",
    );
    this.#chart.update([history.at, history.slot], now, kept);
  }
}

function slot(found) {
  if (!found) return [["Slot", UNKNOWN]];
  const left = found.lost_in_seconds;
  const limit = found.limit_bytes == null ? ", no limit" : ` of ${bytes(found.limit_bytes)}`;
  return [
    ["Slot", found.name],
    ["Slot retains", `${bytes(found.retained_bytes)}${limit}`],
    [
      "Slot is lost",
      found.limit_bytes == null
        ? { text: "never: WAL can fill the disk", title: "max_slot_wal_keep_size is -1. The free space is not known." }
        : left == null
          ? "not at this rate"
          : { text: `in ${duration(left)} at this rate`, level: left < 86400 ? "bad" : "warn" },
    ],
  ];
}
