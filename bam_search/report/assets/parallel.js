// Parallel coordinates: an axis below the other for each site and objective, a line down through them for each candidate.
// Lines are on one canvas, as thousands of elements would be slow; axes are elements, so that keys reach them.

const lines = study.records.filter((record) => record.val_metric !== null && record.at);
const kept = new Map(); // by axis the part of it, from and to between 0 and 1, that is kept

// Each candidate's rank in the metric, from 0, the best, to 1.
const ranks = new Map();
{
  const sorted = [...lines].sort((a, b) => (metric.larger_is_better ? b.val_metric - a.val_metric : a.val_metric - b.val_metric));
  sorted.forEach((record, i) => ranks.set(record.tag, i / Math.max(sorted.length - 1, 1)));
}

// An axis of choices: each that was tried has a band, the wider the more often, in which its lines lie in the order of their metric.
function choiceAxis(axis, i) {
  const members = new Map();
  for (const record of lines) {
    if (!members.has(record.at[i])) members.set(record.at[i], []);
    members.get(record.at[i]).push(record);
  }
  const tried = [...members.keys()].sort((a, b) => a - b), widths = tried.map((j) => 1 + members.get(j).length ** 0.75);
  const whole = widths.reduce((a, b) => a + b, 0), at = new Map(), bands = [];
  let from = 0;
  tried.forEach((j, k) => {
    const to = from + widths[k] / whole, records = members.get(j).sort((a, b) => ranks.get(a.tag) - ranks.get(b.tag));
    records.forEach((record, n) => at.set(record.tag, from + (to - from) * (0.1 + (0.8 * (n + 0.5)) / records.length)));
    bands.push({ text: axis.choices[j], from, to });
    from = to;
  });
  return { name: axis.site, at, bands };
}

function numberAxis(name, key, digits) {
  const all = lines.map((record) => record[key]), low = Math.min(...all), span = Math.max(...all) - low || 1;
  const at = new Map(lines.map((record) => [record.tag, 0.02 + (0.96 * (record[key] - low)) / span]));
  const value = (share) => fixed(low + ((share - 0.02) / 0.96) * span, digits);
  return { name, at, value, ends: [fixed(low, digits), fixed(low + span, digits)] };
}

const own = [
  ...study.axes.map(choiceAxis),
  numberAxis(metricTitle, "val_metric", metric.decimals),
  numberAxis("params, %", "params_overhead", 2),
  numberAxis("MACs, %", "macs_conv_fc_overhead", 2),
];
const ROW = own.length > 14 ? 38 : 46; // pixels from an axis to the next

// What of an axis is kept, in words.
function keptWords(i) {
  const part = kept.get(i), axis = own[i];
  if (!part) return "all";
  if (axis.value) return `${axis.value(part[0])} to ${axis.value(part[1])}`;
  return axis.bands.filter(({ from, to }) => part[0] <= (from + to) / 2 && (from + to) / 2 <= part[1]).map(({ text }) => text).join(", ");
}

function alongAxes() {
  if (!kept.size) return null;
  const inside = (record) => [...kept].every(([i, [from, to]]) => from <= own[i].at.get(record.tag) && own[i].at.get(record.tag) <= to);
  return new Set(lines.filter(inside).map((record) => record.tag));
}

// All brushes together: the box over the figure, and the parts of the axes.
function applyBrushes() {
  const all = [boxed(), alongAxes()].filter((one) => one !== null);
  brush(all.length ? all.reduce((one, other) => new Set([...one].filter((tag) => other.has(tag)))) : null);
}

function clearBrushes() {
  kept.clear();
  state.box = null;
  remember("box", null);
  remember("axes", null);
  if (drawn.has("figure-candidates")) draw("figure-candidates");
  brush(null);
}

function keep(i, part) {
  if (part) kept.set(i, part); else kept.delete(i);
  remember("axes", [...kept].map(([at, [from, to]]) => `${at}:${from.toFixed(3)}-${to.toFixed(3)}`).join(";"));
  applyBrushes();
}

function readKept() {
  kept.clear();
  for (const text of (address.get("axes") || "").split(";")) {
    const [, i, from, to] = text.match(/^(\d+):([\d.]+)-([\d.]+)$/) || [];
    if (own[i]) kept.set(Number(i), [Number(from), Number(to)]);
  }
}

