// The page draws what /events tells.  A table may be called anything, so text is only ever set as
// text: nothing from the fleet becomes markup, an attribute that is obeyed, or a style.
"use strict";

const NOTHING = "–";
const byId = (id) => document.getElementById(id);
let last = null;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function count(number) {
  if (number === null || number === undefined) return NOTHING;
  return number < 10 && number !== Math.round(number)
    ? number.toFixed(1) : Math.round(number).toLocaleString("en");
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds < 9.95) return seconds.toFixed(1) + " s";
  if (seconds < 120) return Math.round(seconds) + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

function size(octets) {
  return octets === null || octets === undefined ? NOTHING : Math.round(octets / 1048576) + " MiB";
}

function clock(at) {
  return new Date(at * 1000).toISOString().slice(11, 19);
}

function verified(at, differences, now) {
  if (differences) return count(differences) + " differ";
  return at === null ? NOTHING : duration(Math.max(0, now - at)) + " ago";
}

function course(values) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 90 18");
  const path = document.createElementNS(space, "path");
  const highest = Math.max(...values, 0);
  const points = values.map((value, place) => {
    const x = values.length > 1 ? (90 * place) / (values.length - 1) : 0;
    return x.toFixed(1) + "," + (17 - (highest ? (16 * value) / highest : 0)).toFixed(1);
  });
  if (points.length > 1) path.setAttribute("d", "M" + points.join("L"));
  drawing.append(path);
  return drawing;
}

function progress(line) {
  const made = element("span");
  if (line.progress === null) return made;
  const shown = document.createElement("progress");
  shown.max = 1;
  shown.value = line.progress;
  const percent = line.progress >= 1 ? 100 : Math.min(99, Math.floor(line.progress * 100));
  const left = line.eta === null ? "" : ", " + duration(line.eta) + " left";
  made.append(shown, " " + percent + " %" + left);
  return made;
}

// Heading, class, and what stands in the cell: a text or an element.
const UNITS = [
  ["unit", "name", (l) => l.key],
  ["is", (l) => l.health, (l) => (l.health === "well" ? l.phase : l.health)],
  ["state", "", (l) => l.state],
  ["owner", "name", (l) => (l.owners.length > 1 ? l.owners.length + " workers" : l.owners[0] || NOTHING)],
  ["fence", "right", (l) => String(l.fence)],
  ["snapshot", "", progress],
  ["rows", "right", (l) => count(l.rows)],
  ["rows/s", "right", (l) => count(l.rate)],
  ["", "", (l) => course(l.history)],
  ["lag", "right", (l) => duration(l.lag)],
  ["log left", "right", (l) => l.headroom ?? NOTHING],
  ["set aside", "right", (l) => count(l.quarantined)],
  ["wait", "right", (l) => count(l.deferred)],
  ["verified", "", (l, now) => verified(l.verified_at, l.differences, now)],
];
const WORKERS = [
  ["worker", "name", (w) => w.id],
  ["units", "right", (w) => count(w.held)],
  ["slots", "right", (w) => (w.draining ? "drains" : count(w.slots))],
  ["heard", "right", (w) => (w.heard_ago === null ? NOTHING : duration(w.heard_ago) + " ago")],
  ["memory", "right", (w) => size(w.memory)],
];
const TABLES = [
  ["table", "name", (t) => t.table],
  ["schema", "name", (t) => t.schema],
  ["phase", "", (t) => t.phase],
  ["chunks", "right", (t) => (t.chunks ? t.chunks_done + " of " + t.chunks : NOTHING)],
  ["set aside", "right", (t) => count(t.quarantined)],
  ["wait", "right", (t) => count(t.deferred)],
  ["verified", "", (t, now) => verified(t.verified_at, t.differences, now)],
];

function fill(id, columns, rows, now) {
  const table = byId(id);
  const head = table.tHead.rows[0];
  if (!head.cells.length) {
    for (const [heading, kind] of columns) {
      head.append(element("th", heading, kind === "right" ? "right" : ""));
    }
  }
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const made = document.createElement("tr");
    for (const [, kind, cell] of columns) {
      const shown = cell(row, now);
      const box = element("td", undefined, typeof kind === "function" ? kind(row) : kind);
      box.append(shown);
      if (kind === "name") box.title = shown;
      made.append(box);
    }
    return made;
  }));
}

function facts(fleet) {
  const slots = fleet.workers.reduce((sum, worker) => sum + worker.slots, 0);
  const held = fleet.workers.reduce((sum, worker) => sum + worker.held, 0);
  const parts = [
    ["rows/s", count(fleet.rate)],
    ["worst lag", duration(fleet.worst_lag)],
    ["units", count(fleet.lines_in_all)],
    ["workers", count(fleet.workers.length)],
    ["slots held", held + " of " + slots],
    ["failed", count(fleet.health.failed || 0)],
  ];
  byId("facts").replaceChildren(...parts.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  const caught = byId("caught");
  caught.textContent = fleet.caught_up ? "caught up" : "not caught up";
  caught.className = fleet.caught_up ? "good" : "";
}

function curve(values) {
  const canvas = byId("course");
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const highest = Math.max(...values, 0);
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--bar");
  values.forEach((value, place) => {
    const height = highest ? Math.max(value > 0 ? 1 : 0, (38 * value) / highest) : 0;
    pen.fillRect(place * 8, 39 - height, 7, height + 1);
  });
}

function matches(line) {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const said = [line.key, line.phase, line.state, line.health, ...line.owners].join(" ").toLowerCase();
  return words.every((word) => said.includes(word));
}

function draw() {
  const fleet = last;
  if (!fleet) return;
  const lines = fleet.lines.filter(matches);
  facts(fleet);
  curve(fleet.history);
  fill("units", UNITS, lines, fleet.as_of);
  fill("workers", WORKERS, fleet.workers, fleet.as_of);
  fill("tables", TABLES, fleet.tables, fleet.as_of);
  byId("units-count").textContent = lines.length + " of " + fleet.lines_in_all;
  byId("tables-count").textContent = fleet.tables.length + " of " + fleet.tables_in_all;
  const news = fleet.news.map((one) => {
    const made = document.createElement("li");
    const sort = element("b", one.sort + " ", one.sort);
    made.append(element("time", clock(one.at)), sort, one.subject + ": " + one.text);
    return made;
  });
  byId("news").replaceChildren(...(news.length ? news : [element("li", "nothing in the last day")]));
  const coordinator = fleet.coordinator
    ? " by " + fleet.coordinator.id + (fleet.coordinator.leading ? ", which leads" : ", standing by")
    : "";
  byId("foot").textContent = "seen at " + clock(fleet.as_of) + " UTC" + coordinator;
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
}

const events = new EventSource("events");
events.onmessage = (event) => {
  last = JSON.parse(event.data);
  trouble("");
  draw();
};
events.addEventListener("trouble", (event) => {
  trouble("cannot look at the fleet: " + JSON.parse(event.data).error);
});
events.onerror = () => trouble("the coordinator does not answer; what stands below is old");
byId("filter").addEventListener("input", draw);
