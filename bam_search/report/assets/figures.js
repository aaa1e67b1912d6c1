// The figures of single trainings, drawn by plotly.js when they come into sight.

const probe = element("span", { class: "unseen" });
document.body.append(probe);

// The page's colours by name, in a scheme: "light", "dark", or "" for the reader's.
function coloursOf(scheme) {
  probe.style.colorScheme = scheme;
  return (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
}

const picture = study.candidates;
const SYMBOLS = { triangle: "triangle-up", cross: "cross-thin-open", x: "x-thin-open" };

function layoutOf(colour, xTitle, yTitle, height) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("quiet"), linecolor: colour("quiet"), automargin: true };
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, margin: { l: 60, r: 20, t: 30, b: 50 }, dragmode: touched ? false : "select", uirevision: "kept",
    font: { family: "system-ui, sans-serif", color: colour("ink"), size: 12.5 }, hoverlabel: { align: "left" }, modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("ink") },
    legend: { orientation: "h", y: -0.17, x: 0 }, xaxis: { ...axis, title: { text: xTitle } }, yaxis: { ...axis, title: { text: plain(yTitle) } } };
}

const touched = matchMedia("(pointer: coarse)").matches; // a swipe over a figure scrolls the page

const CROWD = 120; // more points than this have no bars: they would hide each other

const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly renders some tags
const rung = (record) => record.rung_metrics[record.rung_metrics.length - 1];

function pointsOf(group, axis, colour) {
  const own = group.tags.map((tag) => records.get(tag));
  const values = { validation: (one) => one.val_metric, "last rung": rung, failed: () => picture.beyond ?? 0 }[group.values];
  const looks = { symbol: SYMBOLS[group.shape] || group.shape, color: colour(group.look), size: own.length > CROWD ? 7 : 10, line: { width: 1.4, color: /open|cross|^x$/.test(group.shape) ? colour(group.look) : colour("paper") } };
  const bars = group.values === "validation" && own.length <= CROWD ? { error_y: { array: own.map((one) => one.val_standard_error || 0), thickness: 0.8, width: 2, color: colour(group.look) } } : {};
  return { x: own.map((one) => one[axis]), y: own.map(values), customdata: group.tags, name: plain(group.name), mode: "markers", marker: looks, hoverinfo: "none", ...bars };
}

function candidateTraces(axis, colour, tag) {
  const line = (name, points, look) => ({ x: points.map(([one]) => records.get(one)[axis]), y: points.map(([, y]) => y), name, mode: "lines",
    line: { shape: "hv", width: 1.6, ...look }, hoverinfo: "skip" });
  const once = picture.fronts[axis].map((one) => [one, records.get(one).val_metric]), tested = [...finalists].map(([one, { test }]) => [one, test]).filter(([one]) => records.get(one)[axis] !== null);
  const traces = [line("optimistic front: as measured once", once, { color: colour("front"), dash: "dot" })];
  if (tested.length) traces.push({ ...line("confident front: worse ends of the finalists' intervals", picture.confident[axis], { color: colour("ink") }), visible: "legendonly" });
  traces.push(...picture.groups.map((group) => pointsOf(group, axis, colour)));
  if (tested.length) traces.push({ x: tested.map(([one]) => records.get(one)[axis]), y: tested.map(([, test]) => test.mean), customdata: tested.map(([one]) => one), name: `mean test ${plain(metric.name)} of finalists`,
    mode: "markers", visible: "legendonly", hoverinfo: "none", marker: { symbol: "x-thin", size: 9, line: { width: 2, color: colour("ink") } },
    error_y: { array: tested.map(([, test]) => test.sd || 0), thickness: 0.8, width: 2, color: colour("ink") } });
  return [...traces, ringTrace(traces, tag, { mode: "markers", marker: { symbol: "circle-open", size: 20, color: colour("ink"), line: { width: 3 } } })];
}

// The last trace goes around the selected candidate.
function ringTrace(traces, tag, look) {
  const x = [], y = [];
  for (const trace of traces) {
    if (!trace.customdata || trace.visible === "legendonly") continue;
    trace.customdata.forEach((other, k) => { if (other === tag) { x.push(trace.x[k]); y.push(trace.y[k]); } });
  }
  return { x, y, meta: "ring", showlegend: false, hoverinfo: "skip", ...look };
}

function curveTraces(colour, tag) {
  // All curves are one trace, with a gap after each: a trace for each would take seconds to draw.
  const x = [], y = [], customdata = [];
  for (const record of study.records.filter((one) => ["reference", "search"].includes(one.origin) && one.epoch_metrics.length > 1)) {
    record.epoch_metrics.forEach((value, i) => { x.push(i + 1); y.push(value); customdata.push(record.tag); });
    x.push(null); y.push(null); customdata.push(record.tag);
  }
  const lines = { x, y, customdata, mode: "lines+markers", line: { width: 1, color: colour("front") }, marker: { size: 4 }, opacity: 0.55, hoverinfo: "none", showlegend: false };
  return [lines, ringTrace([lines], tag, { mode: "lines", line: { width: 4, color: colour("worse") } })];
}

