// Refreshes what is marked by data-refresh every few seconds while somebody looks at it, says since
// when it is as it is, and leaves no page in view once its session is over. Focus, open details and
// the place that was scrolled to stay; without script, pages are as they were read.
"use strict";

const SESSION_MS = 30000; // a session that ended is noticed after this long at the latest
const ANSWER_MS = 15000; // who takes longer does not answer
const SLOWEST_MS = 60000; // between tries while nobody answers
const USED = "a[href], button, input, select, textarea, summary, .wide, [tabindex]";

const bar = document.getElementById("live");
const since = document.getElementById("live-since");
const said = document.getElementById("live-said");
const pause = document.getElementById("live-pause");
const parts = [...document.querySelectorAll("[data-refresh]")];
let paused = false;
let read = new Date(); // when what is shown was read

function clock(time) {
  return time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

function tell(words) {
  if (said.textContent !== words) said.textContent = words;
}

// Where the sign-in leads back to: a search was a form, and is not sent again.
function leave() {
  document.body.replaceChildren(); // nothing stays in view, nor in the browser's history
  document.title = "monro";
  const wanted = location.pathname === "/search" ? "/" : location.pathname + location.search;
  location.replace(`/sign-in?next=${encodeURIComponent(wanted)}`);
}

async function ask(path) {
  const answer = await fetch(path, {
    credentials: "same-origin", redirect: "manual", cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (answer.type === "opaqueredirect") leave();
  return answer;
}

// What something is called, so that it is found again in what replaces it.
function called(each) {
  if (each.id) return `#${each.id}`;
  if (each.matches("summary") && each.parentElement.id) return `summary of #${each.parentElement.id}`;
  const form = each.closest("form");
  const words = each.matches(".wide") ? each.querySelector("caption")?.textContent : each.textContent;
  return [each.tagName, each.getAttribute("href"), form?.getAttribute("action"), words?.trim()].join("|");
}

function find(part, name, at) {
  const alike = [...part.querySelectorAll(USED)].filter((each) => called(each) === name);
  return alike[Math.min(at, alike.length - 1)];
}

// What each state is, by what it is the state of; for rows, by the first name in them.
function states(part) {
  const found = new Map();
  for (const each of part.querySelectorAll("[data-told]")) {
    found.set(each.dataset.told, each.textContent.trim().replace(/\s+/g, " "));
  }
  return found;
}

function rows(part) {
  const found = new Map();
  for (const row of part.querySelectorAll("tr")) {
    const named = row.querySelector("[id]");
    if (named) found.set(named.id, [...row.querySelectorAll(".state")].map((each) => each.textContent).join());
  }
  return found;
}

// What a reader who does not see the page is told: states that changed, and no progress.
function news(before, after) {
  const told = [];
  for (const [name, state] of after.states) {
    if (before.states.get(name) !== state) told.push(`${name}: ${state}`);
  }
  const count = [...after.rows].filter(([name, state]) => before.rows.get(name) !== state).length;
  if (count) told.push(count === 1 ? "1 row changed" : `${count} rows changed`);
  return told.join(". ");
}

function keep(part, html) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const name = focused && called(focused);
  const at = focused && [...part.querySelectorAll(USED)].filter((each) => called(each) === name).indexOf(focused);
  const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
  const wide = [...part.querySelectorAll(".wide")].map((each) => each.scrollLeft);
  const before = { states: states(part), rows: rows(part) };
  part.innerHTML = html;
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  part.querySelectorAll(".wide").forEach((each, which) => { each.scrollLeft = wide[which] || 0; });
  if (focused) {
    // What was focused may be gone, such as a button for what is over: its part keeps the place.
    const again = find(part, name, at);
    if (again) again.focus({ preventScroll: true });
    if (!again || document.activeElement !== again) {
      part.tabIndex = -1;
      part.focus({ preventScroll: true });
    }
  }
  return news(before, { states: states(part), rows: rows(part) });
}

function refresh(part) {
  let last = null;
  let failures = 0;
  let timer = 0;

  function usual() {
    const told = part.querySelector("[data-seconds]") || part;
    return 1000 * Number(told.dataset.seconds || 5);
  }

  async function turn() {
    clearTimeout(timer);
    let wait = usual();
    // Whoever is marking text, or is about to choose, must not lose it.
    if (!document.hidden && !paused && document.getSelection().isCollapsed) {
      try {
        const answer = await ask(part.dataset.refresh);
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const html = await answer.text();
        const is_new = last === null ? html.trim() !== part.innerHTML.trim() : html !== last;
        const words = is_new && !paused ? keep(part, html) : "";
        if (!paused) [last, read] = [html, new Date()];
        if (failures) tell("Answered again.");
        else if (words) tell(words);
        failures = 0;
        bar.classList.remove("stale");
      } catch {
        failures += 1;
        wait = Math.min(wait * 2 ** failures, SLOWEST_MS);
        tell(`Not answered since ${clock(read)}: what is shown here may be old.`);
        bar.classList.add("stale");
      }
      show();
    }
    clearTimeout(timer); // somebody may have come back meanwhile
    timer = setTimeout(turn, wait);
  }

  timer = setTimeout(turn, usual());
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  pause.addEventListener("click", () => { if (!paused) turn(); });
}

function show() {
  since.textContent = paused ? `Paused; as of ${clock(read)}.` : `As of ${clock(read)}.`;
}

async function check() {
  if (document.hidden) return;
  try { await ask("/fragment/session"); } catch { /* away: parts that are live say so */ }
}

setInterval(check, SESSION_MS);
document.addEventListener("visibilitychange", check);
window.addEventListener("pageshow", (event) => { if (event.persisted) check(); });

if (parts.length) {
  bar.hidden = false;
  show();
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on with updates" : "Pause updates";
    show();
  });
  parts.forEach(refresh);
}
