"use strict";
// The page's own script. Texts of the recording are only ever set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const canvas = $("timeline");
const DRAWN = 30000; // exact mappings drawn at once; more are shown as tiles
const LISTED = 500; // rows of the table of mappings in view
const GUTTER = 196, TOP = 62, ROW = 20, SLIM = 9, HEADING = 20;
const SHORTEST = 500; // ns, the closest view

// -- what the page was given ------------------------------------------------------------

async function unpack(text, Type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

// 64-bit numbers come as all low halves, then all high halves.
function joined(halves, none) {
  const n = halves.length / 2;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const low = halves[i], high = halves[n + i];
    out[i] = none && low === 0xffffffff && high === 0xffffffff ? -1 : high * 4294967296 + low;
  }
  return out;
}

const exact = { rows: data.exact.rows, texts: data.exact.texts, tasks: data.exact.tasks };
const ranges = []; // of each lane in the exact arrays: [from, to)
const span = data.last - data.first;

async function load() {
  const packed = data.exact.columns;
  if (exact.rows) {
    exact.lane = await unpack(packed.lane, Uint16Array);
    const step = joined(await unpack(packed.step, Uint32Array));
    exact.held = joined(await unpack(packed.held, Uint32Array), true);
    exact.caller = await unpack(packed.caller, Uint32Array);
    exact.task = await unpack(packed.task, Uint32Array);
    exact.page = joined(await unpack(packed.page, Uint32Array));
    exact.kind = await unpack(packed.kind, Uint8Array);
    exact.depth = await unpack(packed.depth, Uint16Array);
    exact.line = joined(await unpack(packed.line, Uint32Array));
    exact.close = joined(await unpack(packed.close, Uint32Array));
    exact.start = new Float64Array(exact.rows); // ns after data.first
    exact.until = new Float64Array(exact.rows); // the latest end up to here in its lane
    for (let i = 0; i < exact.rows; i++) {
      const fresh = i === 0 || exact.lane[i] !== exact.lane[i - 1];
      exact.start[i] = step[i] + (fresh ? 0 : exact.start[i - 1]);
      exact.until[i] = fresh ? end(i) : Math.max(exact.until[i - 1], end(i));
    }
  }
  let at = 0;
  for (let lane = 0; lane < data.lanes.length; lane++) {
    const from = at;
    while (at < exact.rows && exact.lane[at] === lane) at++;
    ranges.push([from, at]);
  }
  for (const level of data.levels) {
    level.begun = await unpack(level.begun, Uint32Array);
    level.open = await unpack(level.open, Uint8Array);
    level.start -= data.first;
  }
}

const end = (i) => (exact.held[i] < 0 ? Math.max(span, exact.start[i]) : exact.start[i] + exact.held[i]);

// First position in [from, to) for which test is true; it stays true from there on.
function search(from, to, test) {
  while (from < to) {
    const middle = (from + to) >> 1;
    if (test(middle)) to = middle; else from = middle + 1;
  }
  return from;
}

// The mappings of a lane that overlap [a, b], as a range of which some may have ended before.
function overlapping(lane, a, b) {
  const [from, to] = ranges[lane];
  const first = search(from, to, (i) => exact.until[i] >= a);
  return [first, search(first, to, (i) => exact.start[i] > b)];
}

// -- texts ------------------------------------------------------------------------------

const counted = (n) => n.toLocaleString("en-US");
function time(ns) {
  const [unit, size] = ns >= 1e9 ? ["s", 1e9] : ns >= 1e6 ? ["ms", 1e6] : ns >= 1e3 ? ["µs", 1e3] : ["ns", 1];
  return `${Number((ns / size).toPrecision(4))} ${unit}`;
}
function clock(ns, digits) {
  return `${((ns + data.first) / 1e9).toFixed(digits)} s`;
}
const hex = (n) => "0x" + n.toString(16);
const laneName = (lane) => {
  const { cpu, name } = data.lanes[lane];
  return cpu >= 0 ? `CPU ${cpu}, ${name}` : name;
};
const pageName = (i) => ["page not recorded", `page ${hex(exact.page[i])}`, `frame ${hex(exact.page[i])}`][exact.kind[i]];

