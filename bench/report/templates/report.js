"use strict";
// Sorts and filters tables, lists the rows behind a number, and highlights methods in figures. Without it the page says
// all the same; it is our own since a library would outweigh it and could not be read along with the page.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const made = document.createElement(tag);
  made.textContent = text;
  parent?.append(made);
  return made;
};

// Tables

const numeric = (cell) => {
  const text = cell.dataset.v ?? cell.textContent.trim();
  const found = /^[+-]?(inf|\d)/.test(text) ? parseFloat(text.replace("inf", "Infinity")) : NaN;
  return { found, text, missing: ["", "nan", "–"].includes(text) };
};

const order = (one, other, sign) => {
  if (one.missing || other.missing) return one.missing - other.missing; // what is missing comes last, either way
  if (Number.isNaN(one.found) || Number.isNaN(other.found)) return sign * one.text.localeCompare(other.text);
  return one.found === other.found ? 0 : sign * (one.found < other.found ? -1 : 1);
};

const sort = (table, heading, place) => {
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const each of all("thead th", table)) each.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  table.classList.add("sorted");
  const keyed = [...table.tBodies[0].rows].map((row) => [numeric(row.cells[place]), row]);
  keyed.sort(([one], [other]) => order(one, other, sign));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
};

const sortable = (table) => {
  for (const [place, heading] of all("thead th", table).entries()) {
    const button = make("button", "", null);
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, heading, place));
  }
};

const filter = (form) => {
  const rows = [...form.parentElement.querySelector(`[data-filters="${form.id}"]`).tBodies[0].rows];
  const apply = () => {
    const { text, dataset, method } = Object.fromEntries(new FormData(form));
    const words = text.toLowerCase().split(/\s+/);
    const kept = (row) =>
      (!dataset || row.dataset.dataset === dataset) &&
      (!method || row.dataset.method === method) &&
      words.every((word) => row.textContent.toLowerCase().includes(word));
    for (const row of rows) row.hidden = !kept(row);
    form.querySelector("output").value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
};

// The rows behind a number: #rows:dataset:method:metric, or with :other method after it for a difference

const data = JSON.parse(byId("rows-data").textContent);
const dialog = byId("rows");
const shown = (value) =>
  typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 8 }) : (value ?? "–");

const cellsOf = (dataset, method) => {
  const places = [data.datasets.indexOf(dataset), data.methods.indexOf(method)];
  return data.cells.filter((cell) => cell[0] === places[0] && cell[1] === places[1]);
};

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

const told = (values, seeds) => {
  const known = values.filter((value) => typeof value === "number");
  if (!known.length || known.length < seeds) return `${known.length} of ${seeds} finished seeds have a value.`;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return `Over ${seeds} finished seeds: median ${shown(median(known))}, least ${shown(low)}, greatest ${shown(high)}.`;
};

const selection = (dataset, methods, name, cost) => {
  const quoted = [dataset, ...methods].map((text) => JSON.stringify(text));
  const chosen = `(t.dataset == ${quoted[0]}) & t.method.isin([${quoted.slice(1).join(", ")}])`;
  const done = `done = pd.read_parquet("cells.parquet").loc[lambda t: (t.status == "done") & ${chosen}]`;
  if (cost) return `import pandas as pd\n${done}\ndone[["dataset", "method", "seed", ${JSON.stringify(name)}]]`;
  const metrics = name === "index_kl_ratio" ? '["index_kl", "index_kl_floor"]' : JSON.stringify([name]);
  return `import pandas as pd\n${done}
looks = pd.read_parquet("measurements.parquet").merge(done[["dataset", "method", "seed"]])
last = looks[looks.checkpoint == looks.groupby(["dataset", "method", "seed"]).checkpoint.transform("max")]
last[last.metric.isin(${metrics})]`;
};

