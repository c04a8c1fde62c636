// Inside one run: chosen levels, route radius against class radius, p_A, and passes.
function inside() {
  const runs = DATA.runs.filter((run) => run.route);
  if (!runs.length) return;
  byId("inside").hidden = false;
  const chosen = runs.find((run) => run === DATA.runs[DATA.lead]) || runs[0];
  const select = byId("inside-run");
  select.replaceChildren(...runs.map((run) => make("option", { value: DATA.runs.indexOf(run), selected: run === chosen }, run.name)));
  byId("inside-picker").hidden = runs.length < 2;
  select.addEventListener("change", () => drawInside(DATA.runs[select.value]));
  for (const name of ["levels", "scatter", "pa", "passes"]) show(name + "-tools", chartTools(name, () => { const run = DATA.runs[select.value]; return [[DATA.title], [`${run.name}: ${conditions(run)}`]]; }));
  drawInside(chosen);
}
function drawInside(run) { levels(run); scatter(run); confidence(run); spent(run); }

function outcomeLegend(svg, x, y) {
  x = Math.max(0, Math.min(x, svg.viewBox.baseVal.width - Object.keys(OUTCOMES).length * 92));
  for (const [name, color] of Object.values(OUTCOMES)) {
    svg.append(draw("rect", { x, y: y - 9, width: 11, height: 11, rx: 2, fill: `var(--${color})` }), draw("text", { x: x + 17, y }, name));
    x += 92;
  }
}

function levels(run) {
  const rows = run.sigmas.map(() => noOutcomes());
  run.route.forEach((level, i) => { rows[level][outcome(run, i)] += 1; });
  const most = Math.max(...rows.map(total)), width = room("levels", 520), height = 46 + 42 * rows.length, left = 86, span = width - left - 74;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": rows.map((row, i) => `${sigmaName(run.sigmas[i])}: ${percent(total(row) / run.size)}`).join("; ") });
  rows.forEach((row, i) => {
    const y = 8 + 42 * i;
    let x = left;
    svg.append(draw("text", { class: "strong", x: left - 10, y: y + 20, "text-anchor": "end" }, sigmaName(run.sigmas[i])));
    for (const [kind, [name, color]] of Object.entries(OUTCOMES)) {
      const wide = (span * row[kind]) / most;
      svg.append(draw("rect", { x, y, width: wide, height: 30, fill: `var(--${color})`, ...hover(`${sigmaName(run.sigmas[i])}, ${name}\n${row[kind]} images, ${percent(row[kind] / run.size)} of all`) }));
      x += wide;
    }
    svg.append(draw("text", { class: "strong", x: x + 8, y: y + 20 }, percent(total(row) / run.size)));
  });
  outcomeLegend(svg, left, height - 12);
  show("levels-chart", svg);
  byId("levels-note").textContent = run.oneLevel === null
    ? "How many images are served by each noise level. Little noise keeps accuracy, much noise reaches large radii."
    : "This run uses one noise level.";
}