function described(i) {
  const held = exact.held[i] < 0 ? "still open at the end" : `${time(exact.held[i])} (to line ${exact.close[i]})`;
  return [
    `${laneName(exact.lane[i])}`,
    `${pageName(i)}, depth ${exact.depth[i]}`,
    `by ${exact.texts[exact.caller[i]] || "(caller not recorded)"}`,
    `in ${exact.tasks[exact.task[i]]}`,
    `at ${clock(exact.start[i], 6)}, line ${exact.line[i]}`,
    `held ${held}`,
  ].join("\n");
}

// -- the view ---------------------------------------------------------------------------

const view = { a: 0, b: span };
let picked = null; // the caller whose mappings stand out
let chosen = -1; // the mapping chosen by n and p
let rows = []; // what is drawn where: { lane, y, height } and headings
let width = 0, height = 0;

function layOut() {
  rows = [];
  let y = TOP, group = null;
  const permanent = $("permanent").checked;
  data.lanes.forEach((lane, number) => {
    if (lane.cpu === -1 && !permanent) return;
    if (lane.cpu !== group) {
      const words = lane.cpu >= 0 ? `CPU ${lane.cpu}` : lane.cpu === -1 ? "permanent windows" : "others";
      rows.push({ heading: words, y, height: HEADING });
      y += HEADING;
      group = lane.cpu;
    }
    const tall = lane.thin ? SLIM : ROW;
    rows.push({ lane: number, y, height: tall });
    y += tall;
  });
  height = y + 8;
  width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.setProperty("height", `${height}px`);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

const plot = () => Math.max(50, width - GUTTER - 8);
const toX = (ns) => GUTTER + ((ns - view.a) / (view.b - view.a)) * plot();
const toTime = (x) => view.a + ((x - GUTTER) / plot()) * (view.b - view.a);

function setView(a, b) {
  const long = Math.min(Math.max(b - a, Math.min(SHORTEST, span)), span);
  const middle = (a + b) / 2;
  view.a = Math.min(Math.max(middle - long / 2, 0), span - long);
  view.b = view.a + long;
  redraw();
}
function zoom(factor, around = (view.a + view.b) / 2) {
  const long = Math.min(Math.max((view.b - view.a) * factor, SHORTEST), span);
  const share = (around - view.a) / (view.b - view.a);
  setView(around - share * long, around - share * long + long);
}
function move(share) {
  const by = (view.b - view.a) * share;
  const a = Math.min(Math.max(view.a + by, 0), span - (view.b - view.a));
  setView(a, a + view.b - view.a);
}

let due = false;
function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; draw(); });
}

// -- drawing ----------------------------------------------------------------------------

function colours() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["card", "ink", "soft", "rule", "lane", "d1", "d2", "d3", "dp", "tile", "finding", "pick", "accent"];
  return Object.fromEntries(names.map((name) => [name, get(name)]));
}

function draw() {
  const pen = canvas.getContext("2d");
  const colour = colours();
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  drawRows(pen, colour);
  let inView = 0;
  const found = [];
  for (const row of rows) {
    if (row.lane === undefined) continue;
    const [from, to] = overlapping(row.lane, view.a, view.b);
    found.push([row, from, to]);
    inView += to - from;
  }
  const whole = exact.rows === data.mappings;
  const showExact = inView <= DRAWN;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, plot(), height);
  pen.clip();
  if (!showExact || !whole) drawTiles(pen, colour, showExact || picked ? 0.35 : 1);
  if (showExact) for (const [row, from, to] of found) drawExact(pen, colour, row, from, to);
  else if (picked) for (const [row, from, to] of found) drawPicked(pen, colour, row, from, to);
  drawFindings(pen, colour);
  pen.restore();
  drawTimes(pen, colour);
  drawOverview(pen, colour);
  canvas.dataset.from = String(view.a);
  canvas.dataset.to = String(view.b);
  canvas.dataset.mode = showExact ? "exact" : "tiles";
  tell(whole || showExact === false ? null : inView, inView, whole);
}

function drawRows(pen, colour) {
  for (const row of rows) {
    if (row.heading) {
      pen.fillStyle = colour.ink;
      pen.font = "600 12px system-ui, sans-serif";
      pen.fillText(row.heading, 0, row.y + row.height / 2);
      pen.font = "12px system-ui, sans-serif";
      continue;
    }
    pen.fillStyle = colour.lane;
    pen.fillRect(GUTTER, row.y + 1, plot(), row.height - 2);
    if (row.height === ROW) {
      pen.fillStyle = colour.soft;
      pen.fillText(data.lanes[row.lane].name, 10, row.y + row.height / 2, GUTTER - 18);
    }
  }
}

