// Key figures, curves with their bands, the table at the standard radii, and the comparison of two runs.
function summary() {
  const run = DATA.runs[DATA.lead];
  const tile = (value, text, range) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, text), range ? make("span", { class: "range" }, range) : null);
  const at = [0, 0.25, 0.5, 1].filter((r) => known(run, r) && DATA.at.some((a) => Math.abs(a - r) < 1e-9));
  const radii = at.length ? at : DATA.at.slice(0, 4);
  const tiles = radii.filter((r) => known(run, r)).slice(0, 4).map((r) => {
    const k = certified(run, r);
    const text = r === 0 ? "correct, with some certificate (r\u00a0>\u00a00)" : `correct and certified at r\u00a0=\u00a0${plain(r)}`;
    return tile(percent(k / run.size), text, `${(100 * run.low[k]).toFixed(0)} to ${percent(run.high[k], 0)}`);
  });
  if (!run.decided && run.sorted.length) tiles.push(tile(floor(median(run.sorted)), "median certified radius (L2) of the images that are correct and certified"));
  if (run.passes) tiles.push(tile(whole(mean(run.passes)), run.full ? "passes an image: every level was sampled, to compare rules" : "passes an image, on average"));
  show("summary", tiles);
  byId("summary-note").textContent = (DATA.runs.length > 1 ? `Key figures of the run “${run.name}”; all ${DATA.runs.length} runs are below. ` : "") + conditions(run) +
    `. Ranges: ${percent(DATA.level, 0)} intervals for the share of all such images.`;
}

function legend() {
  show("legend", DATA.runs.map((run) => make("button", {
    type: "button", "aria-pressed": String(run.visible),
    onclick: () => { run.visible = !run.visible; legend(); curves(); byId("legend").children[DATA.runs.indexOf(run)].focus(); },
  }, draw("svg", { width: 26, height: 10, "aria-hidden": "true" }, draw("line", { x1: 1, x2: 25, y1: 5, y2: 5, stroke: run.color, "stroke-width": 3, "stroke-dasharray": dash(run) })), run.name)));
}
// What the names in the legend stand for, so that a reader need not know them.
function meanings() {
  const texts = new Map(DATA.legends.map((legend) => [legend.name, legend.meaning + (legend.dashed ? "; dashed" : "")]));
  const logs = DATA.runs.filter((run) => !run.legend);
  if (logs.length) texts.set(logs.map((run) => run.name).join(", "), "a log in the field's format, taken as it stands");
  show("meanings", [...texts].flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}
function curveKey() {
  const runs = DATA.runs.filter((run) => run.visible), shared = new Set(runs.map(conditions)).size === 1;
  return [[DATA.title], ...(shared ? [[conditions(runs[0])]] : []), ...runs.map((run) => [shared ? run.name : `${run.name} (${conditions(run)})`, { stroke: run.color, "stroke-dasharray": dash(run) }]),
    [`Bands: ${percent(DATA.level, 0)} Clopper–Pearson at each radius`]];
}
const dash = (run) => (run.decided ? "2 4" : run.dashed ? "6 4" : null);

function curves() {
  const runs = DATA.runs.filter((run) => run.visible);
  const far = Math.max(0.25, ...DATA.runs.map((run) => Math.max(run.sorted.at(-1) || 0, ...(run.decided || [0])))) * 1.03;
  const wide = room("curve", 1200);
  const f = frame({ width: wide, height: Math.max(280, Math.round(0.38 * wide)), xMax: far, yMax: 100, xTitle: wide < 600 ? "radius r (L2)" : "radius r: size of the change, L2 norm (pixels from 0 to 1)", xTicks: nice(far, wide < 600 ? 5 : 8),
    yTitle: "certified accuracy (%)", label: "Certified accuracy against radius, a curve for each run; the table below holds the same figures" });
  const line = (points) => points.map(([r, v], i) => `${i ? "L" : "M"}${f.x(r).toFixed(1)} ${f.y(v).toFixed(1)}`).join("");
  const bands = draw("g", {}), lines = draw("g", {});
  for (const run of runs) {
    const steps = run.decided ? run.decided.map((r) => [r, certified(run, r)]) : stairs(run);
    if (run.decided) {
      for (const [r, k] of steps) bands.append(draw("line", { x1: f.x(r), x2: f.x(r), y1: f.y(100 * run.low[k]), y2: f.y(100 * run.high[k]), stroke: run.color, "stroke-width": 5, opacity: 0.3 }));
    } else if (!run.dashed && steps.length) {
      const top = steps.map(([r, k]) => [r, 100 * run.high[k]]), low = steps.map(([r, k]) => [r, 100 * run.low[k]]).reverse();
      bands.append(draw("path", { d: line(top) + line(low).replace("M", "L") + "Z", fill: run.color, "fill-opacity": 0.1, stroke: "none" }));
    }
    const shares = steps.map(([r, k]) => [r, (100 * k) / run.size]);
    lines.append(draw("path", { d: line(shares), fill: "none", stroke: run.color, "stroke-width": run.dashed ? 1.6 : 2.4, "stroke-dasharray": dash(run), "stroke-linejoin": "round" }));
    if (run.decided) for (const [r, v] of shares) lines.append(draw("circle", { cx: f.x(r), cy: f.y(v), r: 4, fill: run.color }));
  }
  const cursor = draw("line", { class: "zero", y1: f.top, y2: f.height - f.bottom, visibility: "hidden" });
  const marks = draw("g", {});
  const area = draw("rect", { x: f.left, y: f.top, width: f.width - f.left - f.right, height: f.height - f.top - f.bottom, fill: "none", "pointer-events": "all", tabindex: 0, role: "slider", "aria-label": "Radius to read the curves at", "aria-valuemin": 0, "aria-valuemax": plain(far), "aria-valuenow": 0 });
  let reading = 0;
  const read = (r, event) => {
    reading = Math.max(0, Math.min(far, r));
    cursor.setAttribute("x1", f.x(reading)); cursor.setAttribute("x2", f.x(reading)); cursor.setAttribute("visibility", "visible");
    marks.replaceChildren();
    const lines = runs.map((run) => {
      if (!known(run, reading) && run.decided) return `${run.name}: not decided here`;
      const k = certified(run, reading);
      marks.append(draw("circle", { cx: f.x(reading), cy: f.y((100 * k) / run.size), r: 4.5, fill: run.color, stroke: "var(--card)", "stroke-width": 1.5 }));
      return `${run.name}: ${percent(k / run.size)} (${percent(run.low[k], 0)} to ${percent(run.high[k], 0)})`;
    });
    const text = `r = ${reading.toFixed(3)}\n${lines.join("\n")}`;
    area.setAttribute("aria-valuenow", reading.toFixed(3)); area.setAttribute("aria-valuetext", text);
    const box = f.svg.getBoundingClientRect();
    tip(event && event.clientX !== undefined ? event : { clientX: box.left + (f.x(reading) * box.width) / f.width, clientY: box.top + 40 }, text);
  };
  const leave = (event) => { cursor.setAttribute("visibility", "hidden"); marks.replaceChildren(); tip(event, ""); };
  area.addEventListener("pointermove", (event) => {
    const box = f.svg.getBoundingClientRect();
    const r = (((event.clientX - box.left) * f.width) / box.width - f.left) / (f.width - f.left - f.right) * far;
    const near = DATA.at.find((a) => Math.abs(a - r) < far / 160);
    read(near === undefined ? r : near, event);
  });
  area.addEventListener("pointerleave", leave);
  area.addEventListener("blur", leave);
  area.addEventListener("focus", () => { if (area.matches(":focus-visible")) read(reading); });
  area.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 0.05, ArrowLeft: -0.05, PageUp: 0.25, PageDown: -0.25 }[event.key];
    if (move === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    read(event.key === "Home" ? 0 : event.key === "End" ? far : Math.round((reading + move) * 100) / 100);
  });
  f.svg.append(bands, lines, cursor, marks, area);
  show("curve-chart", f.svg);
}
// A step function as points [r, certified images]: an image counts up to and including its own radius.
function stairs(run) {
  const points = [[0, run.sorted.length]];
  run.sorted.forEach((r, i) => {
    const before = run.sorted.length - i;
    if (run.sorted[i - 1] !== r) points.push([r, before]);
    points.push([r, before - 1]);
  });
  return points;
}