// A mixture of two colours of the page, "rgb(1, 2, 3)" each.
function mixed(one, other, share) {
  const [a, b] = [one, other].map((text) => text.match(/[\d.]+/g).map(Number));
  return `rgb(${a.slice(0, 3).map((value, k) => Math.round(value + (b[k] - value) * share)).join(",")})`;
}

function parallel(into) {
  const canvas = element("canvas", { "aria-hidden": "true" }), frame = element("div", { class: "parallel" }, canvas);
  const tracks = own.map((axis, i) => trackOf(axis, i));
  own.forEach((axis, i) => frame.append(element("div", { class: "axis-row", style: `height:${ROW}px` },
    element("div", { class: "axis-name", title: axis.name }, axis.name), tracks[i])));
  const ends = [...lines].sort((a, b) => ranks.get(a.tag) - ranks.get(b.tag)), middle = ends[Math.floor((ends.length - 1) / 2)];
  into.append(element("div", { class: "key" }, `${metric.name}, in ranks: best ${measured(ends[0].val_metric, true)}`, element("span", { class: "gradient" }),
    `worst ${measured(ends[ends.length - 1].val_metric, true)}, in the middle ${measured(middle.val_metric, true)}`), frame);

  // Where the line of a candidate crosses an axis, in pixels of the frame.
  let left = 0, width = 0;
  const x = (i, tag) => left + own[i].at.get(tag) * width, y = (i) => (i + 0.5) * ROW;

  function paint(scheme = "") {
    const colour = coloursOf(scheme), [best, between, worst, quiet, ink, line] = ["best", "middle", "worst", "other", "ink", "line"].map(colour);
    const box = frame.getBoundingClientRect(), track = tracks[0].getBoundingClientRect(), scale = devicePixelRatio || 1;
    left = track.left - box.left;
    width = track.width;
    canvas.width = box.width * scale;
    canvas.height = box.height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const stroke = (tag) => {
      pen.beginPath();
      own.forEach((_, i) => (i ? pen.lineTo(x(i, tag), y(i)) : pen.moveTo(x(i, tag), y(i))));
      pen.stroke();
    };
    pen.fillStyle = line;
    own.forEach((axis, i) => {
      for (const { from, to } of axis.bands || [{ from: 0, to: 1 }]) pen.fillRect(left + from * width + 1, y(i) - 4, (to - from) * width - 2, 8);
    });
    const inside = ends.filter((record) => !brushed || brushed.has(record.tag)).reverse(); // the best on top
    if (brushed) {
      pen.globalAlpha = Math.min(0.12, 20 / lines.length);
      pen.strokeStyle = quiet;
      for (const record of ends) if (!brushed.has(record.tag)) stroke(record.tag);
    }
    pen.lineWidth = 1.2;
    for (const { tag } of inside) {
      const rank = ranks.get(tag);
      pen.globalAlpha = Math.max(Math.min(0.65, 40 / inside.length), 0.75 * Math.exp(-14 * rank)); // the best stand out of the crowd
      pen.strokeStyle = rank < 0.5 ? mixed(best, between, 2 * rank) : mixed(between, worst, 2 * rank - 1);
      stroke(tag);
    }
    if (chosen === null || !ranks.has(chosen)) return;
    pen.globalAlpha = 1;
    pen.lineWidth = 3;
    pen.strokeStyle = ink;
    stroke(chosen);
  }

  // The candidate whose line is nearest to a point, at most 8 pixels away.
  function nearest(event) {
    const box = frame.getBoundingClientRect(), px = event.clientX - box.left, py = (event.clientY - box.top) / ROW - 0.5;
    const i = Math.max(0, Math.min(own.length - 2, Math.floor(py))), share = Math.max(0, Math.min(1, py - i));
    let found = null, least = 8;
    for (const { tag } of lines) {
      if (brushed && !brushed.has(tag)) continue;
      const away = Math.abs(x(i, tag) + (x(i + 1, tag) - x(i, tag)) * share - px);
      if (away < least) [found, least] = [tag, away];
    }
    return found;
  }
  const onTrack = (event) => event.target.closest(".axis-track");
  frame.addEventListener("click", (event) => { const tag = onTrack(event) ? null : nearest(event); if (tag !== null) choose(tag); });
  frame.addEventListener("pointermove", (event) => {
    const tag = event.pointerType === "mouse" && !onTrack(event) ? nearest(event) : null;
    if (tag === null) tip.hidden = true; else showTip(records.get(tag), event);
  });
  frame.addEventListener("pointerleave", () => { tip.hidden = true; });

  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => setTimeout(() => { waiting = false; paint(); }));
  };
  linkedTo.push(later);
  brushedTo.push(later, () => tracks.forEach((track, i) => showKept(track, i)));
  new ResizeObserver(later).observe(frame);
  repaints.push(paint);
}
const repaints = []; // what draws again in other colours

