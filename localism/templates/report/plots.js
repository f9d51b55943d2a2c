"use strict";
// Figures by Observable Plot: checkpoint curves, parts of benchmarks, and what all figures share.
// Colours are variables of the style sheet, so that light and dark need no second drawing.

const INK = "var(--ink)", SOFT = "var(--soft)", FAINT = "var(--faint)", LINE = "var(--line)";
const ACCENT = "var(--accent)", OTHER = "var(--other)", BACK = "var(--bg)";

const named = (name) => String(name).replaceAll("_", " ");
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const shown = (value, digits = 1) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

// Plot brings a style element for each figure, which the page's policy rightly refuses: report.css
// holds those rules.
function drawn(options) {
  const svg = Plot.plot({ style: { background: "none", overflow: "visible" }, ...options });
  for (const style of svg.querySelectorAll("style")) style.remove();
  return svg;
}

function tip(rows, channels, pointer = Plot.pointer) {
  return Plot.tip(rows, pointer({ ...channels, fill: BACK, stroke: LINE, fontSize: 12, pathFilter: "none" }));
}

function legend(entries) {
  const box = document.createElement("div");
  box.className = "legend";
  for (const [label, color, opacity] of entries) {
    const entry = document.createElement("span");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, value] of Object.entries({ width: 10, height: 10, "aria-hidden": "true" })) svg.setAttribute(name, value);
    for (const [name, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: color, "fill-opacity": opacity ?? 1 })) dot.setAttribute(name, value);
    svg.append(dot);
    entry.append(svg, label);
    box.append(entry);
  }
  return box;
}

// ---- checkpoint curves ---------------------------------------------------------------------

const WIN_RATES = ["lc_win_rate", "lc_low", "lc_high", "win_rate", "win_rate_low", "win_rate_high"];
const PANELS = [
  { title: "length-controlled win rate, %", key: "lc_win_rate", low: "lc_low", high: "lc_high", together: WIN_RATES },
  { title: "win rate, %", key: "win_rate", low: "win_rate_low", high: "win_rate_high", together: WIN_RATES },
  { title: "answers with all skills (by words), %", key: "skill_coverage" },
  { title: "cross-entropy, nats a token", key: "dev_loss", second: "train_loss", names: ["dev", "train"], digits: 3 },
  { title: "mean answer, characters", key: "mean_length", digits: 0 },
  { title: "variety of words, bits", key: "word_entropy", digits: 2 },
];

function stateOf(row) {
  return row.picked ? "picked" : row.tied ? "tied with the pick" : "";
}

