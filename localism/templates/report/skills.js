"use strict";
// Figures of the skills: map, matrix of clusters, how often used; then all figures of the page are drawn.

const NAMED_CLUSTERS = 10;

// ---- map -----------------------------------------------------------------------------------

function mapped() {
  const words = report.find.toLowerCase().split(/\s+/).filter(Boolean);
  return report.data.map.map(([skill, cluster, x, y, planned, accepted]) => {
    const name = cluster < 0 ? null : named(report.data.clusters[cluster]);
    const text = `${named(skill)} ${name ?? ""}`.toLowerCase();
    return { skill: named(skill), cluster, name, x, y, planned, accepted, found: words.every((word) => text.includes(word)) };
  });
}

// The member that is nearest to all others: a mean may lie between two heaps.
function middle(rows) {
  return d3.least(rows, (row) => d3.sum(rows, (other) => Math.hypot(row.x - other.x, row.y - other.y)));
}

// Each name near its place, where it covers no other name and the fewest dots.
function labelsOf(rows, width, height) {
  const [left, right] = d3.extent(rows, (row) => row.x);
  const [low, top] = d3.extent(rows, (row) => row.y);
  const across = width / (right - left || 1), down = height / (top - low || 1);
  const taken = [];
  return d3.range(width < 560 ? 5 : NAMED_CLUSTERS).flatMap((cluster) => {
    const members = rows.filter((row) => row.cluster === cluster);
    if (!members.length) return [];
    const place = middle(members);
    const half = 3.4 * place.name.length;
    const covered = (dy) => {
      const [x, y] = [place.x * across, -place.y * down + dy];
      const names = taken.filter(([u, v, other]) => Math.abs(x - u) < half + other + 4 && Math.abs(y - v) < 15).length;
      const dots = rows.filter((row) => Math.abs(row.x * across - x) < half && Math.abs(-row.y * down - y) < 10).length;
      return 1000 * names + dots + Math.abs(dy) / 40;
    };
    const dy = d3.least([-12, 14, -22, 24, -32, 34, -42, 44], covered);
    taken.push([place.x * across, -place.y * down + dy, half]);
    return [{ ...place, dy }];
  });
}

