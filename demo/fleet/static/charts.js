"use strict";

// Two charts of hours, as SVG. hours: [{time, readings, errors, lowest, highest, average}], 24 of them, oldest first.

const LEFT = 44, BOTTOM = 22, TOP = 8;

const count = new Intl.NumberFormat("en");

function counted(value, noun) {
  return `${count.format(value)} ${noun}${value === 1 ? "" : "s"}`;
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Draws the frame. Returns the SVG, the position of an hour and of a value, and the width of an hour.
function frame(place, hours, least, most, width) {
  const step = (width - LEFT) / hours.length, height = width < 600 ? 170 : 290;
  const x = (index) => LEFT + index * step;
  const y = (value) => TOP + (1 - (value - least) / (most - least)) * (height - TOP - BOTTOM);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "chosen" });
  for (let part = 0; part <= 4; part += 1) {
    const value = least + (most - least) * part / 4;
    svg.append(shape("line", { x1: LEFT, x2: width, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value, most - least)));
  }
  const every = width < 500 ? 6 : 3;
  hours.forEach((hour, index) => {
    if (hour.time.getUTCHours() % every) return;
    const label = `${String(hour.time.getUTCHours()).padStart(2, "0")}:00`;
    const at = Math.min(Math.max(x(index) + step / 2, LEFT + 18), width - 18);
    svg.append(shape("text", { x: at, y: height - 5, "text-anchor": "middle" }, label));
  });
  place.replaceChildren(svg);
  return { svg, x, y, step };
}

function short(value, range) {
  if (value >= 10000) return `${(value / 1000).toFixed(range < 4000 ? 1 : 0)}k`;
  return range < 20 ? value.toFixed(1) : Math.round(value).toString();
}

// Returns a round number above the value, so that the axis moves seldom.
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 6, 8, 10].map((one) => one * unit).find((one) => one >= value);
}

function drawBars(place, hours) {
  const most = ceiling(Math.max(4, ...hours.map((hour) => hour.readings)));
  const { svg, x, y, step } = frame(place, hours, 0, most, Math.max(place.clientWidth, 200));
  hours.forEach((hour, index) => {
    const valid = hour.readings - hour.errors;
    const bar = (from, to, name) => shape("rect", {
      x: x(index) + 1, width: Math.max(step - 2, 1), y: y(to), height: Math.max(y(from) - y(to), 0), class: name,
    });
    const group = shape("g", {});
    group.append(shape("title", {}, `${clock(hour.time)}: ${counted(hour.readings, "reading")}, ${counted(hour.errors, "error")}`));
    group.append(bar(0, valid, "valid"), bar(valid, hour.readings, "errors"));
    svg.append(group);
  });
}

function drawLine(place, hours) {
  const known = hours.map((hour, index) => ({ ...hour, index })).filter((hour) => hour.average !== null);
  if (!known.length) return place.replaceChildren();
  const least = Math.floor(Math.min(...known.map((hour) => hour.lowest)) / 4) * 4;
  const most = Math.ceil(Math.max(...known.map((hour) => hour.highest)) / 4) * 4;
  const { svg, x, y, step } = frame(place, hours, least, Math.max(most, least + 4), Math.max(place.clientWidth, 200));
  const at = (hour, value) => `${(x(hour.index) + step / 2).toFixed(1)},${y(value).toFixed(1)}`;
  const upper = known.map((hour) => at(hour, hour.highest));
  const lower = known.map((hour) => at(hour, hour.lowest)).reverse();
  svg.append(shape("polygon", { points: [...upper, ...lower].join(" "), class: "band" }));
  svg.append(shape("polyline", { points: known.map((hour) => at(hour, hour.average)).join(" "), class: "average" }));
}

function clock(time) {
  return `${time.toISOString().slice(0, 10)} ${time.toISOString().slice(11, 16)}`;
}