function level() {
  const pixel = (view.b - view.a) / plot();
  const fits = data.levels.filter((each) => each.width >= pixel);
  return fits[0] || data.levels[data.levels.length - 1];
}

function drawTiles(pen, colour, alpha) {
  const tiles = level();
  if (!tiles) return;
  const from = Math.max(0, Math.floor((view.a - tiles.start) / tiles.width));
  const to = Math.min(tiles.bins, Math.ceil((view.b - tiles.start) / tiles.width));
  const step = (tiles.width / (view.b - view.a)) * plot();
  pen.globalAlpha = alpha;
  for (const row of rows) {
    if (row.lane === undefined) continue;
    const base = row.lane * tiles.bins;
    const tall = row.height - 2;
    pen.fillStyle = data.lanes[row.lane].cpu === -1 ? colour.dp : colour.tile;
    for (let bin = from; bin < to; bin++) {
      const open = tiles.open[base + bin];
      if (!open && !tiles.begun[base + bin]) continue;
      const h = Math.max(1.5, Math.sqrt(open / 255) * tall);
      pen.fillRect(toX(tiles.start + bin * tiles.width), row.y + 1 + tall - h, Math.max(step, 1), h);
    }
  }
  pen.globalAlpha = 1;
}

function shade(colour, i, cpu) {
  if (cpu === -1) return colour.dp;
  return exact.depth[i] >= 3 ? colour.d3 : exact.depth[i] === 2 ? colour.d2 : colour.d1;
}

function drawExact(pen, colour, row, from, to) {
  const cpu = data.lanes[row.lane].cpu;
  const tall = row.height - 4;
  for (let i = from; i < to; i++) {
    const last = end(i);
    if (last < view.a) continue;
    const x = toX(exact.start[i]);
    const w = Math.max(1.2, toX(last) - x);
    pen.globalAlpha = picked !== null && functionOf(i) !== picked ? 0.2 : 1;
    pen.fillStyle = shade(colour, i, cpu);
    pen.fillRect(x, row.y + 2, w > 4 ? w - 0.6 : w, tall);
    if (exact.held[i] < 0) {
      pen.strokeStyle = colour.finding;
      pen.lineWidth = 2;
      pen.strokeRect(x + 1, row.y + 3, Math.max(w - 2, 1), tall - 2);
    }
    if (w > 70 && tall > 12) label(pen, colour, i, x, w, row);
    if (i === chosen) {
      pen.globalAlpha = 1;
      pen.strokeStyle = colour.pick;
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, row.y + 1, w + 2, tall + 2);
    }
  }
  pen.globalAlpha = 1;
}

function label(pen, colour, i, x, w, row) {
  const left = Math.max(x, GUTTER) + 4;
  const room = Math.min(x + w, GUTTER + plot()) - left - 4;
  const text = functionOf(i);
  if (room < 40) return;
  pen.fillStyle = colour.card;
  pen.save();
  pen.beginPath();
  pen.rect(left, row.y, room, row.height);
  pen.clip();
  pen.fillText(text, left, row.y + row.height / 2);
  pen.restore();
}

function drawPicked(pen, colour, row, from, to) {
  pen.fillStyle = colour.accent;
  for (let i = from; i < to; i++) {
    if (functionOf(i) !== picked) continue;
    pen.fillRect(toX(exact.start[i]), row.y + 1, Math.max(1, toX(end(i)) - toX(exact.start[i])), row.height - 2);
  }
}

function drawFindings(pen, colour) {
  pen.strokeStyle = pen.fillStyle = colour.finding;
  pen.lineWidth = 1.5;
  for (const found of data.findings) {
    if (found.ns === null) continue;
    const x = toX(found.ns - data.first);
    pen.beginPath();
    pen.moveTo(x, TOP - 4);
    pen.lineTo(x, height);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x - 5, TOP - 10);
    pen.lineTo(x + 5, TOP - 10);
    pen.lineTo(x, TOP - 2);
    pen.fill();
    const row = rowOf(found);
    if (!row) continue;
    pen.beginPath();
    pen.arc(x, row.y + row.height / 2, 5, 0, 2 * Math.PI);
    pen.fill();
  }
}

