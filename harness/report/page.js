"use strict";
const tip = document.getElementById("tip");
let told = null;  // the mark that the tip is about

// What is told of a mark: Vega keeps with each what it was drawn from.
function detailsOf(one) {
  return one?.__data__?.datum?.details;
}
function show(target) {
  told = target;
  tip.textContent = detailsOf(target);
  tip.hidden = false;
  const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect(), gap = 8;
  const left = at.left + at.width / 2 - own.width / 2;
  tip.style.left = `${Math.max(gap, Math.min(left, document.documentElement.clientWidth - own.width - gap))}px`;
  tip.style.top = `${at.top - own.height - gap < 0 ? at.bottom + gap : at.top - own.height - gap}px`;
}
function hide() {
  told = null;
  tip.hidden = true;
}
for (const [on, off] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(on, (event) => { if (detailsOf(event.target)) show(event.target); });
  document.addEventListener(off, (event) => { if (told && event.target === told) hide(); });
}
document.addEventListener("scroll", () => { if (told) show(told); }, { capture: true, passive: true });  // Tab scrolls
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

// What is hidden, by what hides it.
const off = { network: new Set(), series: new Set() };
const only = document.getElementById("only");

function isOff(one) {
  return Object.entries(off).some(([by, values]) => values.has(one.dataset[by]));
}
// The points than which none is both at most as large and better, from small to large.
function frontOf(points) {
  const front = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!front.length || point.y > front.at(-1).y) front.push(point);
  }
  return front;
}
function pointOf(one) {
  return { one, x: Number(one.dataset.x), y: Number(one.dataset.y) };
}
function beatenRows(table) {
  const rows = Array.from(table.tBodies[0].rows).filter((row) => row.dataset.group !== undefined && !isOff(row));
  const groups = Array.from(new Set(rows.map((row) => row.dataset.group)), (name) => rows.filter((row) => row.dataset.group === name));
  const best = new Set(groups.flatMap((group) => frontOf(group.map(pointOf)).map(({ one }) => one)));
  return (row) => !best.has(row);
}
function filter() {
  for (const one of document.querySelectorAll("[data-network]")) one.hidden = isOff(one);
  for (const chart of views.keys()) redraw(chart);
  const tables = Array.from(document.querySelectorAll("table.sortable")).filter((table) => table.querySelector("tr[data-group]"));
  for (const table of only.checked ? tables : []) {
    const beaten = beatenRows(table);
    for (const row of table.tBodies[0].rows) row.hidden ||= beaten(row);
  }
  const rows = Array.from((tables[0] ?? document.querySelector("table.sortable")).tBodies[0].rows);
  document.getElementById("count").value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  document.getElementById("answer-note")?.toggleAttribute("hidden", off.series.size === 0);
  placeConfigs();
}
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", shown);
    off[button.dataset.hides][shown ? "delete" : "add"](button.dataset.value);
    filter();
  });
}
only.addEventListener("change", filter);

// Charts: drawn as soon as they have a width, and again where that changes.
const views = new Map();
async function draw(chart) {
  views.set(chart, null);
  const specification = JSON.parse(chart.querySelector("script").textContent), place = chart.appendChild(document.createElement("div"));
  const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: () => {}, patch: placeLabels };
  views.set(chart, (await vegaEmbed(place, specification, options)).view);
  redraw(chart);
}
function placeLabels(vega) {
  const size = { signal: "[width, height]" }, anchor = ["top-left", "top", "left", "top-right", "bottom-right", "right"];
  for (const mark of vega.marks.filter(({ name }) => name === "labels_marks")) {
    mark.transform = [{ type: "label", size, anchor, offset: [8], avoidMarks: ["points_marks"] }];
  }
  return vega;
}
async function redraw(chart) {
  const view = views.get(chart);
  if (!view || !chart.clientWidth) return;
  if (!chart.classList.contains("levels")) view.signal("hidden", Array.from(off.series, Number));
  await view.signal("width", chart.clientWidth).runAsync();
  for (const mark of chart.querySelectorAll("path[aria-label]")) if (detailsOf(mark)) mark.tabIndex = 0;
}
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.clientWidth) views.has(target) ? redraw(target) : draw(target);
});
for (const chart of document.querySelectorAll(".chart")) widths.observe(chart);

// What the table shows, as the command writes CSV: a text that a spreadsheet would compute has an apostrophe before it.
function csvOf(table) {
  const cell = (one) => {
    const text = one.textContent.trim();
    const plain = /^[=+@\t\r-]/.test(text) && !/^[+-]?[\d.,]+$/.test(text) && text !== "-" ? `'${text}` : text;
    return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const cells = (row) => Array.from(row.cells).filter((one) => !one.hidden && !one.classList.contains("link")).map(cell).join(",");
  return Array.from(table.rows).filter((row) => !row.hidden).map(cells).join("\n") + "\n";
}
for (const button of document.querySelectorAll("button.csv")) {
  button.addEventListener("click", () => {
    const table = tableBelow(button);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv" }));
    link.download = `${button.dataset.name.replace(/[^\w.-]+/g, "-")}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
// The config stays beside the row's name: how far to the right depends on how wide that is.
function placeConfigs() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const first = table.tHead.rows[0].cells[0];
    table.style.setProperty("--first", `${first.getBoundingClientRect().width}px`);
  }
}
addEventListener("resize", placeConfigs);
filter();

function tableBelow(tool) {
  return tool.closest(".tools").nextElementSibling.querySelector("table");
}
// Every column but the first can be hidden.
for (const tools of document.querySelectorAll(".tools")) {
  const table = tableBelow(tools), chosen = document.createElement("details"), fields = document.createElement("fieldset");
  chosen.append(Object.assign(document.createElement("summary"), { textContent: "Columns" }), fields);
  fields.setAttribute("aria-label", `Columns of ${tools.querySelector("button").dataset.name}`);
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    if (column === 0) return;
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    const label = document.createElement("label");
    label.append(box, head.textContent.trim());
    fields.append(label);
    box.addEventListener("change", () => {
      for (const row of table.rows) row.cells[column].hidden = !box.checked;
      placeConfigs();
    });
  });
  tools.prepend(chosen);
}

function sortBy(table, column, ascending, numeric) {
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => {
    const text = row.cells[column].textContent.trim();
    return { row, key: numeric ? parseFloat(text.replaceAll(",", "")) : text };
  });
  const known = keyed.filter(({ key }) => !numeric || !Number.isNaN(key));
  const unknown = keyed.filter(({ key }) => numeric && Number.isNaN(key));  // last, whatever the direction
  known.sort((a, b) => (numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true })) * (ascending ? 1 : -1));
  body.append(...known.map(({ row }) => row), ...unknown.map(({ row }) => row));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    sortBy(table, column, ascending, head.classList.contains("number"));
  }));
}
