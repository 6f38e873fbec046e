// Lists the rows behind a number of the report. page.js comes before it.

// The rows behind a number have the address #rows:dataset:method:name, followed by :other for a comparison. The name is a
// metric, a cost, near-DELTA (the cost to come within DELTA nats of the true model), match (the cost to match the other
// method) or rank. An empty dataset stands for all datasets.

const data = JSON.parse(byId("rows-data").textContent);
const dialog = byId("rows");
const isNumber = (value) => typeof value === "number";
const shown = (value) => (isNumber(value) ? value.toLocaleString("en", { maximumSignificantDigits: 8 }) : (value ?? "–"));
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

const runsOf = (dataset, method) => {
  const places = [data.datasets.indexOf(dataset), data.methods.indexOf(method)];
  return data.runs.filter((run) => (!dataset || run[0] === places[0]) && run[1] === places[1]);
};

const done = (runs) => runs.filter((run) => run[3] === "done");

const column = (name) => {
  for (const [names, at] of [[data.metrics, 7], [data.costs, 6]]) {
    const place = names.findIndex((each) => each[0] === name);
    const [, label, unit] = names[place] ?? [];
    const of = (run) => run[at][place] ?? null;
    if (place >= 0) return { name, label, head: `${label} (${unit})`, cost: at === 6, of, error: (run) => run[8][place] };
  }
  return null;
};

const costs = (unless) => data.costs.map(([name]) => column(name)).filter((each) => each.name !== unless.name);

// Code of pandas that selects the same rows from the study's folder

const doneCode = (dataset, methods) => {
  const of = dataset ? `(t.dataset == ${JSON.stringify(dataset)}) & ` : "";
  const chosen = `${of}t.method.isin([${methods.map((text) => JSON.stringify(text)).join(", ")}])`;
  return `import pandas as pd\ndone = pd.read_parquet("runs.parquet").loc[lambda t: (t.status == "done") & ${chosen}]\n`;
};

const checkpointsCode = (dataset, methods) =>
  `${doneCode(dataset, methods)}rows = pd.read_parquet("measurements.parquet").merge(done[["dataset", "method", "seed"]])\n`;

const lastCode = (dataset, methods) => `${checkpointsCode(dataset, methods)}\
last = rows[rows.checkpoint == rows.groupby(["dataset", "method", "seed"]).checkpoint.transform("max")]\n`;

const code = (dataset, methods, { name, cost }) => {
  if (cost) return `${doneCode(dataset, methods)}done[["dataset", "method", "seed", ${JSON.stringify(name)}]]`;
  const metrics = name === "index_kl_ratio" ? ["index_kl", "index_kl_floor"] : [name];
  return `${lastCode(dataset, methods)}last[last.metric.isin([${metrics.map((each) => JSON.stringify(each)).join(", ")}])]`;
};

// What the dialog shows: headings, lines, a summary, and the code of pandas

const ofOne = ({ dataset, method, runs, what }) => {
  const values = done(runs).map(what.of);
  const known = values.filter(isNumber);
  const all = known.length && known.length === values.length;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const each = new Map();
  for (const run of done(runs)) each.set(run[0], [...(each.get(run[0]) ?? []), what.of(run)]);
  const middle = dataset ? `median ${shown(median(known))}` : `mean over datasets of medians ${shown(mean([...each.values()].map(median)))}`;
  const where = dataset ? [] : ["dataset"];
  const error = what.cost ? [] : ["standard error"];
  const other = costs(what);
  return {
    label: what.label,
    headings: [...where, "seed", "status", "checkpoint", what.head, ...error, ...other.map((each) => each.head), "run"],
    lines: runs.map((run) => [
      ...where.map(() => data.datasets[run[0]]), run[2], run[3], run[4], what.of(run),
      ...error.map(() => what.error(run)), ...other.map((each) => each.of(run)), run[5],
    ]),
    says: all
      ? `Over ${values.length} finished seeds: ${middle}, least ${shown(low)}, greatest ${shown(high)}.`
      : `${known.length} of ${values.length} finished seeds have a value.`,
    code: code(dataset, [method], what),
  };
};

const ofTwo = ({ dataset, method, other, runs, what }) => {
  const theirs = new Map(done(runsOf(dataset, other)).map((run) => [run[2], run]));
  const pairs = done(runs).filter((run) => theirs.has(run[2])).map((run) => [run, theirs.get(run[2])]);
  const values = pairs.map((pair) => pair.map(what.of)).filter((each) => each.every(isNumber));
  const apart = ([mine, its]) => (isNumber(mine) && isNumber(its) ? (what.cost ? mine / its : mine - its) : null);
  const middle = [0, 1].map((place) => median(values.map((each) => each[place])));
  const says = what.cost
    ? `medians ${shown(middle[0])} and ${shown(middle[1])}, which is ${shown(apart(middle))} times as much`
    : `the median difference is ${shown(median(values.map(apart)))}`;
  return {
    label: what.label,
    headings: ["seed", method, other, what.cost ? "times" : "difference", `run of ${method}`, `run of ${other}`],
    lines: pairs.map((pair) => [pair[0][2], ...pair.map(what.of), apart(pair.map(what.of)), ...pair.map((run) => run[5])]),
    says: `${what.head}, over ${values.length} shared seeds: ${says}.`,
    code: code(dataset, [method, other], what),
  };
};