// The line of the window that a finding is about, if it has one.
function rowOf(found) {
  if (found.address === null) return undefined;
  const place = ` at ${hex(found.address - (found.address % 4096))}`;
  return rows.find(({ lane }) => lane !== undefined && data.lanes[lane].name.endsWith(place) &&
    (data.lanes[lane].cpu < 0 || data.lanes[lane].cpu === found.cpu));
}

function drawTimes(pen, colour) {
  const rough = ((view.b - view.a) / plot()) * 130;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((each) => each >= rough);
  const digits = Math.min(9, Math.max(0, Math.ceil(9 - Math.log10(step))));
  pen.fillStyle = colour.soft;
  pen.strokeStyle = colour.rule;
  pen.lineWidth = 1;
  pen.textAlign = "center";
  // Ticks are round times of the recording's clock, not of its beginning.
  const offset = data.first % step;
  for (let at = Math.ceil((view.a + offset) / step) * step - offset; at <= view.b; at += step) {
    const x = toX(at);
    pen.beginPath();
    pen.moveTo(x, TOP - 14);
    pen.lineTo(x, TOP - 6);
    pen.stroke();
    if (x > GUTTER + 30 && x < width - 40) pen.fillText(clock(at, digits), x, TOP - 22);
  }
  pen.textAlign = "left";
}

function drawOverview(pen, colour) {
  const tiles = data.levels[data.levels.length - 1];
  const tall = 24;
  pen.fillStyle = colour.lane;
  pen.fillRect(GUTTER, 2, plot(), tall);
  pen.fillStyle = colour.soft;
  pen.fillText("whole recording", 10, 2 + tall / 2);
  if (!tiles) return;
  const sums = new Float64Array(tiles.bins);
  for (let lane = 0; lane < data.lanes.length; lane++) {
    for (let bin = 0; bin < tiles.bins; bin++) sums[bin] += tiles.begun[lane * tiles.bins + bin];
  }
  const most = sums.reduce((a, b) => Math.max(a, b), 1);
  const scale = plot() / span;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, plot(), tall + 4);
  pen.clip();
  pen.globalAlpha = 0.7;
  for (let bin = 0; bin < tiles.bins; bin++) {
    if (!sums[bin]) continue;
    const h = Math.max(1, (sums[bin] / most) * (tall - 2));
    pen.fillRect(GUTTER + (tiles.start + bin * tiles.width) * scale, 2 + tall - h, Math.max(1, tiles.width * scale), h);
  }
  pen.restore();
  pen.strokeStyle = colour.accent;
  pen.lineWidth = 2;
  pen.strokeRect(GUTTER + view.a * scale, 2, Math.max(3, (view.b - view.a) * scale), tall);
}

// -- words about the view ---------------------------------------------------------------

let telling = 0;
function tell(_, inView, whole) {
  clearTimeout(telling);
  telling = setTimeout(() => {
    const digits = Math.min(9, Math.max(3, Math.ceil(12 - Math.log10(view.b - view.a + 1))));
    const kept = whole ? "" : " drawn exactly";
    $("range").textContent = `${clock(view.a, digits)} to ${clock(view.b, digits)} (${time(view.b - view.a)}), ` +
      `${counted(inView)} mappings${kept}`;
    if ($("in-view").open) listInView(inView);
  }, 120);
}

const functions = new Map();
function functionOf(i) {
  const number = exact.caller[i];
  let name = functions.get(number);
  if (name === undefined) {
    const text = exact.texts[number];
    const plus = text.indexOf("+");
    const symbol = plus < 0 ? text : text.slice(0, plus);
    const space = plus < 0 ? -1 : text.indexOf(" ", plus);
    name = (space < 0 ? symbol : `${symbol} ${text.slice(space + 1)}`) || "(caller not recorded)";
    functions.set(number, name);
  }
  return name;
}

