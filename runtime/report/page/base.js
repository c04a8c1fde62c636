// What several parts of the report need.
const mean = (values) => values.reduce((a, b) => a + b, 0) / Math.max(values.length, 1);
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
const className = (c) => (c < 0 ? "abstained" : DATA.classes[c] !== undefined ? DATA.classes[c] : "class " + c);
// What a run answers: a class, or the group or set of classes that stands in for it.
function answerName(run, row) {
  const set = run.answer && run.answer[row];
  return set ? run.group[row] || set.map(className).join(" or ") : className(run.label[row]);
}
const sigmaName = (s) => "σ = " + plain(s);
function levelColor(level, levels) {
  const share = levels > 1 ? level / (levels - 1) : 0.6;
  return `hsl(214 70% calc(var(--level-from) + (var(--level-to) - var(--level-from)) * ${share.toFixed(3)}))`;
}

// A run's certified images at r: correct, and proved at least that far.
DATA.runs.forEach((run) => {
  run.color = `var(--s${run.colour})`;
  run.size = run.index.length;
  run.visible = true;
  run.full = Boolean(run.spent) && run.sigmas.length > 1 && run.spent.every((row) => row.every((n) => n > 0 && n === row[0]));
  run.sorted = run.good.filter((r) => r > 0).sort((a, b) => a - b);
});
function certified(run, r) {
  let low = 0, high = run.sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (run.sorted[middle] < r) low = middle + 1;
    else high = middle;
  }
  return run.sorted.length - low;
}
const accuracy = (run, r) => certified(run, r) / run.size;
const known = (run, r) => !run.decided || run.decided.some((d) => Math.abs(d - r) < 1e-9);
const GROUPED = DATA.runs.some((run) => run.answer && run.answer.some(Boolean));
const OUTCOMES = { correct: ["correct", "good"], wrong: ["wrong", "bad"], ...(GROUPED ? { group: ["group", "some"] } : {}), abstained: ["abstained", "none"] };
const noOutcomes = () => Object.fromEntries(Object.keys(OUTCOMES).map((kind) => [kind, 0]));
const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
function outcome(run, row) {
  if (run.good[row] > 0) return "correct";
  if (run.answer && run.answer[row]) return run.covered ? "wrong" : "group";
  return run.label && run.label[row] >= 0 ? "wrong" : "abstained";
}

// What a figure rests on: images, passes and alpha, in the words of the run's facts.
const fact = (run, name) => (run.facts.find(([key]) => key === name) || [])[1];
const conditions = (run) => [`${whole(run.size)} images`, ...["passes", "alpha"].filter((name) => fact(run, name)).map((name) => `${name}: ${fact(run, name)}`)].join("; ");

// Tooltip
function tip(event, text) {
  const box = byId("tip");
  if (!text) { box.hidden = true; return; }
  box.textContent = text;
  box.hidden = false;
  const at = event.clientX !== undefined && event.type !== "focus" ? event : event.target.getBoundingClientRect();
  const x = at.clientX !== undefined ? at.clientX : at.left, y = at.clientY !== undefined ? at.clientY : at.top;
  box.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.offsetWidth - 8)) + "px";
  box.style.top = Math.max(4, y + 18 + box.offsetHeight > innerHeight ? y - box.offsetHeight - 12 : y + 18) + "px";
}
const hover = (text) => ({ onpointermove: (e) => tip(e, text), onpointerleave: (e) => tip(e, "") });

// A chart is as wide as its place, so that its text keeps its size in a narrow window.
const room = (name, most) => Math.max(280, Math.min(most, byId(name + "-chart").clientWidth || most));
const NARROW = 440;

// Charts: a frame with axes; x and y map data to the drawing.
function nice(limit, count) {
  const raw = limit / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= raw * 0.999) * power;
  return Array.from({ length: Math.floor(limit / step + 1e-9) + 1 }, (_, i) => +(i * step).toPrecision(10));
}
function frame({ width, height, left = 52, right = 16, top = 12, bottom = 44, xMax, yMax, xTitle, yTitle, xText = plain, yText = plain, xTicks, label }) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const x = (v) => left + ((width - left - right) * v) / xMax, y = (v) => height - bottom - ((height - top - bottom) * v) / yMax;
  for (const v of nice(yMax, 5)) {
    svg.append(draw("line", { class: v === 0 ? "zero" : "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
    svg.append(draw("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, yText(v)));
  }
  for (const v of xTicks || nice(xMax, 8)) {
    svg.append(draw("line", { class: "zero", x1: x(v), x2: x(v), y1: height - bottom, y2: height - bottom + 4 }));
    svg.append(draw("text", { x: x(v), y: height - bottom + 19, "text-anchor": "middle" }, xText(v)));
  }
  if (xTitle) svg.append(draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xTitle));
  if (yTitle) svg.append(draw("text", { transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle));
  return { svg, x, y, left, right, top, bottom, width, height };
}

const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "font-size", "font-family", "font-weight", "text-anchor"];
// The chart as a file of its own: with its key, since the page's legend and words stay behind. `key` holds [text, line].
function standalone(svg, key = []) {
  const { width, height } = svg.viewBox.baseVal, tall = height + 18 * key.length + (key.length ? 8 : 0);
  const words = draw("g", {}, key.map(([text, line], i) => [
    line ? draw("line", { x1: 12, x2: 38, y1: height + 14 + 18 * i, y2: height + 14 + 18 * i, "stroke-width": 3, ...line }) : null,
    draw("text", { class: "strong", x: line ? 46 : 12, y: height + 18 + 18 * i }, text)]).flat());
  svg.append(words);
  const copy = svg.cloneNode(true);
  const from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((element, i) => {
    const computed = getComputedStyle(element);
    for (const name of STYLED) to[i].setAttribute(name, computed.getPropertyValue(name));
    to[i].removeAttribute("tabindex");
  });
  words.remove();
  copy.setAttribute("viewBox", `0 0 ${width} ${tall}`);
  copy.setAttribute("width", width);
  copy.setAttribute("height", tall);
  copy.prepend(draw("rect", { width, height: tall, fill: getComputedStyle(document.documentElement).getPropertyValue("--card").trim() }));
  return new XMLSerializer().serializeToString(copy);
}
function savePng(text, name) {
  const picture = new Image();
  picture.onload = () => {
    const canvas = make("canvas", { width: 2 * picture.width, height: 2 * picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(name, blob));
  };
  picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}
function chartTools(name, key) {
  const find = () => byId(name + "-chart").querySelector("svg"), chart = () => standalone(find(), key());
  const tool = (text, run) => make("button", { type: "button", "aria-label": `Save this chart as ${text}`, onclick: () => { if (find()) run(); } }, text);
  return [
    tool("SVG", () => save(`dualsmooth-${name}.svg`, chart(), "image/svg+xml")),
    tool("PNG", () => savePng(chart(), `dualsmooth-${name}.png`)),
  ];
}
function csv(rows) {
  const cell = (v) => {
    const text = v === null || v === undefined ? "" : String(v);
    const inert = typeof v === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}
const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\n": " " };
const latex = (text) => text.replace(/[\\&%$#_{}~^\n]/g, (c) => LATEX[c] || "\\" + c);
