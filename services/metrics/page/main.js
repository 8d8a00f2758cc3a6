// Which view is shown, and asking for what it shows.

const page = { view: null, past: new Past(), answer: null, timer: 0, asked: 0, range_s: 1800 };
const RETRY_MS = 2000;

function open() {
  const [kind, name] = address();
  cursor.charts.clear();
  point(null);
  page.past = new Past();
  page.answer = null;
  if (kind === "deployments" && name) page.view = deploymentView(name);
  else if (kind === "nodes" && name) page.view = nodeView(name);
  else page.view = meshView();
  document.getElementById("view").replaceChildren(...page.view.elements);
  say(document.getElementById("where"), page.view.where);
  document.title = `${page.view.where} – Forebay`;
  window.scrollTo(0, 0);
  ask();
}

function address() {
  try {
    return location.hash.split("/").slice(1).map(decodeURIComponent);
  } catch {
    return [];
  }
}

// One question at a time; the answer of a view that was left is dropped.
async function ask() {
  clearTimeout(page.timer);
  page.asked += 1;
  const number = page.asked;
  const { view, past } = page;
  let pause_ms = RETRY_MS;
  try {
    const found = await fetch(`${view.url}?since=${past.since}`, { cache: "no-store", signal: AbortSignal.timeout(20000) });
    const answer = await found.json();
    if (number !== page.asked) return;
    if (!found.ok) throw new Error(answer.error);
    if (past.take(answer)) {
      page.answer = answer;
      tell(answer.nats_connected ? "" : "metrics is not connected to NATS: queues are not known");
      show();
      pause_ms = answer.interval_s * 1000;
    } else {
      pause_ms = 0;
    }
  } catch (error) {
    if (number !== page.asked) return;
    tell(error.name === "Error" ? error.message : "metrics does not answer");
    document.getElementById("view").classList.add("old");
  }
  page.timer = setTimeout(ask, pause_ms);
}

function tell(wrong) {
  const state = document.getElementById("state");
  const when = page.answer ? clock(page.answer.time_s) : "";
  state.className = wrong ? "wrong" : "";
  say(state, [wrong, when && `as of ${when}`].filter(Boolean).join(" · "));
}

function show() {
  const { answer, past, view } = page;
  if (!answer) return;
  document.getElementById("view").classList.remove("old");
  const to_s = answer.time_s;
  const frame = {
    from_s: to_s - page.range_s,
    to_s,
    interval_s: answer.interval_s,
    decisions: answer.decisions ?? [],
  };
  view.update(answer, past, frame);
}

document.getElementById("range").addEventListener("change", (event) => {
  page.range_s = Number(event.target.value);
  for (const chart of cursor.charts) {
    if (chart.frame) Object.assign(chart.frame, { from_s: chart.frame.to_s - page.range_s });
    chart.render();
  }
});
new ResizeObserver(() => cursor.charts.forEach((chart) => chart.render())).observe(document.getElementById("view"));
document.addEventListener("visibilitychange", () => document.hidden || ask());
window.addEventListener("hashchange", open);
// `/?minutes=5` begins with five minutes shown.
const minutes = new URLSearchParams(location.search).get("minutes");
const radio = [...document.querySelectorAll("#range input")].find((input) => Number(input.value) === minutes * 60);
if (radio) {
  radio.checked = true;
  page.range_s = Number(radio.value);
}
open();
