// Refreshes what is marked by data-refresh every few seconds while somebody looks at it. Focus,
// open details and the place that was scrolled to stay; without script, pages are as they were read.
"use strict";

function keep(part, html) {
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
  const wide = [...part.querySelectorAll(".wide")].map((each) => each.scrollLeft);
  part.innerHTML = html;
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  part.querySelectorAll(".wide").forEach((each, at) => { each.scrollLeft = wide[at] || 0; });
  if (focused) {
    const again = document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  }
}

function refresh(part) {
  let last = null;
  const pause = 1000 * Number(part.dataset.seconds || 5);
  async function turn() {
    if (document.hidden) return;
    // Whoever is marking text, or is about to choose, must not lose it.
    if (!document.getSelection().isCollapsed) return;
    try {
      const answer = await fetch(part.dataset.refresh, { credentials: "same-origin", redirect: "manual" });
      if (answer.type === "opaqueredirect") location.reload(); // the session is over: nothing stays in view
      if (!answer.ok) return;
      const html = await answer.text();
      if (last !== null && html !== last) keep(part, html);
      else if (last === null && html.trim() !== part.innerHTML.trim()) keep(part, html);
      last = html;
    } catch { /* the listener is away: what was read stays */ }
  }
  setInterval(turn, pause);
}

document.querySelectorAll("[data-refresh]").forEach(refresh);