const FIGURES = {
  "figure-candidates": {
    traces: (colour) => candidateTraces(state.axis, colour, chosen),
    layout: (colour) => {
      const made = layoutOf(colour, `overhead in ${picture.axes[state.axis]}, %`, `validation ${metricTitle}`, 540), base = records.get(picture.baseline);
      made.xaxis.type = state.log ? "log" : "linear";
      made.xaxis.uirevision = `${state.axis} ${state.log}`; // a zoom is of its axis
      if (base) Object.assign(made, { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: base.val_metric, y1: base.val_metric, line: { dash: "dash", width: 1, color: colour("quiet") } }],
        annotations: [{ xref: "paper", x: 1, xanchor: "right", y: base.val_metric, yanchor: "bottom", text: plain(base.name), showarrow: false }] });
      if (state.box) made.selections = [{ type: "rect", xref: "x", yref: "y", x0: state.box[0], x1: state.box[1], y0: state.box[2], y1: state.box[3], line: { color: colour("ink"), width: 1.5, dash: "dot" } }];
      return made;
    },
  },
  "figure-curves": { traces: (colour) => curveTraces(colour, chosen), layout: (colour) => {
    const made = layoutOf(colour, "epoch", `validation ${metricTitle}`, 340), longest = Math.max(...study.records.map((one) => one.epoch_metrics.length));
    made.xaxis.dtick = Math.max(1, Math.floor(longest / 10));
    return made;
  } },
};

const state = { axis: Object.keys(picture.axes)[0], log: false, box: null };
function readState() {
  state.axis = address.get("axis") in picture.axes ? address.get("axis") : Object.keys(picture.axes)[0];
  state.log = address.get("scale") === "log" && picture.has_log;
  const ends = (address.get("box") || "").split(",").map(Number);
  state.box = ends.length === 4 && ends.every(Number.isFinite) ? ends : null;
}
readState();

// The tags in the box that was dragged over the figure; null without one.
function boxed() {
  if (!state.box) return null;
  const [x0, x1, y0, y1] = state.box, inside = new Set();
  for (const trace of candidateTraces(state.axis, () => "", null)) {
    if (!trace.customdata || trace.visible === "legendonly") continue;
    trace.customdata.forEach((tag, k) => { if (x0 <= trace.x[k] && trace.x[k] <= x1 && y0 <= trace.y[k] && trace.y[k] <= y1) inside.add(tag); });
  }
  return inside;
}

const drawn = new Map(); // elements of figures that are drawn, by id

function draw(id, scheme = "") {
  const into = document.getElementById(id), colour = coloursOf(scheme);
  if (typeof Plotly === "undefined") return;
  const config = { displaylogo: false, responsive: true, showSendToCloud: false, modeBarButtonsToRemove: ["lasso2d", "toImage"] };
  Plotly.react(into, FIGURES[id].traces(colour), FIGURES[id].layout(colour), config);
  if (drawn.has(id)) return;
  drawn.set(id, into);
  into.on("plotly_hover", (event) => { const record = records.get(event.points[0].customdata); if (record) showTip(record, event.event); });
  into.on("plotly_unhover", () => { tip.hidden = true; });
  into.on("plotly_click", (event) => choose(event.points[0].customdata));
  into.on("plotly_selected", (event) => {
    if (!event || !event.range) return;
    const sorted = (ends) => [...ends].sort((a, b) => a - b);
    box([...sorted(event.range.x), ...sorted(event.range.y)]);
  });
  into.on("plotly_deselect", () => box(null));
}

function redraw(scheme = "") {
  for (const id of drawn.keys()) draw(id, scheme);
}

function box(ends) {
  state.box = ends;
  remember("box", ends && ends.map((one) => one.toPrecision(5)).join(","));
  applyBrushes();
}

// Saved pictures are light, whatever the reader's scheme is, and have no controls.
function save(id, format) {
  const colour = coloursOf("light"), layout = { ...FIGURES[id].layout(colour), paper_bgcolor: "#fff", selections: [] };
  Plotly.downloadImage({ data: FIGURES[id].traces(colour), layout }, { format, filename: id, width: 1100, height: 620, scale: format === "png" ? 2 : 1 });
}

function choice(text, options, value, act) {
  const made = element("select", {}, ...Object.entries(options).map(([key, words]) => element("option", key === value() ? { value: key, selected: "" } : { value: key }, words)));
  made.addEventListener("change", () => act(made.value));
  restored.push(() => { made.value = value(); });
  return element("label", {}, text, made);
}

function switchTo(changes) {
  Object.assign(state, changes);
  if (changes.axis) box(null); // a box is of its axis
  remember("axis", state.axis === Object.keys(picture.axes)[0] ? null : state.axis);
  remember("scale", state.log ? "log" : null);
  if (drawn.has("figure-candidates")) draw("figure-candidates");
}

function prepareFigure(id) {
  const into = document.getElementById(id);
  if (!into) return;
  if (typeof Plotly === "undefined") {
    into.classList.add("absent");
    into.append(element("p", { class: "warning" }, "This figure needs plotly.js, which could not be loaded from the network. The tables, the drawings and the picture of the front do without it."));
    return;
  }
  const controls = element("div", { class: "controls" });
  if (id === "figure-candidates") {
    controls.append(choice("overhead in", picture.axes, () => state.axis, (axis) => switchTo({ axis })));
    if (picture.has_log) controls.append(choice("scale", { linear: "linear", log: "logarithmic" }, () => (state.log ? "log" : "linear"), (scale) => switchTo({ log: scale === "log" })));
  }
  controls.append("save as", button("SVG", () => save(id, "svg")), button("PNG", () => save(id, "png")));
  into.before(controls);
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((one) => one.isIntersecting)) return;
    seen.disconnect();
    draw(id);
  }, { rootMargin: "300px" });
  seen.observe(into);
}

// After the next paint: a figure of a thousand points takes a tenth of a second to draw, and the row and the detail need not wait.
function ring() {
  for (const into of drawn.values()) {
    const { x, y } = ringTrace(into.data.slice(0, -1), chosen, {});
    Plotly.restyle(into, { x: [x], y: [y] }, [into.data.length - 1]);
  }
}
linkedTo.push((tag) => requestAnimationFrame(() => setTimeout(() => chosen === tag && ring())));
