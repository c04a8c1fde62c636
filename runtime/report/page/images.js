// Every image of one run: a table that sorts and filters.
const table = { run: null, sort: "index", down: false, page: 0, rows: [] };
const PAGE = 25;
const COLUMNS = [
  { key: "index", name: "image", value: (run, i) => run.index[i] },
  { key: "outcome", name: "outcome", words: true, value: outcome, cell: (v) => make("span", { class: "tag " + OUTCOMES[v][1] }, v) },
  { key: "radius", name: "certified radius", needs: "radius", value: (run, i) => run.radius[i], text: (v) => floor(v) },
  { key: "truth", name: "true label", words: true, value: (run, i) => className(run.truth[i]) },
  { key: "label", name: "prediction", words: true, needs: "label", value: answerName },
  { key: "sigma", name: "σ", needs: "route", value: (run, i) => run.sigmas[run.route[i]], text: plain },
  { key: "routeRadius", name: "route radius", needs: "routeRadius", value: (run, i) => run.routeRadius[i] ?? Infinity, text: (v) => (v === Infinity ? "∞" : floor(v)) },
  { key: "classRadius", name: "class radius", needs: "classRadius", value: (run, i) => run.classRadius[i], text: (v) => floor(v) },
  { key: "limits", name: "limited by", words: true, needs: "routeRadius", value: (run, i) => ((run.routeRadius[i] ?? Infinity) < run.classRadius[i] ? "router" : "classifier") },
  { key: "pA", name: "p_A ≥", needs: "pA", value: (run, i) => run.pA[i] ?? 0.5, text: (v) => (v <= 0.5 ? "≤ 0.5" : floor(v, 4)) },
  { key: "passes", name: "passes", needs: "passes", value: (run, i) => run.passes[i], text: whole },
  { key: "seconds", name: "seconds", needs: "seconds", value: (run, i) => run.seconds[i] ?? -1, text: (v) => (v < 0 ? "" : v.toFixed(2)) },
];
const columns = (run) => COLUMNS.filter((c) => !c.needs || run[c.needs]);

