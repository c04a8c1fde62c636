// The picture: one that is offered, a file, or a drawing. Always uint8 [C,H,W], as the networks take it.
const [CHANNELS, HEIGHT, WIDTH] = DATA.shape;
const picture = { pixels: null, name: "", truth: "" };

// Show pixels [C,H,W] on a canvas, with words for those who do not see it.
function paint(canvas, pixels, words) {
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const image = new ImageData(WIDTH, HEIGHT), plane = WIDTH * HEIGHT;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[(CHANNELS === 3 ? c * plane : 0) + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  if (words) { canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", words); }
  return canvas;
}
const painted = (pixels, words) => paint(make("canvas"), pixels, words);

// Pixels [C,H,W] of anything that can be drawn, cut to the networks' shape and scaled to their size, and whether parts of it were transparent, which become black.
// Grey is what Pillow makes of colours.
function pixelsOf(source, width, height) {
  const canvas = make("canvas", { width: WIDTH, height: HEIGHT }), context = canvas.getContext("2d");
  const scale = Math.max(WIDTH / width, HEIGHT / height), w = width * scale, h = height * scale;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (WIDTH - w) / 2, (HEIGHT - h) / 2, w, h);
  const clear = context.getImageData(0, 0, WIDTH, HEIGHT).data.some((value, i) => i % 4 === 3 && value < 255);
  context.globalCompositeOperation = "destination-over";
  context.fillRect(0, 0, WIDTH, HEIGHT);
  const { data } = context.getImageData(0, 0, WIDTH, HEIGHT), plane = WIDTH * HEIGHT, pixels = new Uint8Array(CHANNELS * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    if (CHANNELS === 1) pixels[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else for (const [c, v] of [r, g, b].entries()) pixels[c * plane + i] = v;
  }
  return { pixels, clear };
}

// `truth`: the name of its class, where that is known.
function choose(pixels, name, truth = "") {
  Object.assign(picture, { pixels, name, truth });
  paint(byId("chosen"), pixels, "The chosen picture: " + name);
  byId("picture-name").textContent = name;
  if (!truth) for (const input of document.querySelectorAll("#samples input")) input.checked = false;
  former();
}

// A file: read by the server, as `dualsmooth certify` reads it; where it does not fit, by the browser, which scales it.
async function chooseFile(file) {
  try {
    choose(bytesOf((await ask("/picture", file)).pixels), file.name);
  } catch (refused) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    } catch {
      byId("picture-name").textContent = `${file.name}: ${refused.message}`;
      return;
    }
    const { pixels, clear } = pixelsOf(bitmap, bitmap.width, bitmap.height);
    choose(pixels, `${file.name}, cut and scaled by this browser to ${WIDTH} × ${HEIGHT}${clear ? ", its transparent parts on black" : ""}; the certificate is about these pixels`);
  }
}

function samples() {
  byId("samples-field").hidden = !DATA.pictures.length;
  show("samples", DATA.pictures.map(({ pixels, name }, i) => {
    const bytes = bytesOf(pixels), canvas = painted(bytes);
    canvas.setAttribute("aria-hidden", "true");
    return make("label", { class: "sample", title: name }, make("input", { type: "radio", name: "sample", value: i, "aria-label": name, onchange: () => choose(bytes, `${name} (its true class)`, name) }), canvas);
  }));
}

function drawing() {
  const pad = byId("pad"), scale = Math.max(1, Math.floor(280 / Math.max(WIDTH, HEIGHT))), context = pad.getContext("2d");
  pad.width = WIDTH * scale;
  pad.height = HEIGHT * scale;
  const clear = () => { context.fillStyle = "#000"; context.fillRect(0, 0, pad.width, pad.height); };
  const at = (event) => { const box = pad.getBoundingClientRect(); return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height]; };
  let from = null;
  const line = (to) => {
    Object.assign(context, { strokeStyle: CHANNELS === 3 ? byId("ink").value : "#fff", lineWidth: pad.width / 14, lineCap: "round" });
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    from = to;
  };
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); from = at(event); line(from); });
  pad.addEventListener("pointermove", (event) => { if (from) line(at(event)); });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { if (from) { from = null; choose(pixelsOf(pad, pad.width, pad.height).pixels, "your drawing"); } });
  byId("clear").addEventListener("click", clear);
  byId("ink-label").hidden = CHANNELS !== 3;
  clear();
}

function dropping() {
  const over = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  addEventListener("drop", (event) => { event.preventDefault(); over(false); if (event.dataTransfer.files[0]) chooseFile(event.dataTransfer.files[0]); });
  byId("file").addEventListener("change", (event) => { if (event.target.files[0]) chooseFile(event.target.files[0]); });
}
