// A run: from the question to the certificate, and its row among the runs.
const run = { stop: null, done: null };

function question() {
  const mode = byId("mode").value, own = mode === "own";
  return {
    rule: byId("rule").value,
    mode: own ? null : mode,
    budget: own ? byId("budget").value.trim() : null,
    r: byId("r-field").hidden ? null : byId("r").valueAsNumber,
    groups: byId("doubt").value === "groups" ? true : null,
    at_most: byId("doubt").value === "set" ? Number(byId("most").value) : null,
    alpha: byId("alpha").valueAsNumber,
    seed: byId("seed").value.trim(),
  };
}
const ruleWords = (rule, q) => rule + (q.groups ? ", or a group" : q.at_most ? `, or at most ${q.at_most}` : "");
const asked = (q) => q.budget || (q.mode === "decide" ? `decide at ${plain(q.r)}` : q.mode);

function say(text, kind = "") {
  byId("status").textContent = text;
  byId("status").className = "status " + kind;
}
function busy(on) {
  byId("certify").disabled = byId("every").disabled = on;
  byId("stop").disabled = !on;
  byId("progress").hidden = !on;
}

// Ask for one certificate and show what comes; true if one came.
async function certify(q, signal) {
  const chosen = { ...picture };
  let begun, start = performance.now();
  for await (const event of lines(await post("/certify", { pixels: base64(chosen.pixels), ...q }, signal))) {
    if (event.event === "error") throw new Error(event.error);
    if (event.event === "begun") { begun = event; begin(event, chosen); }
    if (event.event === "votes") votes(event, begun, (performance.now() - start) / 1000);
    if (event.event === "certificate") { finish(event, begun, q, chosen); return; }
  }
  throw new Error("the studio ended before the certificate did; no certificate is issued");
}
function begin(event, chosen) {
  run.done = null;
  giveUp();
  for (const id of ["below", "votes", "certificate"]) byId(id).hidden = false;
  for (const id of ["certificate-actions", "attack"]) byId(id).hidden = true;
  for (const id of ["verdict", "replayed"]) byId(id).textContent = "";
  show("facts");
  show("caveats");
  tag("so far, not certified", "none");
  networks(event.shown);
  newBars(event.reading);
  drawBars(null);
  const progress = byId("progress");
  progress.max = event.most * (event.routed ? 1 + DATA.sigmas.length : 1);
  progress.value = 0;
  say(`Certifying ${chosen.name} by ${event.rule}: votes arrive.`);
}
function votes(event, begun, seconds) {
  event.networks.forEach(voted);
  byId("progress").value = event.passes;
  drawBars(event.so_far, false);
  const guess = event.so_far ? `, leading: ${event.so_far.name}` : "";
  byId("stage").textContent = `so far, not certified: ${whole(event.passes)} passes, ${seconds.toFixed(1)} s${guess}`;
}
function tag(text, kind) {
  byId("stage").textContent = text;
  byId("stage").className = "tag " + kind;
}
function finish(event, begun, q, chosen) {
  const { outcome } = event, abstained = !outcome.answer.length;
  run.done = { ...event, picture: chosen, question: q, tag: abstained ? "abstained" : "certified" };
  tag(run.done.tag, abstained ? "none" : "good");
  drawBars(outcome, true);
  for (const { article, passes } of panels.values()) if (article.classList.contains("idle")) passes.textContent = "not needed";
  const wrong = chosen.truth && !abstained && !outcome.answer.map(classWords).includes(chosen.truth);
  byId("verdict").textContent = event.words + "." + (wrong ? ` It shows: ${chosen.truth}. A certificate says that the answer is stable, not that it is right.` : "");
  const decided = (event.decided || []).map(([r, yes]) => `certified at ${plain(r)}: ${yes ? "yes" : "no"}`);
  const facts = [["rule", ruleWords(begun.rule, q)], ["budget", begun.budget], ["noise level", sigmaWords(event.sigma)], ["passes", `${whole(event.passes)} in ${event.seconds.toFixed(2)} s`], ["confidence", `${event.confidence} (alpha ${plain(begun.alpha)})`], ["about", event.subject], ["noise", event.noise], ...(decided.length ? [["decided", decided.join(", ")]] : [])];
  show("facts", facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  show("caveats", event.caveats.map((text) => make("li", {}, text)));
  byId("certificate-actions").hidden = false;
  say(`Done: ${abstained ? "abstained" : `${outcome.name}, R = ${floor(outcome.radius)}`}.`);
  row(chosen, q, [ruleWords(begun.rule, q), asked(q), plain(begun.alpha), abstained ? "abstained" : outcome.name, floor(outcome.radius), plain(event.sigma), whole(event.passes), event.seconds.toFixed(2)]);
  attackable();
}
// Say so where what stands below is about another picture than the one that is chosen now.
function former() {
  if (!run.done || !byId("stop").disabled) return;
  const other = run.done.picture.pixels !== picture.pixels;
  byId("stage").textContent = run.done.tag + (other ? ", the picture before" : "");
  say(other ? `Below is what was found for ${run.done.picture.name}. Certify asks about this picture.` : "");
}
const LEFT_ALIGNED = new Set([0, 1, 3]);
function row(chosen, q, cells) {
  byId("runs").hidden = false;
  const end = cells.length === 1 ? [make("td", { class: "words" }, ruleWords(q.rule, q)), make("td", { class: "words" }, asked(q)), make("td", { class: "refused", colspan: 6 }, cells[0])] : cells.map((text, i) => make("td", { class: LEFT_ALIGNED.has(i) ? "words" : "" }, text));
  byId("runs-rows").append(make("tr", {}, make("td", {}, painted(chosen.pixels, chosen.name)), end));
}

// Run each question in turn until one is stopped; a refusal gets a row of its own where there are several.
async function runAll(questions) {
  if (!picture.pixels) { say("Choose a picture first.", "bad"); return; }
  const stop = (run.stop = new AbortController());
  busy(true);
  try {
    for (const q of questions) {
      try {
        await certify(q, stop.signal);
      } catch (error) {
        if (error.name === "AbortError" || questions.length === 1) throw error;
        row(picture, q, [error.message]);
      }
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (!run.done) tag("stopped: nothing is certified", "none");
    say(stopped ? "Stopped; no certificate is issued." : error.message, stopped ? "" : "bad");
  } finally {
    busy(false);
  }
}

async function replay() {
  const certificate = run.done, { text, picture: chosen } = certificate, line = byId("replayed");
  byId("replay").disabled = true;
  line.className = "status";
  line.textContent = "Drawing its votes again…";
  try {
    const found = await ask("/replay", { certificate: text, pixels: base64(chosen.pixels) });
    if (run.done !== certificate) return; // another one stands there now
    line.className = "status " + (found.same ? "good" : "bad");
    line.textContent = found.same ? `The same: all ${whole(found.passes)} votes were drawn again from the seed, and give the same answer and radius (${found.seconds.toFixed(2)} s).` : `Not the same: ${found.line}`;
  } catch (error) {
    line.className = "status bad";
    line.textContent = error.message;
  } finally {
    byId("replay").disabled = false;
  }
}