function listInView(inView) {
  const body = $("in-view-body");
  body.replaceChildren();
  const list = [];
  if (inView <= 20 * LISTED) {
    for (const row of rows) {
      if (row.lane === undefined) continue;
      const [from, to] = overlapping(row.lane, view.a, view.b);
      for (let i = from; i < to; i++) if (end(i) >= view.a) list.push(i);
    }
    list.sort((i, j) => exact.start[i] - exact.start[j] || exact.line[i] - exact.line[j]);
  }
  const words = document.createElement("p");
  words.className = "none";
  const shown = Math.min(list.length, LISTED);
  words.textContent = inView > 20 * LISTED
    ? `${counted(inView)} mappings are in view: zoom in to list them.`
    : `${counted(shown)} of ${counted(list.length)} mappings in view.`;
  body.append(words);
  if (!shown) return;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["time", "line", "window", "page", "depth", "caller", "task", "held"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const rowsBody = table.createTBody();
  for (const i of list.slice(0, LISTED)) {
    const row = rowsBody.insertRow();
    const held = exact.held[i] < 0 ? "open at the end" : time(exact.held[i]);
    const cells = [clock(exact.start[i], 6), counted(exact.line[i]), laneName(exact.lane[i]), pageName(i),
      String(exact.depth[i]), exact.texts[exact.caller[i]], exact.tasks[exact.task[i]], held];
    for (const text of cells) row.insertCell().textContent = text;
  }
  const box = document.createElement("div");
  box.className = "scroll";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Mappings in view");
  box.append(table);
  body.append(box);
}

// -- pointing ---------------------------------------------------------------------------

function mappingAt(x, y) {
  const row = rows.find((each) => each.lane !== undefined && y >= each.y && y < each.y + each.height);
  if (!row || x < GUTTER || canvas.dataset.mode !== "exact") return [row, -1];
  const slack = ((view.b - view.a) / plot()) * 3;
  const at = toTime(x);
  const [from, to] = overlapping(row.lane, at - slack, at + slack);
  let best = -1, distance = Infinity;
  for (let i = from; i < to; i++) {
    if (end(i) < at - slack) continue;
    const far = at < exact.start[i] ? exact.start[i] - at : Math.max(0, at - end(i));
    if (far <= distance) { best = i; distance = far; }
  }
  return [row, best];
}

function tileWords(row, x) {
  const tiles = level();
  const bin = Math.floor((toTime(x) - tiles.start) / tiles.width);
  if (bin < 0 || bin >= tiles.bins) return "";
  const at = row.lane * tiles.bins + bin;
  const share = Math.round((tiles.open[at] / 255) * 100);
  return `${laneName(row.lane)}\n${counted(tiles.begun[at])} mappings begin in ${time(tiles.width)}\nopen ${share} % of the time`;
}

const tip = $("tip");
function showTip(text, x, y) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const left = Math.min(x + 14, width - tip.offsetWidth - 4);
  const below = y + 16 + tip.offsetHeight < height ? y + 16 : y - tip.offsetHeight - 10;
  tip.style.setProperty("left", `${Math.max(0, left)}px`);
  tip.style.setProperty("top", `${below}px`);
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  drag = { x: event.offsetX, a: view.a, b: view.b, overview: event.offsetY < 30 };
  if (drag.overview) jump(event.offsetX);
  else canvas.classList.add("dragging");
});
canvas.addEventListener("pointermove", (event) => {
  if (drag && drag.overview) return jump(event.offsetX);
  if (drag) {
    const by = ((drag.x - event.offsetX) / plot()) * (drag.b - drag.a);
    const a = Math.min(Math.max(drag.a + by, 0), span - (drag.b - drag.a));
    return setView(a, a + drag.b - drag.a);
  }
  const [row, i] = mappingAt(event.offsetX, event.offsetY);
  const tiles = row && i < 0 && event.offsetX > GUTTER && canvas.dataset.mode === "tiles" && data.levels.length;
  showTip(i >= 0 ? described(i) : tiles ? tileWords(row, event.offsetX) : "", event.offsetX, event.offsetY);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => { drag = null; canvas.classList.remove("dragging"); });
}
canvas.addEventListener("pointerleave", () => { if (chosen < 0) showTip(""); });
canvas.addEventListener("dblclick", (event) => zoom(0.25, toTime(event.offsetX)));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / plot());
  else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), toTime(Math.max(GUTTER, event.offsetX)));
}, { passive: false });

function jump(x) {
  const middle = ((x - GUTTER) / plot()) * span, half = (view.b - view.a) / 2;
  const a = Math.min(Math.max(middle - half, 0), span - 2 * half);
  setView(a, a + 2 * half);
}

// -- keys -------------------------------------------------------------------------------

