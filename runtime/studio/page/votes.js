// Votes and bars as they come. All figures are the server's; here they are only drawn.
const classWords = (c) => DATA.classes[c];
const sigmaWords = (s) => "σ = " + plain(s);
const networkWords = (name) => (name === "estimator" ? `Estimator at ${sigmaWords(DATA.sigmaE)}` : `Classifier at ${sigmaWords(DATA.sigmas[name])}`);
const voteWords = (name, c) => (name === "estimator" ? sigmaWords(DATA.sigmas[c]) : classWords(c));

// The networks of a run: what is above the votes, and an empty table for them.
const panels = new Map();
function networks(shown) {
  panels.clear();
  show("networks", shown.map(({ name, copies, votes }) => {
    const rows = make("tbody"), passes = make("small", {}, "not asked yet");
    const figures = copies.map((copy, i) => make("figure", {}, painted(bytesOf(copy), `noisy copy ${i + 1}, voted ${voteWords(name, votes[i])}`), make("figcaption", { "aria-hidden": "true" }, voteWords(name, votes[i]))));
    const table = make("table", {}, make("caption", { class: "unseen" }, "Votes of the " + networkWords(name)), rows);
    const article = make("article", { class: "network idle" }, make("h3", {}, networkWords(name), passes), make("div", { class: "copies" }, figures), table);
    panels.set(name, { article, rows, passes, lines: new Map() });
    return article;
  }));
}
function voted({ name, purpose, passes, votes, group }) {
  const panel = panels.get(name), top = Math.max(...votes.map(([, n]) => n));
  panel.article.classList.remove("idle");
  panel.passes.textContent = `${whole(passes)} votes${purpose === "selection" ? ", for a guess" : ""}`;
  if (group) votes = [...votes, [DATA.classes.length, group[1]]]; // below the classes: all votes for the group
  const there = new Set(votes.map(([c]) => c));
  for (const [c, line] of panel.lines) if (!there.has(c)) { line.row.remove(); panel.lines.delete(c); }
  for (const [c, n] of votes) {
    if (!panel.lines.has(c)) {
      const sum = group && c === DATA.classes.length, words = sum ? group[0] : voteWords(name, c);
      const meter = make("span", { class: "meter" }), share = make("td"), row = make("tr", { class: sum ? "group" : "" }, make("th", { scope: "row", title: words }, words), make("td", { "aria-hidden": "true" }, meter), share);
      panel.lines.set(c, { row, meter, share });
      const after = [...panel.lines.keys()].filter((other) => other > c).sort((a, b) => a - b)[0];
      panel.rows.insertBefore(row, after === undefined ? null : panel.lines.get(after).row);
    }
    const line = panel.lines.get(c);
    line.meter.style.width = (100 * n) / passes + "%";
    line.share.textContent = percent(n / passes);
    line.row.classList.toggle("top", n === top);
  }
}

// The bars of a rule: e_s and A_s of each level, and R across them, on a scale that grows by steps.
const CEILINGS = [0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128];
const bars = { ceiling: 0.1 };
function newBars(reading) {
  bars.ceiling = CEILINGS[0];
  const row = (kind) => { const fill = make("i"), figure = make("span"); return { kind, fill, figure, element: make("div", { class: "row " + kind }, fill, figure) }; };
  bars.levels = DATA.sigmas.map((s) => {
    const name = make("span"), rows = [row("excluded"), row("same")];
    return { s, name, rows, element: make("div", { class: "level" }, name, make("div", {}, rows.map((r) => r.element))) };
  });
  bars.scale = [make("span", {}, "0"), make("span"), make("span")];
  bars.tag = make("b");
  bars.same = make("span");
  bars.line = make("i");
  const key = (colour, words) => make("span", {}, colour ? make("span", { class: "key " + colour }) : null, words);
  const keys = make("p", { class: "keys" }, key("k1", DATA.bars[0]), key("k0", bars.same), reading ? key("", reading) : null);
  show("bars", make("div", { class: "levels" }, bars.levels.map((level) => level.element), make("div", { class: "line" }, bars.tag, bars.line)), make("div", { class: "scale" }, bars.scale), keys);
}
function drawBars(found, certified) {
  const holder = byId("bars");
  holder.hidden = !found || !found.exclusion.length;
  if (holder.hidden) return;
  const radii = [...found.exclusion.filter((e) => e !== null), ...found.class_radii, found.radius];
  while (1.05 * Math.max(...radii) > bars.ceiling && CEILINGS.includes(bars.ceiling)) bars.ceiling = CEILINGS[CEILINGS.indexOf(bars.ceiling) + 1] || 2 * Math.max(...radii);
  const share = (v) => 100 * Math.min(1, v / bars.ceiling) + "%";
  const same = found.coarse ? "same answer within" : DATA.bars[1];
  bars.same.textContent = same;
  const said = bars.levels.map(({ s, name, rows, element }, level) => {
    const values = [found.exclusion[level], found.class_radii[level]], chosen = level === found.route;
    name.textContent = (chosen ? "▸ " : "") + sigmaWords(s);
    element.classList.toggle("chosen", chosen);
    rows.forEach(({ fill, figure, element }, i) => {
      element.classList.toggle("endless", values[i] === null);
      fill.style.width = values[i] === null ? "100%" : share(values[i]);
      figure.textContent = values[i] === null ? "∞" : floor(values[i]);
    });
    return `${sigmaWords(s)}: ${DATA.bars[0]} ${values[0] === null ? "any distance" : floor(values[0])}, ${same} ${floor(values[1])}`;
  });
  bars.scale[1].textContent = plain(bars.ceiling / 2);
  bars.scale[2].textContent = plain(bars.ceiling);
  bars.line.style.left = bars.tag.style.left = share(found.radius);
  bars.tag.classList.toggle("left", found.radius < 0.12 * bars.ceiling);
  bars.tag.textContent = `R = ${floor(found.radius)}${certified ? "" : " so far"}`;
  holder.setAttribute("role", "img");
  holder.setAttribute("aria-label", `${said.join("; ")}; ${certified ? "certified radius" : "radius so far"} ${floor(found.radius)}`);
}