function scatter(run) {
  const rows = run.route.map((_, i) => i).filter((i) => run.routeRadius[i] !== null);
  if (!rows.length) {
    byId("scatter-note").textContent = "This run has one noise level, so there is no route that could limit a radius.";
    show("scatter-chart");
    return;
  }
  const far = Math.max(0.1, ...rows.map((i) => Math.max(run.routeRadius[i], run.classRadius[i]))) * 1.04;
  const width = room("scatter", 520), small = width < NARROW, names = run.sigmas.map(sigmaName);
  const places = [[0, 0]]; // of the levels' names above the frame, in as many lines as they need
  for (const name of names) {
    const [x, line] = places.at(-1), wide = 22 + 7 * name.length, fits = x === 0 || x + wide <= width - 64;
    places.splice(-1, 1, fits ? [x, line] : [0, line + 1], fits ? [x + wide, line] : [wide, line + 1]);
  }
  const top = 34 + 18 * (places[names.length - 1][1] + 1);
  const f = frame({ width, height: Math.round(0.7 * width) + 50 + top, left: 48, top, xMax: far, yMax: far, xTicks: nice(far, 6), xTitle: small ? "route radius" : "route radius: how far the noise level stays the same", yTitle: small ? "class radius" : "class radius: how far the label stays", label: "Route radius against class radius of each image" });
  f.svg.append(draw("path", { d: `M${f.x(0)} ${f.y(0)}L${f.x(far)} ${f.y(far)}L${f.x(0)} ${f.y(far)}Z`, fill: "var(--accent)", "fill-opacity": 0.06 }));
  f.svg.append(draw("line", { class: "zero", x1: f.x(0), y1: f.y(0), x2: f.x(far), y2: f.y(far), "stroke-dasharray": "4 4" }));
  for (const i of rows) {
    const kind = outcome(run, i);
    f.svg.append(draw("circle", {
      class: "dot", cx: f.x(run.routeRadius[i]).toFixed(1), cy: f.y(run.classRadius[i]).toFixed(1), r: 4, "fill-opacity": 0.8,
      fill: kind === "correct" ? levelColor(run.route[i], run.sigmas.length) : "none", stroke: kind === "correct" ? "var(--card)" : `var(--${OUTCOMES[kind][1]})`, "stroke-width": kind === "correct" ? 0.6 : 1.5,
      onclick: () => openDetail(run, i), ...hover(`image ${run.index[i]}: ${className(run.truth[i])}\n${kind}, ${sigmaName(run.sigmas[run.route[i]])}\nroute ${floor(run.routeRadius[i])}, class ${floor(run.classRadius[i])}\ncertified ${floor(run.radius[i])}`),
    }));
  }
  f.svg.append(draw("text", { class: "strong", x: f.x(0) + 4, y: f.top - 8 }, small ? "◤ router limits" : "◤ above the line, the router limits"), draw("text", { class: "strong", x: f.width - f.right, y: f.top - 8, "text-anchor": "end" }, small ? "classifier limits ◢" : "below, the classifier ◢"));
  names.forEach((name, level) => {
    const [x, line] = places[level], y = 12 + 18 * line;
    f.svg.append(draw("circle", { cx: f.left + 5 + x, cy: y - 4, r: 5, fill: levelColor(level, names.length) }), draw("text", { x: f.left + 14 + x, y }, name));
  });
  show("scatter-chart", f.svg);
  const router = rows.filter((i) => run.routeRadius[i] < run.classRadius[i]).length;
  const most = Math.max(...rows.map((i) => run.routeRadius[i])), capped = rows.filter((i) => run.routeRadius[i] === most).length;
  const beyond = rows.filter((i) => run.radius[i] > Math.min(run.routeRadius[i], run.classRadius[i]) + 1e-6).length;
  byId("scatter-note").replaceChildren("The router is the bottleneck for ", make("b", {}, percent(router / rows.length, 0)), " of the images, the classifier for the others. ",
    ...(beyond ? [make("b", {}, percent(beyond / rows.length, 0)), " are certified beyond the smaller of the two, because other levels agree on the label. "] : []), (run.decided ? "Sampling stopped when the decisions were settled, so these radii are lower than what more passes would prove. " : "") + "Rings: wrong or abstained. " + (capped > 9 ? "The column at the right is the most that this many passes can prove about the router. " : "") + "Click a point for its certificate.");
}

const P_EDGES = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.000001];
function confidence(run) {
  const short = (p) => String(p).slice(1);
  const names = P_EDGES.map((edge, i) => (i === P_EDGES.length - 1 ? "> " + short(P_EDGES[i - 1]) : "≤ " + short(edge)));
  const bins = names.map(() => noOutcomes());
  run.pA.forEach((p, i) => { bins[p === null ? 0 : Math.max(1, P_EDGES.findIndex((edge) => p < edge))][outcome(run, i)] += 1; });
  histogram("pa", bins, names, run.size, "lower bound of p_A, the probability of the label under noise", (i) => (i === 0 ? "p_A not above 1/2: no class radius" : `p_A from ${P_EDGES[i - 1]} to ${Math.min(1, P_EDGES[i])}`));
  const full = Math.max(...run.pA.map((p) => p || 0));
  byId("pa-note").textContent = `The proved lower bound of p_A at the chosen level; class radius = σ Φ⁻¹(p_A). ${percent(run.pA.filter((p) => p !== null && p > 0.99).length / run.size, 0)} of the images are above 0.99; the most that this many passes can prove here is ${full.toFixed(4)}.`;
}
function histogram(name, bins, names, size, title, describe) {
  const top = Math.max(...bins.map(total)) / size, width = room(name, 520), small = width < NARROW;
  if (small) title = title.split(",")[0];
  const f = frame({ width, height: 330, bottom: 62, xMax: bins.length, yMax: 100 * top * 1.08, xTicks: [], xTitle: title, yTitle: "images (%)", label: `Histogram; ${bins.map((bin, i) => `${names[i]}: ${total(bin)}`).join("; ")}` });
  bins.forEach((bin, i) => {
    let base = 0;
    for (const [kind, [label, color]] of Object.entries(OUTCOMES)) {
      const share = (100 * bin[kind]) / size;
      f.svg.append(draw("rect", { x: f.x(i) + 2, width: f.x(1) - f.x(0) - 4, y: f.y(base + share), height: f.y(base) - f.y(base + share), fill: `var(--${color})`, ...hover(`${describe(i)}\n${label}: ${bin[kind]} images, ${percent(bin[kind] / size)}`) }));
      base += share;
    }
    if (names[i]) f.svg.append(draw("text", { class: small ? "tiny" : null, x: f.x(i + 0.5), y: f.height - f.bottom + 17, "text-anchor": "middle" }, small ? names[i].replace("≤ ", "").replace(" ", "") : names[i]));
  });
  outcomeLegend(f.svg, f.left + 6, f.height - 26);
  f.svg.querySelectorAll("text").forEach((t) => { if (t.textContent === title) t.setAttribute("y", f.height - 4); });
  show(name + "-chart", f.svg);
}

