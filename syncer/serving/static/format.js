// Formats values for people. Every function accepts null for an unknown value.

const NUMBER = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const UNKNOWN = "–";

export function number(value) {
  return value == null ? UNKNOWN : NUMBER.format(value);
}

/** A number and its noun: `1 document`, `2,000 documents`. */
export function counted(value, noun) {
  return `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Events per second: one decimal for small values, so that a slow stream is not 0. */
export function rate(value) {
  if (value == null) return UNKNOWN;
  return value > 0 && value < 10 ? value.toFixed(1) : NUMBER.format(value);
}

/** An age with decimals for small values: `0.3 s`, `12 s`, `3 min 20 s`. */
export function seconds(value) {
  if (value == null) return UNKNOWN;
  return value < 9.95 ? `${value.toFixed(1)} s` : duration(value);
}

/** As `seconds`, for an axis with round values. */
export function axisSeconds(value) {
  return value < 60 ? `${+value.toFixed(1)} s` : duration(value).replace(/ 0 (s|min|h)$/, "");
}

/** The two largest units of a duration: `40 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(value) {
  if (value == null) return UNKNOWN;
  const all = Math.round(value);
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor((all % 86400) / 3600)} h`;
}

/** An age with its largest unit only: `just now`, `5 min ago`, `2 h ago`, `3 d ago`. */
export function ago(value) {
  if (value < 60) return "just now";
  if (value < 3600) return `${Math.floor(value / 60)} min ago`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ago`;
  return `${Math.floor(value / 86400)} d ago`;
}

export function bytes(value) {
  if (value == null) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit && value < 100 ? value.toFixed(1) : NUMBER.format(value)} ${units[unit]}`;
}

/** The time of day. at: seconds since the Unix epoch. */
export function time(at) {
  return TIME.format(new Date(at * 1000));
}

/** The day and the time. at: seconds since the Unix epoch. */
export function day(at) {
  return DAY.format(new Date(at * 1000));
}