let order = null; // the exact mappings by time
function choose(by) {
  if (!exact.rows) return;
  if (!order) {
    order = Uint32Array.from({ length: exact.rows }, (_, i) => i);
    order.sort((i, j) => exact.start[i] - exact.start[j] || exact.line[i] - exact.line[j]);
  }
  let at = chosen < 0 ? -1 : order.indexOf(chosen);
  const start = search(0, order.length, (n) => exact.start[order[n]] >= view.a);
  at = at < 0 ? (by > 0 ? start : start - 1) : at + by;
  const shown = new Set(rows.map((row) => row.lane));
  while (at >= 0 && at < order.length) {
    const i = order[at];
    if (shown.has(exact.lane[i]) && (picked === null || functionOf(i) === picked)) break;
    at += by;
  }
  if (at < 0 || at >= order.length) return;
  chosen = order[at];
  const long = view.b - view.a;
  const inside = exact.start[chosen] >= view.a && exact.start[chosen] <= view.b;
  if (canvas.dataset.mode === "tiles") {
    const near = Math.max(200 * Math.max(exact.held[chosen], 1000), 1e6);
    setView(exact.start[chosen] - near / 2, exact.start[chosen] + near / 2);
  } else if (!inside) {
    const a = Math.min(Math.max(exact.start[chosen] - long / 2, 0), span - long);
    setView(a, a + long);
  }
  redraw();
  const row = rows.find((each) => each.lane === exact.lane[chosen]);
  showTip(described(chosen), toX(exact.start[chosen]), row.y);
}

const KEYS = {
  "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "_": () => zoom(2),
  ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2),
  Home: () => setView(0, view.b - view.a), End: () => setView(span - (view.b - view.a), span),
  0: () => setView(0, span), n: () => choose(1), p: () => choose(-1),
  Escape: () => { chosen = -1; showTip(""); pick(null); },
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
$("zoom-in").addEventListener("click", () => zoom(0.5));
$("zoom-out").addEventListener("click", () => zoom(2));
$("left").addEventListener("click", () => move(-0.2));
$("right").addEventListener("click", () => move(0.2));
$("fit").addEventListener("click", () => setView(0, span));
$("permanent").addEventListener("change", () => { layOut(); redraw(); });
$("in-view").addEventListener("toggle", redraw);

for (const button of document.querySelectorAll(".show")) {
  button.addEventListener("click", () => {
    const found = data.findings[Number(button.dataset.finding)];
    const at = found.ns - data.first;
    const half = Math.min(span / 2, 2e6);
    setView(at - half, at + half);
    canvas.scrollIntoView({ block: "center" });
    canvas.focus({ preventScroll: true });
  });
}

// -- tables -----------------------------------------------------------------------------

function pick(name) {
  picked = name;
  for (const button of document.querySelectorAll(".pick")) {
    button.setAttribute("aria-pressed", String(button.textContent === name));
  }
  redraw();
}
for (const button of document.querySelectorAll(".pick")) {
  button.addEventListener("click", () => pick(picked === button.textContent ? null : button.textContent));
}

for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = head.cellIndex;
    const numbers = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : !numbers;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[column];
      return numbers ? Number(cell.dataset.value) : cell.textContent;
    };
    const sign = up ? 1 : -1;
    const sorted = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    sorted.sort(([a], [b]) => sign * (numbers ? a - b : a < b ? -1 : a > b ? 1 : 0));
    table.tBodies[0].append(...sorted.map(([, row]) => row));
  });
}
$("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of document.querySelectorAll("#callers-table tbody tr")) {
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  }
});

// -- light and dark ---------------------------------------------------------------------

const system = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
function nameTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
}
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
  redraw();
});
system.addEventListener("change", () => { nameTheme(); redraw(); });
nameTheme();

// -- begin ------------------------------------------------------------------------------

$("exactness").textContent = exact.rows === data.mappings
  ? `All ${counted(data.mappings)} mappings are in this page.`
  : `Of ${counted(data.mappings)} mappings the ${counted(exact.rows)} held longest are in this page one by one, ` +
    "all of them as density.";
const permanents = data.lanes.filter((lane) => lane.cpu === -1).length;
$("permanent-count").textContent = `(${counted(permanents)})`;
$("permanent").checked = permanents <= 16;
load().then(() => {
  layOut();
  draw();
  new ResizeObserver(() => { if (canvas.clientWidth !== width) { layOut(); draw(); } }).observe(canvas);
  document.body.dataset.ready = "yes";
}, () => {
  $("exactness").textContent = "This browser cannot unpack the timeline (it needs DecompressionStream); the tables below are complete.";
});
