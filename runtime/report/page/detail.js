// One image: its picture, its certificate, its votes, and noisy copies at a level that the reader chooses.
const detail = { run: null, row: 0, draws: 0 };

function openDetail(run, row) {
  detail.run = run; detail.row = row; detail.draws = 0;
  tip({}, "");
  fillDetail();
  if (!byId("detail").open) byId("detail").showModal();
}
function step(by) {
  const order = table.run === detail.run && table.rows.includes(detail.row) ? table.rows : detail.run.index.map((_, i) => i);
  const next = order.indexOf(detail.row) + by;
  if (next >= 0 && next < order.length) openDetail(detail.run, order[next]);
}
function fillDetail() {
  const { run, row } = detail, index = run.index[row], kind = outcome(run, row), url = pictureUrl(index);
  const close = make("button", { type: "button", onclick: () => byId("detail").close() }, "Close");
  const head = make("div", { class: "bar" }, make("h2", { id: "detail-title" }, `Image ${index}: ${className(run.truth[row])}`),
    make("span", { class: "tools" }, make("button", { type: "button", onclick: () => step(-1), "aria-label": "Previous image" }, "‹"), make("button", { type: "button", onclick: () => step(1), "aria-label": "Next image" }, "›"), close));
  const words = { correct: ["Predicted ", `, and no change smaller than ${floor(run.radius[row])} (L2) can alter that${run.alpha ? `, with confidence ${plain(100 * (1 - run.alpha))} %` : ""}.`], wrong: ["Predicted ", `: wrong, yet certified up to ${floor(run.radius[row])}.`], group: ["Not a label, but ", `, certified up to ${floor(run.radius[row])}.`], abstained: ["", run.label && run.label[row] < 0 ? `No certificate: the votes do not settle ${run.classRadii?.[row]?.[run.route[row]] > 0 ? "the noise level, whose classifiers do not share a label" : "the label"}.` : ""] }[kind];
  const verdict = make("p", { class: "verdict" }, make("span", { class: "tag " + OUTCOMES[kind][1] }, kind), " ", words[0], kind === "abstained" ? "" : make("b", {}, answerName(run, row)), words[1]);
  const left = make("div", {}, url ? make("img", { class: "picture", src: url, alt: `Image ${index}, ${className(run.truth[row])}` }) : make("p", { class: "hint" }, "No picture: pass the data set to the report with --dataset."));
  if (url && run.sigmas) left.append(...noisyCopies(url));
  const right = make("div", {}, verdict);
  if (run.route) right.append(certificateChart(run, row), certificateFacts(run, row), ...voteTables(run, index));
  show("detail", head, make("div", { class: "detail" }, left, right));
}

