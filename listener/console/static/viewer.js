// Scrolls through the slices of an overlay: slider, wheel, arrow and page keys. Two canvases are
// painted from pictures that were fetched; slices near the one that is shown are fetched ahead.
"use strict";

const AHEAD = 12; // slices on either side that are fetched before they are asked for
const KEPT = 80; // slices in memory
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
  canvas.setAttribute("role", "img");
  document.querySelector(`#${id} svg`).replaceWith(canvas);
  return canvas;
}

const overlay = canvasIn("overlay");
const plain = canvasIn("plain");

async function layer(number, name) {
  const answer = await fetch(`${viewer.dataset.base}${number}/${name}.png`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`slice ${number}: ${answer.status}`);
  return createImageBitmap(await answer.blob());
}

function slice(number) {
  let found = known.get(number);
  if (found) known.delete(number); // the latest come last
  else {
    found = Promise.all([layer(number, "anatomy"), layer(number, "heat")]);
    found.catch(() => known.delete(number));
  }
  known.set(number, found);
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
  return found;
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
  for (let near = 1; near <= AHEAD; near += 1) {
    for (const other of [number + near, number - near]) {
      if (other >= 1 && other <= count && !known.has(other)) slice(other).catch(() => {});
    }
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
