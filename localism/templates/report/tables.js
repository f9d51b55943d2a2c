"use strict";
// Theme, tables that sort, lists that filter, and printing. Without this script every text and
// number of the page is still there.

const report = {
  data: JSON.parse(document.getElementById("data").textContent),
  redraw: [], // called with no arguments when something that figures depend on has changed
  find: "", // what the reader looks for among the skills
};

// ---- theme ---------------------------------------------------------------------------------

{
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.dataset.now = theme;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.now) + 1) % themes.length];
    show(next);
    try {
      localStorage.setItem("localism-theme", next);
    } catch {
      // A page from a disk may have no storage: then the choice lasts as long as the page.
    }
  });
  let kept = null;
  try {
    kept = localStorage.getItem("localism-theme");
  } catch {
    // As above.
  }
  show(themes.includes(kept) ? kept : "system");
}

// ---- tables that sort ----------------------------------------------------------------------

// "1,234 to 5" -> 1234; "4m10s" -> 250; a dash or nothing -> null, which comes last either way.
function valueOf(text) {
  const plain = text.trim().replaceAll(",", "").replace("−", "-");
  if (plain === "" || plain === "–") return null;
  const time = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\*?$/.exec(plain);
  if (time && /[hms]/.test(plain)) {
    return 3600 * (time[1] ?? 0) + 60 * (time[2] ?? 0) + Number(time[3] ?? 0);
  }
  const number = /^[+-]?\d+(?:\.\d+)?/.exec(plain);
  return number ? Number(number[0]) : plain.toLowerCase();
}

function compareValues(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function sortBy(table, header) {
  const column = [...header.parentNode.children].indexOf(header);
  // Numbers are most often asked for from the top, names from A.
  const first = header.classList.contains("n") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  for (const each of header.parentNode.children) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column].textContent), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? compareValues(a, b) : sign * compareValues(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  table.dispatchEvent(new CustomEvent("sorted"));
}

for (const table of document.querySelectorAll("table[data-sort]")) {
  for (const header of table.tHead.rows[0].cells) {
    if ("plain" in header.dataset || header.querySelector(".sr")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header));
  }
}

// ---- lists that filter, and long tables shown in part --------------------------------------

// Shows the items that hold the words (and are of a kind), at most so many; returns how many match.
function showItems(items, words, kind, most) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let matching = 0;
  for (const item of items) {
    const text = (item.searched ??= item.textContent.toLowerCase());
    const isOfKind = !kind || item.dataset.kind.split(" ").includes(kind);
    const matches = isOfKind && wanted.every((word) => text.includes(word));
    matching += matches;
    item.hidden = !matches || matching > most;
  }
  return matching;
}

function makeList(list, box) {
  const items = () => [...(list.tBodies ? list.tBodies[0].rows : list.children)];
  const input = box?.querySelector("input");
  const select = box?.querySelector("select");
  const output = box?.querySelector("output");
  const all = items().length;
  let most = Number(list.dataset.most ?? Infinity);
  const line = document.createElement("p");
  const shown = document.createElement("span");
  const more = document.createElement("button");
  line.className = "soft";
  more.type = "button";
  more.className = "more";
  more.textContent = "Show all";
  line.append(shown, " ", more);
  if (most < all) list.after(line);
  const apply = () => {
    const matching = showItems(items(), input?.value ?? "", select?.value ?? "", most);
    if (output) output.textContent = matching === all ? `${all.toLocaleString("en")}` : `${matching.toLocaleString("en")} of ${all.toLocaleString("en")}`;
    shown.textContent = `${Math.min(most, matching).toLocaleString("en")} of ${matching.toLocaleString("en")} shown.`;
    more.hidden = matching <= most;
  };
  more.addEventListener("click", () => {
    most = Infinity;
    apply();
  });
  list.addEventListener("sorted", apply);
  box?.addEventListener("input", () => {
    apply();
    if ("map" in box.dataset) {
      report.find = input.value;
      for (const draw of report.redraw) draw();
      const details = list.closest("details");
      if (details && input.value) details.open = true;
    }
  });
  if (box) box.hidden = false;
  apply();
}

{
  const boxes = new Map([...document.querySelectorAll("[data-filter]")].map((box) => [box.dataset.filter, box]));
  for (const [id, box] of boxes) makeList(document.getElementById(id), box);
  for (const list of document.querySelectorAll("table[data-most]")) {
    if (!boxes.has(list.id)) makeList(list, null);
  }
}

// ---- printing ------------------------------------------------------------------------------

{
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed) each.open = false;
    closed = [];
  });
}
