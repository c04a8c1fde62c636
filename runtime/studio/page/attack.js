// An attack: the picture moved along one direction, and what the same rule says there.
const attack = { direction: null, way: "", stop: null, timer: 0, tried: [] };

function attackable() {
  const { outcome, sigma, picture: chosen } = run.done, far = outcome.radius > 0 ? 2.5 * outcome.radius : 2 * sigma;
  Object.assign(attack, { direction: null, tried: [] });
  byId("attack").hidden = false;
  const slider = byId("distance");
  slider.step = (far / 100).toPrecision(2);
  slider.max = (100 * slider.step).toPrecision(4);
  slider.value = 0;
  paint(byId("before"), chosen.pixels, "The picture: " + chosen.name);
  paint(byId("after"), chosen.pixels, "The moved picture: not moved yet");
  byId("way-note").textContent = byId("after-caption").textContent = "";
  byId("moved").className = "verdict";
  byId("moved").textContent = !outcome.answer.length ? "The certificate abstained: nothing is promised anywhere." : "Pull the slider, or use the arrow keys on it.";
  byId("distance-out").textContent = "0";
  track();
}

// Where it was tried: a disc for the same answer, a ring for none, a diamond for another one; R is the line.
function track() {
  const { outcome } = run.done, far = Number(byId("distance").max), place = (v) => (100 * v) / far + "%";
  const line = make("i"), tag = make("b", { class: outcome.radius ? "" : "left" }, "R = " + floor(outcome.radius));
  line.style.left = tag.style.left = place(outcome.radius);
  show("track", line, tag, attack.tried.map((t) => { const dot = make("span", { class: t.kind, title: `${floor(t.distance)}: ${t.said}` }); dot.style.left = place(t.distance); return dot; }));
  const tried = [...attack.tried].sort((a, b) => a.distance - b.distance);
  byId("track").setAttribute("aria-label", tried.length ? `Tried, with R = ${floor(outcome.radius)}: ` + tried.map((t) => `${floor(t.distance)} ${t.said}`).join(", ") : "No place tried yet");
}

async function findDirection(signal) {
  const { outcome, sigma, text, picture: chosen } = run.done, way = byId("way").value;
  if (attack.direction && attack.way === way) return;
  byId("way-note").textContent = way === "votes" ? "Looking for a direction by votes…" : "";
  const found = await ask("/direction", { way, certificate: text, pixels: base64(chosen.pixels), distance: Math.max(1.5 * outcome.radius, sigma) }, signal);
  Object.assign(attack, { direction: found.direction, way, tried: [] });
  byId("way-note").textContent = `Moved ${found.words}. An attack that fails proves nothing; the certificate does.`;
}

async function moveTo(distance, signal) {
  const { outcome, text, picture: chosen } = run.done;
  await findDirection(signal);
  const found = await ask("/move", { certificate: text, pixels: base64(chosen.pixels), direction: attack.direction, distance }, signal);
  const inside = found.distance < outcome.radius, said = found.said === null ? "no answer" : found.said;
  const kind = found.said === null ? "" : found.same ? "same" : "other";
  attack.tried.push({ distance: found.distance, kind, said });
  const at = floor(found.distance), { name } = outcome;
  paint(byId("after"), bytesOf(found.pixels), `The moved picture, at L2 distance ${at}: ${said}`);
  byId("after-caption").textContent = `moved by ${at}`;
  const box = byId("moved");
  box.className = "verdict" + (inside && kind === "other" ? " bad" : "");
  const there = `${whole(found.passes)} votes`;
  if (inside && kind === "other") box.textContent = `A violation: ${at} lies inside R = ${floor(outcome.radius)}, yet ${there} certify ${said}, not ${name}. One of the two certificates is wrong, which happens with probability at most alpha each.`;
  else if (inside) box.textContent = `Inside the certified radius: ${kind === "same" ? `still ${name}, as proved` : `${there} do not settle the answer here, which contradicts nothing`}.`;
  else box.textContent = `${!outcome.answer.length ? "Nothing is promised" : "Beyond the certified radius nothing is promised"}: at ${at} the votes say ${kind === "" ? "nothing for certain" : said}${kind === "same" ? ", still" : ""}.`;
  track();
}

function giveUp() {
  clearTimeout(attack.timer);
  if (attack.stop) attack.stop.abort();
}
async function attempt(work) {
  giveUp();
  const stop = (attack.stop = new AbortController());
  try {
    await work(stop.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("moved").className = "verdict bad";
    byId("moved").textContent = error.message;
    if (!attack.direction) byId("way-note").textContent = "";
  }
}
function slide() {
  const distance = byId("distance").valueAsNumber, { picture: chosen } = run.done;
  byId("distance-out").textContent = floor(distance);
  clearTimeout(attack.timer);
  if (distance > 0) attack.timer = setTimeout(() => attempt((signal) => moveTo(distance, signal)), 150);
  else {
    paint(byId("after"), chosen.pixels, "The moved picture: not moved");
    byId("after-caption").textContent = byId("moved").textContent = "";
  }
}
const walk = () => attempt(async (signal) => {
  const slider = byId("distance"), far = Number(slider.max);
  for (let step = 1; step <= 10; step++) {
    slider.value = (far * step) / 10;
    byId("distance-out").textContent = floor(slider.valueAsNumber);
    await moveTo(slider.valueAsNumber, signal);
  }
});
