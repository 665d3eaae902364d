"use strict";

// Loads the page's data every 2 s. In between, it shows the hours that the daemon pushes.

const PAGE = 10, PERIOD = 2000, HOUR = 3600 * 1000, LATE = 6;
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
let device = 1, first = 0, loaded = null, live = false, received = 0, since = performance.now();
const pushed = new Map(); // the hours of the chosen device, by time
const late = new Map(); // the latest change of an hour that has ended, by document

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function hours() {
  const known = new Map((loaded?.hours ?? []).map((hour) => [Date.parse(hour.hour), hour]));
  for (const [time, hour] of pushed) known.set(time, hour);
  const end = Math.floor(Date.now() / HOUR) * HOUR;
  return Array.from({ length: 24 }, (_, index) => {
    const time = end - (23 - index) * HOUR;
    return { readings: 0, errors: 0, lowest: null, highest: null, average: null, ...known.get(time), time: new Date(time) };
  });
}

function row(entry) {
  const made = document.createElement("tr"), name = document.createElement("td"), choose = element("button", entry.device);
  choose.type = "button";
  choose.addEventListener("click", () => { device = entry.device_id; pushed.clear(); load(); });
  name.append(choose);
  if (entry.device_id === device) made.setAttribute("aria-current", "true");
  const share = entry.readings ? `${(100 * entry.errors / entry.readings).toFixed(1)} %` : "–";
  made.append(
    name, element("td", entry.site, "place"), element("td", number.format(entry.readings), "number"),
    element("td", number.format(entry.errors), "number"), element("td", share, "number"),
  );
  return made;
}

function show() {
  if (!loaded) return;
  const { devices, day, ranking, device: totals } = loaded;
  $("devices").textContent = number.format(devices);
  $("readings").textContent = number.format(day.readings);
  $("errors").textContent = number.format(day.errors);
  const focused = [...$("ranking").querySelectorAll("button")].indexOf(document.activeElement);
  $("ranking").replaceChildren(...ranking.map(row));
  $("ranking").querySelectorAll("button")[focused]?.focus();
  $("page").textContent = `${first + 1} to ${first + ranking.length} of ${number.format(devices)}`;
  $("previous").disabled = first === 0;
  $("next").disabled = first + PAGE >= devices;
  if (!totals) return;
  $("chosen").textContent = `${totals.device}, ${totals.site}`;
  const average = totals.average === null ? "–" : `${totals.average.toFixed(2)} °C`;
  $("facts").textContent = `All time: ${counted(totals.readings, "reading")}, ${counted(totals.errors, "error")}, `
    + `average ${average}, last reading ${clock(new Date(totals.last_taken_at))}`;
}

function draw() {
  if (!loaded) return;
  drawBars($("bars"), hours());
  drawLine($("line"), hours());
  $("changed").replaceChildren(...[...late.values()].slice(-LATE).reverse().map((hour) => {
    const made = document.createElement("li"), text = counted(hour.readings, "reading");
    made.append(element("span", `${hour.device}, ${clock(new Date(hour.hour)).slice(11)}`), element("span", text));
    return made;
  }));
}

async function load() {
  try {
    const response = await fetch(`/data?device=${device}&first=${first}`);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    loaded = found;
    show();
    state(live ? "Live." : "Updated every 2 s.", "good");
  } catch (error) {
    state(`The page shows earlier data. ${error.message}`, "bad");
  }
}

function state(text, level) {
  $("state").textContent = text;
  $("state").dataset.level = level;
}

const source = new EventSource("/changes");
source.addEventListener("live", () => { live = true; });
source.onerror = () => { live = false; pushed.clear(); };
source.onmessage = (event) => {
  const { document: hour, key } = JSON.parse(event.data);
  received += 1;
  if (!hour) return;
  const time = Date.parse(hour.hour);
  if (hour.device_id === device) pushed.set(time, hour);
  if (time < Math.floor(Date.now() / HOUR) * HOUR) {
    late.delete(key);
    late.set(key, hour);
    if (late.size > LATE) late.delete(late.keys().next().value);
  }
};

$("previous").addEventListener("click", () => { first = Math.max(0, first - PAGE); load(); });
$("next").addEventListener("click", () => { first += PAGE; load(); });
addEventListener("resize", draw);
setInterval(load, PERIOD);
setInterval(() => {
  const now = performance.now();
  $("rate").textContent = number.format(Math.round(1000 * received / (now - since)));
  received = 0;
  since = now;
  draw();
}, 1000);
load().then(draw);