function radiusTable() {
  const first = new Set(DATA.runs[0].index), same = DATA.runs.every((run) => run.size === first.size && run.index.every((index) => first.has(index)));
  const best = DATA.at.map((r) => Math.max(...DATA.runs.filter((run) => run.label && known(run, r)).map((run) => accuracy(run, r))));
  const head = make("tr", {}, make("th", { scope: "col" }, "certified accuracy (%) at r ="), DATA.at.map((r) => make("th", { scope: "col" }, plain(r))));
  const rows = DATA.runs.map((run) => make("tr", {},
    make("td", {}, swatch(run.color), run.name),
    DATA.at.map((r, i) => {
      if (!known(run, r)) return make("td", { title: "this run was not decided at this radius" }, "–");
      const k = certified(run, r);
      return make("td", { class: same && DATA.runs.length > 1 && run.label && k / run.size === best[i] && k ? "best" : null },
        (100 * k / run.size).toFixed(1), make("small", {}, `${(100 * run.low[k]).toFixed(0)}–${(100 * run.high[k]).toFixed(0)}`));
    })));
  show("radius-table", make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
  const acr = DATA.runs.filter((run) => !run.decided).map((run) => `${run.name} ${mean(run.good.map((r) => Math.max(r, 0))).toFixed(3)}`);
  byId("table-note").textContent = `Small: the ${percent(DATA.level, 0)} interval. ` + (DATA.runs.length < 2 ? "" : same ? "Bold: the best at that radius, the oracle aside. " : "The runs are about different images, so part of what differs is chance; images in common are compared below. ") + (acr.length ? `Average certified radius, a footnote because few large radii dominate it: ${acr.join("; ")}.` : "");
  const cells = (run) => DATA.at.map((r) => (known(run, r) ? (100 * accuracy(run, r)).toFixed(1) : "--"));
  show("table-tools",
    make("button", { type: "button", onclick: () => save("certified-accuracy.csv", csv([["curve", "radius", "images", "certified", "accuracy", "low", "high"],
      ...DATA.runs.flatMap((run) => DATA.at.filter((r) => known(run, r)).map((r) => { const k = certified(run, r); return [run.name, r, run.size, k, (k / run.size).toFixed(6), run.low[k], run.high[k]]; }))]), "text/csv") }, "CSV"),
    make("button", { type: "button", onclick: () => save("certified-accuracy.tex", ["\\begin{tabular}{l" + "r".repeat(DATA.at.length) + "}", "\\toprule",
      "Certified accuracy (\\%) at $r=$ & " + DATA.at.map(plain).join(" & ") + " \\\\", "\\midrule",
      ...DATA.runs.map((run) => [latex(run.name), ...cells(run)].join(" & ") + " \\\\"), "\\bottomrule", "\\end{tabular}", ""].join("\n"), "application/x-tex") }, "LaTeX"));
}
function swatch(color) {
  const key = make("span", { class: "key", "aria-hidden": "true" });
  key.style.background = color;
  return key;
}

function compare() {
  if (DATA.runs.length < 2) return;
  byId("compare").hidden = false;
  const pick = (id, chosen) => {
    byId(id).replaceChildren(...DATA.runs.map((run, i) => make("option", { value: i, selected: i === chosen }, run.name)));
    byId(id).addEventListener("change", drawComparison);
  };
  const last = DATA.runs.length - 1;
  pick("compare-a", last); pick("compare-b", last - 1);
  show("compare-tools", chartTools("compare", () => [[DATA.title], ...["A", "B"].map((side) => [`${side}: ${chosen(side).name}`, { stroke: chosen(side).color }])]));
  drawComparison();
}
const chosen = (side) => DATA.runs[byId("compare-" + side.toLowerCase()).value];
function drawComparison() {
  const a = chosen("A"), b = chosen("B");
  const place = new Map(b.index.map((index, row) => [index, row]));
  const pairs = a.index.flatMap((index, row) => (place.has(index) && b.truth[place.get(index)] === a.truth[row] ? [[a.good[row], b.good[place.get(index)]]] : []));
  if (!pairs.length) { show("compare-chart", make("p", { class: "hint" }, "These two runs have no image in common.")); return; }
  const at = DATA.at.filter((r) => known(a, r) && known(b, r));
  const counts = at.map((r) => {
    const yes = pairs.map(([x, y]) => [x > 0 && x >= r, y > 0 && y >= r]);
    return { r, a: yes.filter(([x, y]) => x && !y).length, b: yes.filter(([x, y]) => y && !x).length, both: yes.filter(([x, y]) => x && y).length };
  });
  const most = Math.max(1, ...counts.map((c) => Math.max(c.a, c.b)));
  const width = room("compare", 1200), tag = (side) => (chosen(side).name.length * 7 < width / 2 - 120 ? chosen(side).name : side);
  const row = 30, middle = Math.round(0.52 * width), span = middle - 150 > 60 ? Math.min(middle - 150, width - middle - 100) : 60, height = 52 + row * counts.length;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Images certified by one of the two runs only: ${counts.map((c) => `at ${plain(c.r)}, ${c.a} by A only, ${c.b} by B only`).join("; ")}` });
  svg.append(draw("text", { class: "strong", x: middle - 10, y: 18, "text-anchor": "end" }, `only ${tag("A")} ◂`), draw("text", { class: "strong", x: middle + 10, y: 18 }, `▸ only ${tag("B")}`),
    draw("text", { x: 4, y: 18 }, "radius"), draw("text", { x: width - 10, y: 18, "text-anchor": "end" }, "both"));
  counts.forEach((c, i) => {
    const y = 32 + row * i, wide = (n) => (span * n) / most;
    svg.append(
      draw("text", { x: 4, y: y + 15 }, "r = " + plain(c.r)),
      draw("rect", { x: middle - wide(c.a), y, width: wide(c.a), height: row - 8, rx: 3, fill: a.color, ...hover(`r = ${plain(c.r)}\nonly ${a.name}: ${c.a} images`) }),
      draw("rect", { x: middle, y, width: wide(c.b), height: row - 8, rx: 3, fill: b.color, ...hover(`r = ${plain(c.r)}\nonly ${b.name}: ${c.b} images`) }),
      draw("text", { x: middle - wide(c.a) - 6, y: y + 15, "text-anchor": "end" }, c.a), draw("text", { x: middle + wide(c.b) + 6, y: y + 15 }, c.b),
      draw("text", { x: width - 10, y: y + 15, "text-anchor": "end" }, c.both));
  });
  svg.append(draw("line", { class: "zero", x1: middle, x2: middle, y1: 26, y2: height - 16 }));
  svg.append(draw("text", { x: middle, y: height - 2, "text-anchor": "middle" }, `${pairs.length} images in common`));
  show("compare-chart", svg);
}
