// Put the page together.
function method() {
  const facts = (run) => [["file", run.source], ...run.facts];
  const shared = DATA.runs.length > 1 ? facts(DATA.runs[0]).filter(([name, value]) => DATA.runs.every((run) => facts(run).some(([n, v]) => n === name && v === value))) : [];
  const list = (pairs) => make("dl", {}, pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  show("facts", shared.length ? make("div", { class: "whole" }, make("h3", {}, "All runs"), list(shared)) : null, DATA.runs.map((run) => {
    const own = facts(run).filter(([name]) => !shared.some(([n]) => n === name));
    return own.length ? make("div", {}, make("h3", {}, swatch(run.color), run.name), list(own)) : null;
  }));
  const level = percent(DATA.level, 0);
  const notes = [
    "An image counts at r when its predicted label is correct and its certified radius is at least r (and above 0). Wrong predictions and abstentions never count.",
    `Bands and intervals: exact two-sided Clopper–Pearson at ${level}, for each radius on its own. They say how far the figure may be off because only these images were tried, presuming a random sample; they are not simultaneous over radii.`,
    "Each certificate fails with probability at most its alpha over the noise; that error is part of every certificate and not of the bands.",
    "Radii are rounded down. p_A, route radius and class radius are proved lower bounds, not estimates.",
  ];
  if (DATA.runs.some((run) => run.decided)) notes.push("Dotted curves come from decisions: the run settled “certified at r?” at the dots only, at a fraction of the passes; the dotted line between them is a guide for the eye.");
  if (DATA.runs.some((run) => run.label && !run.route)) notes.push("Logs of the field are taken as they stand: radius ≥ r and correct, by their own columns. Their radii may be rounded.");
  show("reading", notes.map((note) => make("li", {}, note)));
}

byId("title").textContent = DATA.title;
document.title = DATA.title + " · dualsmooth report";
byId("band-note").textContent = `where the true share lies with ${percent(DATA.level, 0)} confidence at each radius, given this many images`;
summary();
legend();
meanings();
curves();
show("curve-tools", chartTools("curve", curveKey));
radiusTable();
compare();
inside();
images();
method();
byId("detail").addEventListener("keydown", (event) => {
  if (event.target.tagName === "SELECT") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
byId("detail").addEventListener("click", (event) => { if (event.target === byId("detail")) byId("detail").close(); });
let drawnFor = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnFor) return;
  drawnFor = innerWidth;
  curves();
  if (DATA.runs.length > 1) drawComparison();
  if (!byId("inside").hidden) drawInside(DATA.runs[byId("inside-run").value]);
  if (byId("detail").open) fillDetail();
});
document.documentElement.dataset.ready = "yes";