function showKept(track, i) {
  const part = kept.get(i), mark = track.querySelector("i");
  mark.hidden = !part;
  if (part) Object.assign(mark.style, { left: `${100 * part[0]}%`, width: `${100 * (part[1] - part[0])}%` });
  track.setAttribute("aria-valuetext", keptWords(i));
  track.setAttribute("aria-valuenow", part ? Math.round(100 * part[0]) : 0);
}

// An axis: its numbers or choices, and what drags, clicks and keys do.
function trackOf(axis, i) {
  const track = element("div", { class: "axis-track", role: "slider", tabindex: 0, "aria-label": `what is kept of ${axis.name}`,
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0 }, element("i"));
  track.append(...(axis.value ? numberTexts(axis) : choiceTexts(axis)));
  showKept(track, i);
  const share = (event) => {
    const box = track.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  let start = null;
  track.addEventListener("pointerdown", (event) => { start = share(event); track.setPointerCapture(event.pointerId); });
  track.addEventListener("pointercancel", () => { start = null; }); // a swipe that scrolls
  track.addEventListener("pointermove", (event) => {
    if (start === null || Math.abs(share(event) - start) < 0.01) return;
    keep(i, snapped(axis, [start, share(event)].sort((a, b) => a - b)));
  });
  track.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(share(event) - start) < 0.01) clicked(i, start);
    start = null;
  });
  track.addEventListener("keydown", (event) => {
    const sign = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace" || (event.key === "Escape" && kept.has(i))) keep(i, null);
    else if (sign) keep(i, moved(axis, kept.get(i), sign, event.shiftKey));
    else return;
    event.preventDefault();
  });
  return track;
}

// A part with whole choices in it; who drags to an end means all of it.
function snapped(axis, [from, to]) {
  if (axis.value) return [from < 0.02 ? 0 : from, to > 0.98 ? 1 : to];
  const touched = axis.bands.filter((band) => band.from <= to && from <= band.to);
  return [touched[0].from, touched[touched.length - 1].to];
}

const alike = (one, other) => one && other && Math.abs(one[0] - other[0]) + Math.abs(one[1] - other[1]) < 1e-3;

// A click keeps one choice, and a second one all again.
function clicked(i, share) {
  const band = (own[i].bands || []).find(({ from, to }) => from <= share && share <= to), part = band ? [band.from, band.to] : null;
  keep(i, alike(part, kept.get(i)) ? null : part);
}

// Arrow keys move the part by a choice or a twentieth; with Shift they move its end.
function moved(axis, part, sign, wider) {
  const stops = axis.bands ? [0, ...axis.bands.map(({ to }) => to)] : Array.from({ length: 21 }, (_, k) => k / 20), last = stops.length - 1;
  if (!part) return sign > 0 ? [stops[0], stops[1]] : [stops[last - 1], stops[last]];
  const nearest = (value) => stops.reduce((found, stop, k) => (Math.abs(stop - value) < Math.abs(stops[found] - value) ? k : found), 0);
  const [from, to] = part.map(nearest);
  if (wider) return [stops[from], stops[Math.max(from + 1, Math.min(last, to + sign))]];
  const by = Math.max(-from, Math.min(last - to, sign));
  return [stops[from + by], stops[to + by]];
}

const numberTexts = (axis) => [element("span", { class: "first", style: "left:3px" }, axis.ends[0]), element("span", { class: "last", style: "left:calc(100% - 3px)" }, axis.ends[1])];

// The choices that have room, each above its band.
function choiceTexts(axis) {
  const room = Math.min(innerWidth, 1180) - 160;
  let free = 0; // from here on nothing is written yet
  return axis.bands.flatMap(({ text, from }) => {
    if (from * room < free) return [];
    free = from * room + text.length * 6.6 + 8;
    return free > room + 12 ? [] : [element("span", { style: `left:calc(${100 * from}% + 1px)` }, text)];
  });
}
