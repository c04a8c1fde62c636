// Put the page together.
byId("bundle").textContent = DATA.name;
byId("about").textContent = DATA.about;
document.title = `${DATA.name} · dualsmooth studio`;

function options(id, list) {
  show(id, list.map(({ name, words, chosen }) => make("option", { value: name, selected: chosen }, words || name)));
}
const DOUBTS = [
  { name: "abstain", words: "abstain", meaning: "Where the votes do not settle the class, nothing is certified." },
  ...(DATA.groups.length ? [{ name: "groups", words: "answer with a group", meaning: `Some first votes decide whether the class is asked about, or its group. ${DATA.groups.map((g) => `${g.name}: ${g.classes.map(classWords).join(", ")}`).join(". ")}.` }] : []),
  ...(DATA.classes.length > 2 ? [{ name: "set", words: "answer with a set of classes", meaning: "Some first votes decide whether the class is asked about, or whether it is one of a few." }] : []),
];
function describe() {
  const rule = DATA.rules.find((r) => r.name === byId("rule").value), mode = DATA.modes.find((m) => m.name === byId("mode").value);
  byId("rule-note").textContent = rule.meaning;
  byId("mode-note").textContent = mode ? mode.meaning : "";
  const doubt = byId("doubt").value;
  byId("doubt-note").textContent = DOUBTS.find((d) => d.name === doubt).meaning;
  byId("most-field").hidden = doubt !== "set";
  byId("r-field").hidden = !(mode && mode.needsRadius);
  byId("budget-field").hidden = Boolean(mode);
}
options("rule", DATA.rules.map(({ name }) => ({ name, chosen: name === DATA.rule })));
options("mode", [...DATA.modes.map(({ name }) => ({ name, chosen: name === "standard" })), { name: "own", words: "a budget of your own" }]);
options("doubt", DOUBTS);
options("way", [...(DATA.pictures.length ? [{ name: "picture", words: "towards a picture of another class" }] : []), { name: "votes", words: "by votes: away from the answer" }]);
byId("most").max = DATA.classes.length - 1;
byId("alpha").value = DATA.alpha;
byId("budget-note").textContent = DATA.budgets;
for (const id of ["rule", "mode", "doubt"]) byId(id).addEventListener("change", describe);
describe();
samples();
drawing();
dropping();
const first = document.querySelector("#samples input");
if (first) { first.checked = true; first.dispatchEvent(new Event("change")); }
else byId("picture-name").textContent = "No picture yet: choose a file, or draw one.";

byId("form").addEventListener("submit", (event) => { event.preventDefault(); runAll([question()]); });
byId("every").addEventListener("click", () => runAll(DATA.rules.map(({ name }) => ({ ...question(), rule: name }))));
byId("stop").addEventListener("click", () => run.stop.abort());
byId("replay").addEventListener("click", replay);
byId("save-certificate").addEventListener("click", () => save("certificate.json", run.done.text + "\n", "application/json"));
byId("save-image").addEventListener("click", () => painted(run.done.picture.pixels).toBlob((blob) => save("image.png", blob)));
byId("distance").addEventListener("input", slide);
byId("way").addEventListener("change", () => { attack.tried = []; track(); slide(); });
byId("walk").addEventListener("click", walk);
byId("forget").addEventListener("click", () => { show("runs-rows"); byId("runs").hidden = true; });
document.documentElement.dataset.ready = "yes";
