// Draws one chart with uPlot. The colours come from the style sheet, so that a chart follows light and dark.

const charts = new Set();
const scheme = matchMedia("(prefers-color-scheme: dark)");
scheme.addEventListener("change", () => charts.forEach((chart) => chart.redraw()));

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Chart {
  #plot;
  #series;
  #box;
  #label;

  /**
   * box, legend: the elements for the chart and for its legend.
   * series: a list of { label, color, format, axis, dash, fill, binary }. color: the name of a CSS property.
   * axis: formats the values of the axis; default `format`. binary: whether the axis has powers of two.
   * label: what the chart shows, for readers that do not see it.
   */
  constructor(box, legend, series, label) {
    this.#box = box;
    this.#series = series;
    this.#label = label;
    legend.replaceChildren(...series.map((one) => this.#entry(one)));
    const axis = { stroke: () => color("--muted"), font: "12px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: () => color("--grid"), width: 1 };
    this.#plot = new uPlot(
      {
        width: Math.max(box.clientWidth, 100),
        height: box.clientHeight,
        legend: { show: false },
        cursor: { y: false, sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
        padding: [8, 8, 0, 0],
        scales: { x: { range: () => this.range }, y: { range: (_, low, high) => [0, series[0].binary ? binaryCeiling(high) : ceiling(high)] } },
        axes: [
          { ...axis, grid: { show: false }, size: 24, gap: 4, space: 70, values: (_, all) => all.map(clock) },
          {
            ...axis,
            grid,
            size: 60,
            gap: 6,
            space: 34,
            incrs: series[0].binary ? BINARY : undefined,
            values: (_, all) => all.map(series[0].axis ?? series[0].format),
          },
        ],
        series: [
          {},
          ...series.map((one) => ({
            stroke: () => color(one.color),
            fill: one.fill ? () => `${color(one.color)}22` : undefined,
            width: 1.75,
            dash: one.dash,
            points: { show: false },
            spanGaps: false,
          })),
        ],
        hooks: { setCursor: [() => this.#showValues()] },
      },
      [[], ...series.map(() => [])],
      box,
    );
    new ResizeObserver(() => this.#plot.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box);
    charts.add(this);
  }

  range = [0, 1];

  /** Shows new columns. now: the right edge, in seconds since the Unix epoch. kept: the seconds to its left. */
  update(columns, now, kept) {
    this.range = [now - kept, now];
    this.#plot.setData(columns);
    this.#showValues();
    const said = this.#series.map((one, index) => {
      const known = columns[index + 1].filter((value) => value != null);
      return known.length ? `${one.label}: now ${one.format(known.at(-1))}, highest ${one.format(Math.max(...known))}` : "";
    });
    this.#box.setAttribute("aria-label", `${this.#label}, last 15 minutes. ${said.filter(Boolean).join(". ")}`);
  }

  redraw() {
    this.#plot.redraw(false);
  }

  remove() {
    charts.delete(this);
    this.#plot.destroy();
  }

  #entry(one) {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.className = `swatch ${one.color.slice(2)}${one.dash ? " dashed" : ""}`;
    one.value = document.createElement("b");
    entry.append(swatch, `${one.label} `, one.value);
    return entry;
  }

  /** Shows the values under the pointer, or the last ones. */
  #showValues() {
    const data = this.#plot.data;
    const index = this.#plot.cursor.idx ?? data[0].length - 1;
    this.#series.forEach((one, at) => {
      const text = one.format(data[at + 1][index] ?? null);
      if (one.value.textContent !== text) one.value.textContent = text;
    });
  }
}

/** Returns the top of an axis: a round number, at least 1, so that a flat line stays at the bottom. */
function ceiling(high) {
  if (!(high > 1)) return 1;
  const unit = 10 ** Math.floor(Math.log10(high));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((one) => one * unit).find((one) => one >= high * 1.05) ?? 15 * unit;
}

const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);

function binaryCeiling(high) {
  const unit = 2 ** Math.max(20, Math.floor(Math.log2(high || 1)));
  return high > 1.5 * unit ? 2 * unit : high > unit ? 1.5 * unit : unit;
}

function clock(at) {
  const when = new Date(at * 1000);
  return `${String(when.getHours()).padStart(2, "0")}:${String(when.getMinutes()).padStart(2, "0")}`;
}
