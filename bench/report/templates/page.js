"use strict";
// Sorts and filters tables, and highlights methods in figures, on the report and on the site. Without it a page shows the
// same numbers. It uses no library, so that it stays small and can be read within the page.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const made = document.createElement(tag);
  made.textContent = text;
  parent?.append(made);
  return made;
};

// Tables

const numeric = (run) => {
  const text = run.dataset.v ?? run.textContent.trim();
  const found = /^[+-]?(inf|\d)/.test(text) ? parseFloat(text.replace("inf", "Infinity")) : NaN;
  return { found, text, missing: ["", "nan", "–"].includes(text) };
};

const order = (one, other, sign) => {
  if (one.missing || other.missing) return one.missing - other.missing; // missing values come last in both directions
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

// Shows the rows of a dataset and a method that have all words, and says how many they are.
const narrow = (rows, text, dataset, method) => {
  const words = text.toLowerCase().split(/\s+/);
  const kept = (row) =>
    (!dataset || row.dataset.dataset === dataset) &&
    (!method || row.dataset.method === method) &&
    words.every((word) => row.textContent.toLowerCase().includes(word));
  for (const row of rows) row.hidden = !kept(row);
  return `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
};

const filter = (form) => {
  const rows = [...form.parentElement.querySelector(`[data-filters="${form.id}"]`).tBodies[0].rows];
  const apply = () => {
    const { text, dataset, method } = Object.fromEntries(new FormData(form));
    form.querySelector("output").value = narrow(rows, text, dataset, method);
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
};

// Copying code, and highlighting methods

const copyable = (block) => {
  const button = make("button", "Copy", block);
  button.type = "button";
  button.addEventListener("click", async () => {
    const text = block.querySelector("pre");
    getSelection().selectAllChildren(text);
    await navigator.clipboard?.writeText(text.textContent).catch(() => undefined); // if refused, the text stays selected
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

all("table[data-filters]").forEach(sortable);
all("form.filters[hidden]").forEach(filter);
all(".code").forEach(copyable);
for (const legend of all(".legend")) {
  legend.hidden = false;
  for (const button of all("button", legend)) button.addEventListener("click", () => highlight(button));
}