function panel(rows, { title, key, low, high, together, second, names, digits = 1 }, width) {
  const known = rows.filter((row) => row[key] !== null);
  const all = rows.flatMap((row) => (together ?? [key, second].filter(Boolean)).map((name) => row[name])).filter((value) => value !== null);
  const [least, most] = d3.extent(all);
  const pad = 0.08 * (most - least || Math.abs(most) || 1);
  const domain = [Math.max(least - pad, least >= 0 ? 0 : -Infinity), most + pad];
  const picked = rows.filter((row) => row.picked);
  const epochs = rows.map((row) => row.epoch);
  const text = (row) => {
    const lines = [`epoch ${row.epoch}${stateOf(row) ? `, ${stateOf(row)}` : ""}`, `${names ? `${names[0]} ` : ""}${shown(row[key], digits)}`];
    if (low && row[low] !== null) lines.push(`95% ${shown(row[low], digits)} to ${shown(row[high], digits)}`);
    if (second) lines.push(`${names[1]} ${shown(row[second], digits)}`);
    return lines.join("\n");
  };
  const seconds = second ? rows.filter((row) => row[second] !== null) : [];
  const svg = drawn({
    width, height: 190, marginLeft: 44, marginRight: 26, marginTop: 12, marginBottom: 32,
    x: { label: "epoch", ticks: epochs.length <= 16 ? epochs : undefined, tickFormat: "d", tickSize: 0, inset: 6, labelAnchor: "right" },
    y: { label: null, domain, ticks: 4, tickSize: 0 },
    marks: [
      Plot.gridY({ ticks: 4, stroke: LINE, strokeOpacity: 1 }),
      Plot.ruleX(picked, { x: "epoch", stroke: FAINT, strokeDasharray: "2 3" }),
      low ? Plot.areaY(known.filter((row) => row[low] !== null), { x: "epoch", y1: low, y2: high, fill: ACCENT, fillOpacity: 0.14 }) : null,
      second ? Plot.lineY(seconds, { x: "epoch", y: second, stroke: FAINT, strokeWidth: 1.5 }) : null,
      second ? Plot.text(seconds.slice(-1), { x: "epoch", y: second, text: () => names[1], textAnchor: "start", dx: 5, fill: SOFT }) : null,
      Plot.lineY(known, { x: "epoch", y: key, stroke: ACCENT, strokeWidth: 1.7 }),
      second ? Plot.text(known.slice(-1), { x: "epoch", y: key, text: () => names[0], textAnchor: "start", dx: 7, fill: ACCENT }) : null,
      // The page's colour below, so that the line does not show through.
      Plot.dot(known, { x: "epoch", y: key, r: 4, fill: BACK, stroke: ACCENT, strokeWidth: 1.4 }),
      Plot.dot(known.filter((row) => row.tied || row.picked), {
        x: "epoch", y: key, r: (row) => (row.picked ? 5 : 4), fill: ACCENT, fillOpacity: (row) => (row.picked ? 1 : 0.4), stroke: ACCENT, strokeWidth: 1.4,
      }),
      tip(known, { x: "epoch", y: key, title: text }, Plot.pointerX),
    ],
    r: { type: "identity" }, opacity: { type: "identity" },
  });
  const box = document.createElement("div");
  const heading = document.createElement("h4");
  heading.textContent = title;
  box.append(heading, svg);
  return box;
}

function curves(place, width) {
  const rows = report.data.checkpoints;
  const panels = PANELS.filter(({ key }) => rows.some((row) => row[key] !== null));
  if (!panels.length) return false;
  const columns = Math.max(1, Math.min(3, Math.floor((width + 22) / 294)));
  const each = Math.floor((width - 22.4 * (columns - 1)) / columns);
  const grid = document.createElement("div");
  grid.className = "grid";
  grid.append(...panels.map((one) => panel(rows, one, each)));
  place.append(legend([["picked", ACCENT], ["cannot be told from it", ACCENT, 0.4]]), grid);
  return true;
}

// ---- parts of a benchmark ------------------------------------------------------------------

function parts(place, width, index) {
  const { rows, models, scale, metric } = report.data.parts[index];
  if (!rows.length) return false;
  const names = [...new Set(rows.map((row) => row.part))];
  const color = (model) => `var(--c${models.indexOf(model) % 10})`;
  const step = 9;
  const each = (model) => {
    const mine = rows.filter((row) => row.model_id === model);
    const dy = (models.indexOf(model) - (models.length - 1) / 2) * step;
    return [
      Plot.ruleY(mine.filter((row) => row.low !== null), { y: "part", x1: "low", x2: "high", stroke: color(model), strokeOpacity: 0.5, strokeWidth: 3, dy }),
      Plot.dot(mine, { y: "part", x: "value", fill: color(model), r: 3.5, dy }),
    ];
  };
  const digits = scale[1] <= 1 ? 3 : scale[1] <= 10 ? 2 : 1;
  const svg = drawn({
    width, height: names.length * Math.max(24, models.length * step + 10) + 40,
    marginLeft: Math.min(190, 0.34 * width), marginRight: 20, marginBottom: 34,
    x: { domain: scale, label: metric, grid: true, tickSize: 0 },
    y: { domain: names, label: null, tickSize: 0, tickFormat: (name) => cut(named(name), width < 560 ? 18 : 30) },
    marks: [
      ...models.flatMap(each),
      tip(rows, { y: "part", x: "value", title: (row) => `${named(row.part)}\n${row.model_id}: ${shown(row.value, digits)}\n${row.low === null ? "" : `95% ${shown(row.low, digits)} to ${shown(row.high, digits)}, `}n ${row.n}` }),
    ],
  });
  place.append(legend(models.map((model) => [model, color(model)])), svg);
  return true;
}

report.figures = { curves, parts };
