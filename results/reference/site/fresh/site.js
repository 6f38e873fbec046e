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

// The site's own: the table explorer, and addresses that keep a view. All numbers are on the page already; this only
// shows, hides and orders them. page.js comes before it.

const state = () => new URLSearchParams(location.hash.slice(1));
const keep = (entries) => {
  const shown = new URLSearchParams(entries.filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}${location.search}${[...shown].length ? `#${shown}` : ""}`);
};

// Curves: the address #axis=wall_s&methods=mapa,vae chooses the cost and highlights methods. Methods are separated by
// commas that are no part of a name's brackets.

const listed = (text) => (text ?? "").split(/,(?![^[]*\])/).filter(Boolean);

const curvesView = () => {
  const asked = state();
  for (const input of all(`.axes input[value="${CSS.escape(asked.get("axis") ?? "")}"]`)) input.checked = true;
  for (const name of listed(asked.get("methods"))) {
    for (const button of all(".panel .legend button")) {
      if (button.dataset.method === name && button.getAttribute("aria-pressed") === "false") highlight(button);
    }
  }
};

const keepCurves = () => {
  const axis = document.querySelector(".axes input:checked").value;
  const pressed = all('.panel .legend [aria-pressed="true"]').map((each) => each.dataset.method);
  keep([["axis", axis === "flops" ? "" : axis], ["methods", [...new Set(pressed)].join(",")]]);
};

if (document.querySelector(".panel")) {
  curvesView();
  for (const panel of all(".panel")) {
    panel.addEventListener("change", (event) => {
      for (const each of all(`.axes input[value="${event.target.value}"]`)) each.checked = true;
      keepCurves();
    });
    panel.querySelector(".legend").addEventListener("click", keepCurves);
  }
  addEventListener("hashchange", curvesView);
}

// The explorer: the address #table=results&sort=-FLOPs&columns=dataset|FLOPs&dataset=circle&method=mapa&text=word keeps
// the view. A minus sign sorts downwards.

const explorer = (root) => {
  const { tables, links } = JSON.parse(byId("tables-data").textContent);
  const [table, form, boxes] = ["table", "form", ".columns-of fieldset"].map((selector) => root.querySelector(selector));
  const select = root.querySelector(".views select");
  const headings = () => all("thead th", table);
  let shown = null;

  const cellOf = (tag, packed, row) => {
    const [text, small, value, best, style] = [packed].flat();
    const cell = make(tag, "", row);
    const holder = best ? make("b", "", cell) : cell;
    if (best) holder.className = "best";
    if (links[text]) make("a", text, holder).href = links[text];
    else holder.append(text);
    if (small) make("small", small, cell);
    if (typeof value === "number") cell.dataset.v = value;
    if (style) cell.className = style;
    return cell;
  };

  const build = (chosen) => {
    shown = chosen;
    table.replaceChildren();
    table.setAttribute("aria-label", chosen.label);
    const head = make("tr", "", make("thead", "", table));
    for (const [, heading, unit, meaning, number] of chosen.columns) {
      const cell = make("th", heading, head);
      cell.className = number ? "" : "name";
      cell.scope = "col";
      cell.title = meaning;
      if (unit) make("small", unit, cell);
    }
    const body = make("tbody", "", table);
    for (const [dataset, method, ...cells] of chosen.rows) {
      const row = make("tr", "", body);
      Object.assign(row.dataset, { dataset, method });
      for (const [place, cell] of cells.entries()) {
        if (place === chosen.head) cellOf("th", cell, row).scope = "row";
        else cellOf("td", cell, row);
      }
    }
    sortable(table);
    for (const heading of headings()) heading.addEventListener("click", keepView);
    for (const [at, name] of ["dataset", "method"].entries()) {
      const names = [...new Set(chosen.rows.map((row) => row[at]))].filter(Boolean);
      form.elements[name].replaceChildren();
      for (const text of ["", ...names]) make("option", text || "all", form.elements[name]).value = text;
    }
    for (const old of all("label", boxes)) old.remove();
    for (const [place, [name, heading, unit]] of chosen.columns.entries()) {
      if (place === chosen.head) continue;
      const label = make("label", "", boxes);
      const box = make("input", "", label);
      Object.assign(box, { type: "checkbox", value: place, name, checked: !chosen.hidden.includes(place) });
      label.append(` ${heading}`);
      if (unit) make("small", unit, label);
    }
  };

  const showRows = () => {
    const { text, dataset, method } = Object.fromEntries(new FormData(form));
    form.querySelector("output").value = narrow([...table.tBodies[0].rows], text, dataset, method);
  };

  const showColumns = () => {
    for (const box of all("input", boxes)) {
      for (const row of table.rows) row.cells[Number(box.value)].hidden = !box.checked;
    }
  };

  const keepView = () => {
    const place = headings().findIndex((each) => each.getAttribute("aria-sort") !== "none");
    const down = place >= 0 && headings()[place].getAttribute("aria-sort") === "descending";
    const columns = all("input", boxes).filter((box) => box.checked);
    const usual = all("input", boxes).every((box) => box.checked !== shown.hidden.includes(Number(box.value)));
    keep([
      ["table", shown.name],
      ["sort", place >= 0 ? `${down ? "-" : ""}${shown.columns[place][0]}` : ""],
      ["columns", usual ? "" : columns.map((box) => box.name).join("|")],
      ...["dataset", "method", "text"].map((name) => [name, form.elements[name].value]),
    ]);
  };

  const showView = () => {
    const asked = state();
    build(tables.find((each) => each.name === asked.get("table")) ?? tables[0]);
    select.value = shown.name;
    const columns = asked.get("columns")?.split("|");
    if (columns) for (const box of all("input", boxes)) box.checked = columns.includes(box.name);
    for (const name of ["dataset", "method", "text"]) form.elements[name].value = asked.get(name) ?? "";
    showColumns();
    showRows();
    const [, down, name] = /^(-?)(.*)$/s.exec(asked.get("sort") ?? "");
    const place = shown.columns.findIndex((each) => name && each[0] === name);
    for (let times = 0; place >= 0 && times < (down ? 2 : 1); times += 1) sort(table, headings()[place], place);
  };

  for (const each of tables) make("option", each.label, select).value = each.name;
  select.addEventListener("change", () => {
    keep([["table", select.value]]);
    showView();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => (showRows(), keepView()));
  boxes.addEventListener("input", () => (showColumns(), keepView()));
  const button = root.querySelector(".views button");
  button.addEventListener("click", async () => {
    const before = button.textContent;
    await navigator.clipboard?.writeText(location.href).catch(() => undefined); // if refused, the address bar has it
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = before), 2000);
  });
  root.hidden = false;
  addEventListener("hashchange", showView);
  showView();
};

all(".explorer").forEach(explorer);