function images() {
  const runs = DATA.runs.filter((run) => run.label);
  if (!runs.length) { byId("images").hidden = true; return; }
  table.run = runs.find((run) => /interval/.test(run.name)) || runs[0];
  const field = (text, control) => make("label", {}, text, control);
  const options = (id, all, values, names) => make("select", { id }, make("option", { value: "" }, all), values.map((v, i) => make("option", { value: v }, names[i])));
  const run = make("select", { id: "f-run" }, runs.map((r) => make("option", { value: DATA.runs.indexOf(r), selected: r === table.run }, r.name)));
  const truths = [...new Set(runs.flatMap((r) => r.truth))].sort((a, b) => a - b);
  const labels = [...new Set(runs.flatMap((r) => r.label))].filter((c) => c >= 0).sort((a, b) => a - b);
  const sigmas = [...new Set(runs.flatMap((r) => r.sigmas || []))].sort((a, b) => a - b);
  show("filters",
    runs.length > 1 ? field("run", run) : null,
    field("outcome", options("f-outcome", "any", Object.keys(OUTCOMES), Object.keys(OUTCOMES))),
    field("true label", options("f-truth", "any", truths, truths.map(className))),
    field("prediction", options("f-label", "any", labels, labels.map(className))),
    sigmas.length > 1 ? field("σ", options("f-sigma", "any", sigmas, sigmas.map(plain))) : null,
    table.run.routeRadius ? field("limited by", options("f-limits", "any", ["router", "classifier"], ["router", "classifier"])) : null,
    field("radius from", make("input", { id: "f-low", type: "number", min: 0, step: 0.05, placeholder: "0" })),
    field("to", make("input", { id: "f-high", type: "number", min: 0, step: 0.05, placeholder: "any" })),
    field("image number", make("input", { id: "f-index", type: "number", min: 0, placeholder: "any" })),
    make("button", { type: "reset" }, "Clear"));
  byId("filters").addEventListener("input", () => { if (runs.length > 1) table.run = DATA.runs[run.value]; table.page = 0; fillTable(); });
  byId("filters").addEventListener("reset", (event) => { event.preventDefault(); for (const c of byId("filters").querySelectorAll("input, select:not(#f-run)")) c.value = ""; table.page = 0; fillTable(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  show("images-tools", make("button", { type: "button", onclick: () => saveRows() }, "CSV"));
  const left = DATA.pictures && DATA.pictures.left_out;
  byId("images-note").textContent = (DATA.pictures ? "" : "Pass the data set to the report (--dataset) to see the images here. ") + (left ? `${left} images have no picture here, to keep this page small. ` : "") +
    "Click a column to sort, a row for the image, its certificate and noisy copies.";
  fillTable();
}
function filtered() {
  const run = table.run, value = (id) => (byId(id) ? byId(id).value : "");
  const number = (id, otherwise) => (value(id) === "" ? otherwise : Number(value(id)));
  const low = number("f-low", -Infinity), high = number("f-high", Infinity);
  const column = COLUMNS.find((c) => c.key === table.sort);
  const rows = run.index.map((_, i) => i).filter((i) =>
    (!value("f-outcome") || outcome(run, i) === value("f-outcome")) && (!value("f-truth") || run.truth[i] === Number(value("f-truth"))) &&
    (!value("f-label") || run.label[i] === Number(value("f-label"))) && (!value("f-sigma") || (run.route && run.sigmas[run.route[i]] === Number(value("f-sigma")))) &&
    (!value("f-limits") || (run.routeRadius && COLUMNS.find((c) => c.key === "limits").value(run, i) === value("f-limits"))) &&
    run.radius[i] >= low && run.radius[i] <= high && (value("f-index") === "" || run.index[i] === number("f-index")));
  const order = (a, b) => { const x = column.value(run, a), y = column.value(run, b); return x < y ? -1 : x > y ? 1 : 0; };
  return rows.sort((a, b) => (table.down ? -order(a, b) : order(a, b)) || run.index[a] - run.index[b]);
}
function fillTable() {
  const run = table.run, shown = columns(run);
  if (!shown.some((c) => c.key === table.sort)) table.sort = "index";
  table.rows = filtered();
  const pages = Math.max(1, Math.ceil(table.rows.length / PAGE));
  table.page = Math.min(table.page, pages - 1);
  const here = table.rows.slice(table.page * PAGE, (table.page + 1) * PAGE);
  const sortBy = (key) => { table.down = table.sort === key ? !table.down : false; table.sort = key; table.page = 0; fillTable(); byId("images-table").querySelector("th[aria-sort] button").focus(); };
  const head = make("tr", {}, DATA.pictures ? make("th", {}, make("span", { hidden: true }, "picture")) : null, shown.map((c) => make("th", {
    scope: "col", class: c.words ? "words" : null, "aria-sort": table.sort === c.key ? (table.down ? "descending" : "ascending") : null,
  }, make("button", { type: "button", onclick: () => sortBy(c.key) }, c.name + (table.sort === c.key ? (table.down ? " ▾" : " ▴") : "")))));
  const body = here.map((i) => make("tr", { "data-index": run.index[i], onclick: () => openDetail(run, i) },
    DATA.pictures ? make("td", {}, thumbnail(run.index[i])) : null,
    shown.map((c) => {
      const v = c.value(run, i);
      if (c.key === "index") return make("td", {}, make("button", { type: "button", "aria-label": `Open image ${v}` }, v));
      return make("td", { class: c.words ? "words" : null }, c.cell ? c.cell(v) : c.text ? c.text(v) : v);
    })));
  show("images-table", make("thead", {}, head), make("tbody", {}, body));
  const good = table.rows.filter((i) => run.good[i] > 0);
  byId("images-count").textContent = `${whole(table.rows.length)} of ${whole(run.size)} images` + (table.rows.length ? `; ${percent(good.length / table.rows.length)} of them correct and certified` + (good.length && !run.decided ? `, these with a median radius of ${floor(median(good.map((i) => run.good[i])))}` : "") : "");
  const go = (step) => { table.page += step; fillTable(); };
  show("pager", make("button", { type: "button", disabled: table.page === 0, onclick: () => go(-1) }, "‹ Previous"),
    `${whole(Math.min(table.page * PAGE + 1, table.rows.length))}–${whole(Math.min((table.page + 1) * PAGE, table.rows.length))} of ${whole(table.rows.length)}`,
    make("button", { type: "button", disabled: table.page >= pages - 1, onclick: () => go(1) }, "Next ›"));
}
function pictureUrl(index) {
  const png = DATA.pictures && DATA.pictures.png[index];
  return png ? "data:image/png;base64," + png : null;
}
function thumbnail(index) {
  const url = pictureUrl(index);
  return url && make("img", { class: "thumb", src: url, alt: "", loading: "lazy" });
}
function saveRows() {
  const run = table.run, shown = columns(run);
  save("images.csv", csv([shown.map((c) => c.name), ...filtered().map((i) => shown.map((c) => { const v = c.value(run, i); return v === Infinity ? "inf" : v; }))]), "text/csv");
}