const fill = (headings, lines) => {
  const table = byId("rows-table");
  table.replaceChildren();
  const head = make("tr", "", make("thead", "", table));
  for (const heading of headings) make("th", heading, head).scope = "col";
  const body = make("tbody", "", table);
  for (const line of lines) {
    const row = make("tr", "", body);
    for (const [place, value] of line.entries()) make(place ? "td" : "th", shown(value), row);
    row.firstChild.scope = "row";
  }
};

const single = (cells, place, cost) => {
  const value = (cell) => (cost ? cell[6][place] : cell[7][place]) ?? null;
  const finished = cells.filter((cell) => cell[3] === "done");
  const [, label, unit] = (cost ? data.costs : data.metrics)[place];
  const other = data.costs.filter((_, at) => !cost || at !== place);
  const rest = (cell) => other.map(([name]) => cell[6][data.costs.findIndex((each) => each[0] === name)]);
  const error = cost ? [] : ["standard error"];
  fill(
    ["seed", "status", "checkpoint", `${label} (${unit})`, ...error, ...other.map((each) => `${each[1]} (${each[2]})`), "cell"],
    cells.map((cell) => [cell[2], cell[3], cell[4], value(cell), ...error.map(() => cell[8][place]), ...rest(cell), cell[5]]),
  );
  return told(finished.map(value), finished.length);
};

const paired = (cells, others, place, names) => {
  const theirs = new Map(others.filter((cell) => cell[3] === "done").map((cell) => [cell[2], cell]));
  const both = cells.filter((cell) => cell[3] === "done" && theirs.has(cell[2]));
  const lines = both.map((cell) => {
    const [mine, other] = [cell[7][place], theirs.get(cell[2])[7][place]];
    const apart = typeof mine === "number" && typeof other === "number" ? mine - other : null;
    return [cell[2], mine, other, apart, cell[5], theirs.get(cell[2])[5]];
  });
  fill(["seed", ...names, "difference", `cell of ${names[0]}`, `cell of ${names[1]}`], lines);
  return told(lines.map((line) => line[3]), lines.length);
};

const follow = () => {
  const [kind, dataset, method, name, other] = location.hash.slice(1).split(":").map(decodeURIComponent);
  const cost = data.costs.findIndex((each) => each[0] === name);
  const place = cost < 0 ? data.metrics.findIndex((each) => each[0] === name) : cost;
  const cells = kind === "rows" && place >= 0 ? cellsOf(dataset, method) : [];
  if (!cells.length) return dialog.open && dialog.close();
  const names = other === undefined ? [method] : [method, other];
  byId("rows-title").textContent = `${dataset} · ${names.join(" less ")} · ${(cost < 0 ? data.metrics : data.costs)[place][1]}`;
  byId("rows-what").textContent =
    other === undefined ? single(cells, place, cost >= 0) : paired(cells, cellsOf(dataset, other), place, names);
  byId("rows-code").textContent = selection(dataset, names, name, cost >= 0);
  if (!dialog.open) dialog.showModal();
};

// What is copied, and what is highlighted

const copyable = (block) => {
  const button = make("button", "Copy", block);
  button.type = "button";
  button.addEventListener("click", async () => {
    const text = block.querySelector("pre");
    getSelection().selectAllChildren(text);
    await navigator.clipboard?.writeText(text.textContent).catch(() => undefined); // it stays selected, where refused
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
};

const highlight = (button) => {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  const marks = new Set(all('.legend [aria-pressed="true"]').map((each) => each.dataset.mark));
  for (const group of all("figure svg g[class^=m]")) {
    group.classList.toggle("dim", marks.size > 0 && !marks.has(group.classList[0]));
  }
};

all("table.sortable").forEach(sortable);
all("form.filters").forEach(filter);
all(".code").forEach(copyable);
for (const legend of all(".legend")) {
  legend.hidden = false;
  for (const button of all("button", legend)) button.addEventListener("click", () => highlight(button));
}
byId("rows-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => location.hash && history.replaceState(null, "", location.href.split("#")[0]));
addEventListener("hashchange", follow);
follow();
