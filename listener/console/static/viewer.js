// Scrolls through the slices of an overlay: slider, wheel, arrow and page keys. Two canvases are
// painted from pictures that were fetched, those near the one that is shown ahead of time.
"use strict";

const PACK = 8; // slices that are fetched together
const KEPT = 12; // packs in memory
const PAGE = 10; // slices of a page key
const WHEEL = 40; // pixels of a wheel for one slice

const viewer = document.getElementById("viewer");
const slider = document.getElementById("slice");
const opacity = document.getElementById("opacity");
const beside = document.getElementById("beside");
const label = document.getElementById("label");
const panels = viewer.querySelector(".panels");
const count = Number(viewer.dataset.count);
const marked = viewer.dataset.marked.split(" ").filter(Boolean).map(Number);
const shape = Number(viewer.dataset.width) / Number(viewer.dataset.height);
const known = new Map();

function canvasIn(id) {
  const canvas = document.createElement("canvas");
  canvas.className = "picture";
  const picture = document.querySelector(`#${id} svg`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.getAttribute("aria-label"));
  picture.replaceWith(canvas);
  return canvas;
}

const overlay = canvasIn("overlay");
const plain = canvasIn("plain");

async function fetched(first) {
  const answer = await fetch(`${viewer.dataset.base}pack?first=${first}&count=${PACK}`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`slices from ${first}: ${answer.status}`);
  const bytes = await answer.arrayBuffer();
  const view = new DataView(bytes);
  const layers = [];
  for (let at = 0; at < bytes.byteLength;) {
    const size = view.getUint32(at);
    layers.push(createImageBitmap(new Blob([bytes.slice(at + 4, at + 4 + size)], { type: "image/png" })));
    at += 4 + size;
  }
  return Promise.all(layers);
}

function pack(number) {
  const first = number - (number - 1) % PACK;
  let found = known.get(first);
  if (found) known.delete(first); // the latest come last
  else {
    found = fetched(first);
    found.catch(() => known.delete(first));
  }
  known.set(first, found);
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
  return found;
}

async function slice(number) {
  const layers = await pack(number);
  const at = 2 * ((number - 1) % PACK);
  return [layers[at], layers[at + 1]];
}

function paint(canvas, anatomy, heat, share, text) {
  const height = anatomy.height;
  const width = Math.round(height * shape);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.aspectRatio = `${width} / ${height}`;
  }
  const pen = canvas.getContext("2d");
  pen.globalAlpha = 1;
  pen.drawImage(anatomy, 0, 0, width, height);
  if (heat) {
    pen.globalAlpha = share;
    pen.drawImage(heat, 0, 0, width, height);
  }
  canvas.setAttribute("aria-label", text);
}

async function show() {
  const number = Number(slider.value);
  const share = marked.length ? `, ${(100 * marked[number - 1]).toFixed(1)} % marked` : "";
  const text = `Slice ${number} of ${count}${share}`;
  slider.setAttribute("aria-valuetext", text);
  try {
    const [anatomy, heat] = await slice(number);
    if (Number(slider.value) !== number) return; // somebody has scrolled on
    paint(overlay, anatomy, heat, Number(opacity.value) / 100, `${text}, map over the image`);
    paint(plain, anatomy, null, 0, `${text}, image alone`);
    label.textContent = text;
    viewer.dataset.shown = number;
  } catch {
    label.textContent = `Slice ${number} of ${count} could not be fetched`;
    return;
  }
  for (const other of [number + PACK, number - PACK]) {
    if (other >= 1 && other <= count) pack(other).catch(() => {});
  }
}

function go(number) {
  const wanted = Math.min(count, Math.max(1, number));
  if (wanted === Number(slider.value)) return;
  slider.value = wanted;
  show();
}

const KEYS = {
  ArrowUp: (at) => at - 1, ArrowLeft: (at) => at - 1, ArrowDown: (at) => at + 1, ArrowRight: (at) => at + 1,
  PageUp: (at) => at - PAGE, PageDown: (at) => at + PAGE, Home: () => 1, End: () => count,
};

viewer.addEventListener("keydown", (event) => {
  if (event.target === opacity || event.ctrlKey || event.altKey || event.metaKey) return;
  const step = KEYS[event.key];
  if (!step) return;
  event.preventDefault(); // the slider's own keys go the other way, and less far
  go(step(Number(slider.value)));
});

let rolled = 0;
panels.addEventListener("wheel", (event) => {
  event.preventDefault();
  rolled += event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : WHEEL * event.deltaY;
  const slices = Math.trunc(rolled / WHEEL);
  rolled -= slices * WHEEL;
  if (slices) go(Number(slider.value) + slices);
}, { passive: false });

slider.addEventListener("input", show);
opacity.addEventListener("input", show);
beside.addEventListener("change", () => panels.classList.toggle("single", !beside.checked));
document.getElementById("show").hidden = true;
document.getElementById("near").hidden = true;
document.getElementById("beside-tick").hidden = false;
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
show();