function spent(run) {
  const stages = ["estimator", ...run.sigmas.map((s) => "classifier, " + sigmaName(s))];
  const means = stages.map((_, k) => mean(run.spent.map((row) => row[k])));
  const drawn = stages.map((_, k) => k).filter((k) => k || means[k]);  // one level has no router
  const all = mean(run.passes), width = room("passes", 520), parts = [];
  const varied = new Set(run.passes).size > 1;
  byId("passes-note").textContent = `${whole(all)} passes an image on average, ${whole(median(run.passes))} in the median` + (varied ? "." : "; every image cost the same.") +
    (run.full && run.sigmas.length > 1 ? " Every level was sampled in full, so that rules can be compared; certifying under one rule takes fewer." : "");
  const height = 34 + 34 * drawn.length, left = 140;
  const most = Math.max(...means, 1);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": drawn.map((k) => `${stages[k]}: ${whole(means[k])} passes an image`).join("; ") });
  svg.append(draw("text", { x: width < NARROW ? 0 : left, y: 14 }, "mean passes an image"));
  drawn.forEach((k, row) => {
    const name = stages[k], y = 26 + 34 * row, wide = ((width - left - 110) * means[k]) / most;
    svg.append(draw("text", { class: "strong", x: left - 10, y: y + 17, "text-anchor": "end" }, name),
      draw("rect", { x: left, y, width: Math.max(wide, 1), height: 24, rx: 3, fill: k ? levelColor(k - 1, run.sigmas.length) : "var(--s1)", ...hover(`${name}\n${whole(means[k])} passes an image, ${percent(means[k] / all)} of all\nsampled for ${percent(run.spent.filter((row) => row[k]).length / run.size, 0)} of the images`) }),
      draw("text", { x: left + wide + 8, y: y + 17 }, `${whole(means[k])} (${percent(means[k] / all, 0)})`));
  });
  parts.push(svg);
  if (varied) parts.push(spentHistogram(run));
  show("passes-chart", parts);
}
function spentHistogram(run) {
  const low = Math.log10(Math.min(...run.passes)), high = Math.log10(Math.max(...run.passes)) + 1e-6, count = 18;
  const bins = Array(count).fill(0);
  run.passes.forEach((n) => { bins[Math.min(count - 1, Math.floor((count * (Math.log10(n) - low)) / (high - low)))] += 1; });
  const edge = (i) => 10 ** (low + ((high - low) * i) / count);
  const short = (n) => (n >= 1e6 ? +(n / 1e6).toPrecision(2) + "M" : n >= 1000 ? +(n / 1000).toPrecision(2) + "k" : String(Math.round(n)));
  const f = frame({ width: room("passes", 520), height: 220, xMax: count, yMax: (100 * Math.max(...bins)) / run.size * 1.08, xTicks: [0, 3, 6, 9, 12, 15, 18], xText: (i) => short(edge(i)), xTitle: "passes of an image (logarithmic)", yTitle: "images (%)", label: "Histogram of the passes of each image" });
  bins.forEach((n, i) => f.svg.append(draw("rect", { x: f.x(i) + 1.5, width: f.x(1) - f.x(0) - 3, y: f.y((100 * n) / run.size), height: f.y(0) - f.y((100 * n) / run.size), rx: 2, fill: "var(--accent)", ...hover(`${whole(edge(i))} to ${whole(edge(i + 1))} passes\n${n} images, ${percent(n / run.size)}`) })));
  return f.svg;
}