function skillMap(place, width) {
  const rows = mapped();
  if (!rows.length) return false;
  const height = Math.round(Math.min(580, Math.max(320, 0.6 * width)));
  const color = (row) => (row.cluster >= 0 && row.cluster < NAMED_CLUSTERS ? `var(--c${row.cluster})` : FAINT);
  const dots = d3.sort(rows, (row) => row.found, (row) => row.cluster >= 0 && row.cluster < NAMED_CLUSTERS);
  const many = rows.length > 600 ? 0.75 : 1;
  const svg = drawn({
    width, height, margin: 22, marginTop: 26, x: { axis: null }, y: { axis: null },
    r: { type: "identity" }, opacity: { type: "identity" }, color: { type: "identity" },
    marks: [
      Plot.dot(dots, {
        x: "x", y: "y", fill: color, r: (row) => many * (row.cluster < 0 ? 2.4 : row.cluster < NAMED_CLUSTERS ? 4.6 : 3.4),
        fillOpacity: (row) => (row.found ? 0.85 : 0.1),
      }),
      Plot.dot(dots.filter((row) => !row.accepted && row.found), { x: "x", y: "y", r: 7, stroke: "var(--bad)", strokeWidth: 1.4 }),
      ...labelsOf(rows, width, height).map((row) =>
        Plot.text([row], { x: "x", y: "y", text: "name", dy: row.dy, fill: color(row), stroke: BACK, strokeWidth: 4, fontWeight: 600, fontSize: 11.5 }),
      ),
      tip(rows, { x: "x", y: "y", title: (row) => `${row.skill}\n${row.name ? `cluster ${row.name}` : "on its own"}\n${row.accepted} of ${row.planned} accepted` }),
    ],
  });
  const input = document.querySelector("[data-map] input");
  svg.addEventListener("click", () => {
    input.value = svg.value ? (svg.value.name ?? svg.value.skill) : "";
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  place.append(svg);
  return true;
}

// ---- which clusters meet -------------------------------------------------------------------

// Rows of many clusters together are painted on a scale of their own: they would make all others pale.
const isSingle = (cell) => cell.a.is_one && cell.b.is_one;

function byCount(cells, count, color) {
  const most = d3.max(cells.filter(isSingle), count) || 1;
  const mostTogether = d3.max(cells, count) || 1;
  const ends = [["1", color, Math.sqrt(1 / most)]];
  if (most > 1) ends.push([`${most}`, color, 1]);
  if (mostTogether > most) ends.push([`in the last rows and columns ${mostTogether}`, color, 1]);
  return { paint: (cell) => [Math.sqrt(count(cell) / (isSingle(cell) ? most : mostTogether)), color], ends };
}

// Each way of looking: opacity and colour of a cell, and the entries of the legend.
const LOOKS = {
  accepted: (cells) => byCount(cells, (cell) => cell.accepted, ACCENT),
  even: () => ({
    paint: (cell) => {
      const ratio = Math.log2((cell.accepted + 0.25) / (cell.even + 0.25));
      return [Math.min(1, Math.abs(ratio) / 2), ratio < 0 ? OTHER : ACCENT];
    },
    ends: [["a quarter or less", OTHER, 1], ["as even use", LINE, 1], ["four times or more", ACCENT, 1]],
  }),
  lost: (cells) => byCount(cells, (cell) => cell.planned - cell.accepted, OTHER),
};

function matrixCells({ groups, cells }) {
  return cells.flatMap(([low, high, planned, accepted, even]) => {
    const cell = { planned, accepted, even, hole: accepted === 0 && even >= 1, a: groups[low], b: groups[high] };
    return low === high ? [{ ...cell, x: low, y: low }] : [{ ...cell, x: low, y: high }, { ...cell, x: high, y: low }];
  });
}

function matrix(place, width) {
  if (!report.data.matrix) return false;
  const groups = report.data.matrix.groups;
  const cells = matrixCells(report.data.matrix);
  const look = LOOKS[document.querySelector("[data-matrix] select").value](cells);
  const narrow = width < 640;
  const marginLeft = narrow ? 108 : 168;
  const marginTop = narrow ? 8 : 128;
  // Not below what a label needs: a narrow screen scrolls.
  const side = Math.max(13, Math.min(27, Math.floor((width - marginLeft - 4) / groups.length)));
  const label = (index) => cut(named(groups[index].name), narrow ? 16 : 23);
  const order = d3.range(groups.length);
  const svg = drawn({
    width: marginLeft + side * groups.length + 4, height: marginTop + side * groups.length + 4,
    marginLeft, marginTop, marginRight: 4, marginBottom: 4,
    x: { domain: order, axis: narrow ? null : "top", tickRotate: -90, tickSize: 0, tickFormat: label, label: null, padding: 0.06 },
    y: { domain: order, tickSize: 0, tickFormat: label, label: null, padding: 0.06 },
    opacity: { type: "identity" }, color: { type: "identity" },
    marks: [
      Plot.cell(cells, { x: "x", y: "y", fill: LINE, fillOpacity: 0.35 }),
      Plot.cell(cells, { x: "x", y: "y", fill: (cell) => look.paint(cell)[1], fillOpacity: (cell) => look.paint(cell)[0] }),
      Plot.dot(cells.filter((cell) => cell.hole), { x: "x", y: "y", symbol: "times", r: Math.max(1.6, side / 7), stroke: SOFT }),
      tip(cells, {
        x: "x", y: "y",
        title: (cell) => `${cut(named(cell.a.name), 34)} (${cell.a.skills})\nwith ${cut(named(cell.b.name), 34)} (${cell.b.skills})\n${cell.accepted} of ${cell.planned} planned pairs accepted\neven use would be ${shown(cell.even, 1)}`,
      }),
    ],
  });
  const scrolled = document.createElement("div");
  scrolled.className = "scroll whole";
  scrolled.append(svg);
  place.append(legend(look.ends), scrolled);
  return true;
}

// ---- how often used ------------------------------------------------------------------------

function bars(rows, key, options, width) {
  return drawn({
    width, height: 210, marginLeft: 44, marginBottom: 34, marginTop: 12,
    x: { label: options.x, ticks: rows.length <= 14 ? rows.map((row) => row[key]) : undefined, tickFormat: "d", tickSize: 0 },
    y: { label: null, ticks: 4, tickSize: 0 },
    marks: [
      Plot.gridY({ ticks: 4, stroke: LINE, strokeOpacity: 1 }),
      Plot.rectY(rows, { x1: (row) => row[key] - 0.4, x2: (row) => row[key] + 0.4, y: options.filled, fill: ACCENT, fillOpacity: 0.85 }),
      options.outlined ? Plot.rectY(rows.filter((row) => row[options.outlined]), { x1: (row) => row[key] - 0.4, x2: (row) => row[key] + 0.4, y: options.outlined, fill: "none", stroke: SOFT }) : null,
      tip(rows, { x: key, y: options.filled, title: options.title }, Plot.pointerX),
    ],
  });
}

function uses(place, width) {
  const rows = report.data.uses;
  if (!rows.length) return false;
  place.append(bars(rows, "examples", {
    x: "examples", filled: "accepted", outlined: "planned",
    title: (row) => `${row.examples} example${row.examples === 1 ? "" : "s"}\nskills planned: ${row.planned}\naccepted: ${row.accepted}`,
  }, width));
  return true;
}

function sizes(place, width) {
  const rows = report.data.sizes;
  if (!rows.length) return false;
  place.append(bars(rows, "size", {
    x: "skills in the cluster", filled: "clusters", title: (row) => `${row.clusters} cluster${row.clusters === 1 ? "" : "s"} of ${row.size}`,
  }, width));
  return true;
}

// ---- drawing -------------------------------------------------------------------------------

Object.assign(report.figures, { map: skillMap, matrix, uses, sizes });

function draw(figure) {
  const place = figure.querySelector(".plot");
  const width = Math.floor(place.getBoundingClientRect().width);
  if (!width) return; // inside closed details: drawn when they open
  figure.drawnWidth = width;
  const before = place.offsetHeight;
  place.style.minHeight = `${before}px`; // or the page would jump while the figure is replaced
  place.replaceChildren();
  figure.hidden = !report.figures[figure.dataset.plot](place, width, Number(figure.dataset.index ?? 0));
  place.style.minHeight = "";
}

{
  const figures = [...document.querySelectorAll("figure[data-plot]")];
  const fit = ({ target }) => {
    const width = Math.floor(target.getBoundingClientRect().width);
    if (width && Math.abs(width - (target.parentNode.drawnWidth ?? 0)) > 12) draw(target.parentNode);
  };
  // In the next frame: drawing changes heights, which the observer would see as a loop.
  const watch = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach(fit)));
  for (const figure of figures) {
    draw(figure);
    watch.observe(figure.querySelector(".plot"));
  }
  report.redraw.push(() => figures.filter((figure) => figure.dataset.plot === "map").forEach(draw));
  const box = document.querySelector("[data-matrix]");
  if (box) {
    box.hidden = false;
    box.addEventListener("input", () => figures.filter((figure) => figure.dataset.plot === "matrix").forEach(draw));
  }
}