function certificateChart(run, row) {
  const levels = run.sigmas.length, width = Math.max(280, Math.min(600, innerWidth - 84)), small = width < 520, left = 74, bottom = 26 + 50 * levels, height = bottom + (small ? 64 : 28);
  const exclusion = run.exclusion[row], classes = run.classRadii[row], finite = [...exclusion.filter((e) => e !== null), ...classes, run.radius[row]];
  if (!exclusion.length) return make("p", { class: "hint" }, "");
  const most = Math.max(0.05, ...finite) * 1.16, x = (v) => left + ((width - left - 20) * v) / most;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Per level: exclusion radius and class radius; certified radius ${floor(run.radius[row])}` });
  run.sigmas.forEach((s, level) => {
    const y = 26 + 50 * level, e = exclusion[level], a = classes[level], chosen = level === run.route[row];
    svg.append(draw("text", { class: chosen ? "strong" : "", x: left - 8, y: y + 22, "text-anchor": "end" }, (chosen ? "▸ " : "") + sigmaName(s)));
    svg.append(draw("rect", { x: left, y, width: Math.max(e === null ? width - left - 20 : x(e) - left, 1), height: 15, rx: 2, fill: "var(--s1)", "fill-opacity": e === null ? 0.25 : 0.85, ...hover(e === null ? "this level is never the route" : `excluded as a route up to ${floor(e)}`) }));
    svg.append(draw("rect", { x: left, y: y + 18, width: Math.max(x(a) - left, 1), height: 15, rx: 2, fill: "var(--s0)", "fill-opacity": 0.85, ...hover(`same label at this level up to ${floor(a)}`) }));
    for (const [value, down] of [[e, 12], [a, 30]]) if (value !== null) svg.append(draw("text", { class: "tiny", x: Math.max(x(value), x(run.radius[row])) + 5, y: y + down }, floor(value)));
  });
  const r = run.radius[row];
  svg.append(draw("line", { x1: x(r), x2: x(r), y1: 20, y2: bottom, stroke: "var(--ink)", "stroke-width": 2 }), draw("text", { class: "strong", x: Math.min(x(r), width - 70), y: 14, "text-anchor": x(r) > width - 90 ? "end" : "middle" }, "R = " + floor(r)));
  const key = [["never the route within", "s1"], ["same label within", "s0"], ...(run.reading ? [[run.reading, null]] : [])];
  key.forEach(([text, color], i) => {
    const kx = small ? 4 : left + [0, 170, 305][i], ky = bottom + 22 + (small ? 18 * i : 0);
    if (color) svg.append(draw("rect", { x: kx, y: ky - 10, width: 11, height: 11, rx: 2, fill: `var(--${color})` }));
    svg.append(draw("text", { x: kx + (color ? 16 : 0), y: ky }, text));
  });
  return make("div", { class: "chart" }, svg);
}
function certificateFacts(run, row) {
  const facts = [["noise level", sigmaName(run.sigmas[run.route[row]])], ["route radius", run.routeRadius[row] === null ? "∞ (one level)" : floor(run.routeRadius[row])], ["class radius", floor(run.classRadius[row])], ["p_A at least", run.pA[row] === null ? "not above 1/2" : floor(run.pA[row], 5)], ["passes", whole(run.passes[row])], ["confidence", certainty(run.alpha)]];
  return make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
function voteTables(run, index) {
  const votes = DATA.votes[run.source] && DATA.votes[run.source][index];
  if (!votes) return [];
  const rows = Object.entries(votes).sort().map(([stream, [passes, top, purpose]]) => {
    const name = stream === "route" ? "estimator" : "classifier, " + sigmaName(run.sigmas[stream]);
    return make("tr", {}, make("td", {}, name, purpose === "selection" ? make("small", {}, "selection only") : null), make("td", { class: "words" }, top.slice(0, 3).map(([c, n]) => {
      const meter = make("span", { class: "meter", "aria-hidden": "true" });
      meter.style.width = Math.max(1, (45 * n) / passes) + "%"; // a width in pixels would widen the table of a narrow window
      return make("div", {}, meter, `${stream === "route" ? sigmaName(run.sigmas[c]) : className(c)}: ${percent(n / passes)}`);
    })), make("td", {}, whole(passes)));
  });
  return [make("h3", { class: "gap" }, "Votes"), make("table", { class: "votes" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "base model"), make("th", { scope: "col", class: "words" }, "most voted"), make("th", { scope: "col" }, "passes"))), make("tbody", {}, rows))];
}

// Noise for looking at, drawn here; the certificates rest on the runtime's own generator.
function normals(seed) {
  let a = seed >>> 0;
  const uniform = () => { a = (a + 0x6d2b79f5) | 0; let t = Math.imul(a ^ (a >>> 15), 1 | a); t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t; return ((t ^ (t >>> 14)) >>> 0) / 4294967296; };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
function noisyCopies(url) {
  const { run, row } = detail, { width, height } = DATA.pictures;
  const level = make("select", { id: "noise-level" }, run.sigmas.map((s, i) => make("option", { value: i, selected: i === run.route[row] }, (i === run.route[row] ? "▸ " : "") + sigmaName(s))));
  const copies = make("div", { class: "noisy" }), source = new Image();
  const redraw = () => {
    const sigma = 255 * run.sigmas[level.value];
    const canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
    context.drawImage(source, 0, 0);
    const clean = context.getImageData(0, 0, width, height), normal = normals(1000003 * run.index[row] + 7919 * detail.draws + Number(level.value));
    const grey = clean.data.every((v, k) => k % 4 === 3 || v === clean.data[k - (k % 4)]);
    copies.replaceChildren(...Array.from({ length: 6 }, (_, n) => {
      const copy = make("canvas", { width, height, role: "img", "aria-label": `noisy copy ${n + 1} at ${sigmaName(run.sigmas[level.value])}` });
      const pixels = new ImageData(new Uint8ClampedArray(clean.data), width, height);
      for (let k = 0; k < pixels.data.length; k += 4) {
        const z = sigma * normal();
        for (let c = 0; c < 3; c++) pixels.data[k + c] = clean.data[k + c] + (grey ? z : sigma * normal());
      }
      copy.getContext("2d").putImageData(pixels, 0, 0);
      return copy;
    }));
  };
  source.addEventListener("load", redraw);
  source.src = url;
  level.addEventListener("change", redraw);
  return [make("div", { class: "bar gap" }, make("label", {}, "Noisy copies at ", level), make("button", { type: "button", onclick: () => { detail.draws += 1; redraw(); } }, "Redraw")), copies,
    make("p", { class: "hint" }, "What the networks see, for looking at: cut to the range of a screen.")];
}