const near = ({ dataset, method, name, runs }) => {
  const delta = Number(name.slice("near-".length));
  const places = data.near.flatMap(([, each], place) => (each === delta ? [place] : []));
  const missed = (value) => value < 0 || Object.is(value, -0); // a minus sign marks a censored cost
  const spelled = (value) => (isNumber(value) && missed(value) ? `not within ${shown(-value)}` : value);
  const gap = column("oracle_gap");
  const ended = done(runs);
  if (!gap || !places.length) return null;
  return {
    label: `cost to come within ${delta} nats`,
    headings: ["seed", "status", `final ${gap.head}`, ...places.map((place) => column(data.near[place][0]).head), "run"],
    lines: runs.map((run) => [run[2], run[3], gap.of(run), ...places.map((place) => spelled(run[9][place])), run[5]]),
    says: `${ended.filter((run) => !missed(run[9][places[0]])).length} of ${ended.length} finished seeds reached it.`,
    code: `${checkpointsCode(dataset, [method])}near = rows[(rows.metric == "oracle_gap") & (rows.value <= ${delta})]
near.sort_values("checkpoint").drop_duplicates(["dataset", "method", "seed"])`,
  };
};

const match = ({ dataset, method, other }) => {
  const link = all("#comparisons a").find((each) => each.hash === location.hash);
  if (!link) return null;
  const lines = JSON.parse(link.closest("tr").dataset.match);
  const reached = lines.filter((line) => isNumber(line[2])).length;
  const keys = [method, other].map((name) => new Map(done(runsOf(dataset, name)).map((run) => [run[2], run[5]])));
  return {
    label: "cost to match",
    headings: [
      "seed", ...["wall_s", "flops"].map((name) => `${column(name).label}, times that of ${other}`),
      `run of ${method}`, `run of ${other}`,
    ],
    lines: lines.map((line) => [...line.map((value) => value ?? "not reached"), ...keys.map((of) => of.get(line[0]))]),
    says: `The cost at which ${method} first reaches the final test log-likelihood of ${other} less 0.01 nats, divided by the cost at which \
${other} first reaches it: ${reached} of ${lines.length} shared seeds reach it. The code selects all checkpoints.`,
    code: `${checkpointsCode(dataset, [method, other])}rows[rows.metric == "test_ll"].sort_values(["seed", "method", "checkpoint"])`,
  };
};

const rank = ({ method, runs }) => {
  const what = column("test_ll");
  const among = new Set(data.ranked.map((name) => data.methods.indexOf(name)));
  const placed = (run) => {
    const rivals = data.runs.filter((each) => each[0] === run[0] && each[2] === run[2] && among.has(each[1]));
    const values = done(rivals).map(what.of).filter(isNumber);
    const own = run[3] === "done" ? what.of(run) : null;
    if (!isNumber(own)) return (values.length + 1 + among.size) / 2; // unfinished runs share the last ranks
    return 0.5 + values.filter((value) => value > own).length + values.filter((value) => value === own).length / 2;
  };
  const lines = runs.map((run) => [data.datasets[run[0]], run[2], run[3], what.of(run), placed(run), run[5]]);
  const means = data.datasets.map((name) => lines.filter((line) => line[0] === name).map((line) => line[4]));
  return {
    label: "mean rank",
    headings: ["dataset", "seed", "status", what.head, `rank among ${among.size}`, "run"],
    lines,
    says: `The mean over seeds, then over datasets: ${shown(mean(means.filter((each) => each.length).map(mean)))}.`,
    code: `${lastCode("", data.ranked)}\
ends = last[last.metric == "test_ll"].pivot_table(index=["dataset", "seed"], columns="method", values="value")
ends.rank(axis=1, ascending=False)[${JSON.stringify(method)}]`,
  };
};

const view = (asked) => {
  if (asked.name.startsWith("near-")) return near(asked);
  const named = { match, rank }[asked.name];
  if (named) return named(asked);
  return asked.what && (asked.other === undefined ? ofOne(asked) : ofTwo(asked));
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

const follow = () => {
  const [kind, dataset, method, name, other] = location.hash.slice(1).split(":").map(decodeURIComponent);
  const runs = kind === "rows" ? runsOf(dataset, method) : [];
  const found = runs.length && name && view({ dataset, method, name, other, runs, what: column(name) });
  if (!found) return dialog.open && dialog.close();
  const names = other === undefined ? method : `${method} ${name === "test_ll" ? "less" : "against"} ${other}`;
  byId("rows-title").textContent = `${dataset || "all datasets"} · ${names} · ${found.label}`;
  byId("rows-what").textContent = found.says;
  byId("rows-code").textContent = found.code;
  fill(found.headings, found.lines);
  if (!dialog.open) dialog.showModal();
};

byId("rows-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => location.hash && history.replaceState(null, "", location.href.split("#")[0]));
addEventListener("hashchange", follow);
follow();
