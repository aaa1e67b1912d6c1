// A placement, drawn: the backbone's blocks from left to right, attention where it sits, its options below.

function slotsOf(sites) {
  // Sites in a block share its slot; any other site has a slot of its own, and so has the end of a stage.
  const found = [];
  for (const site of sites) {
    const last = found[found.length - 1], block = site.roles.includes("stage-ends") ? "" : site.block;
    const size = `${site.channels}×${Math.min(site.height, site.width)}²`;
    if (!block || !last || last.block !== block) found.push({ block, stage: site.stage, sites: [], size });
    found[found.length - 1].sites.push(site.name);
  }
  return found;
}
const slots = slotsOf(study.sites);

const colourOf = (module) => `m${Math.max(study.modules.indexOf(module), 0) % 7}`;
const letterOf = (module) => module[0].toUpperCase();

// `choices` are by site, each with its module and options; null where a record's text is no placement.
// `heat` gives a site's class and words instead of its module's colour.
function strip(choices, label, { heat = null, scale = 1.8, width = 26 } = {}) {
  const placed = new Map(Object.entries(choices || {})), large = scale > 1, top = large ? 0 : 8;
  const deepest = width < 26 ? 0 : Math.max(0, ...Object.values(choices || {}).map((choice) => Object.keys(choice.options).length));
  const bottom = 27 + 9 * deepest, whole = Math.max(width * slots.length, 1), box = Math.min(12, width - 1), tall = 12;
  const svg = element("svg", { class: "strip", role: "img", "aria-label": label, width: scale * whole, height: scale * (bottom - top),
    viewBox: `0 ${top} ${whole} ${bottom - top}`, preserveAspectRatio: "xMinYMid meet" });
  svg.append(element("line", { class: "trunk", x1: 0, x2: whole, y1: 17, y2: 17 }));
  let stage = null;
  slots.forEach((slot, i) => {
    const x = i * width, gap = Math.min(2, width / 8);
    if (slot.stage !== stage && slot.stage !== null && large) svg.append(element("text", { x: x + 1, y: 7 }, slot.size));
    stage = slot.stage;
    if (slot.block) svg.append(element("rect", { class: "block", x: x + gap, y: 9.5, width: width - 2 * gap, height: 15, rx: 2 },
      element("title", {}, slot.block)));
    slot.sites.forEach((name, n) => {
      const choice = placed.get(name), hot = heat && heat[name];
      if (!choice && !hot) return;
      const left = x + (width - box) / 2 + 6 * (n - (slot.sites.length - 1) / 2);
      const shape = { class: hot ? hot[0] : colourOf(choice.module), x: left, y: 17 - tall / 2, width: box, height: tall, rx: Math.min(slot.block ? 2 : 6, box / 2) };
      svg.append(element("rect", shape, element("title", {}, hot ? hot[1] : `${name}: ${choice.module}`)));
      if (hot || box < 10) return;
      svg.append(element("text", { class: "on", x: left + box / 2, y: 20, "text-anchor": "middle" }, letterOf(choice.module)));
      if (deepest) Object.entries(choice.options).forEach(([option, value], k) =>
        svg.append(element("text", { x: left - 1, y: 33 + 9 * k }, `${option}${value}`)));
    });
  });
  return svg;
}

const drawing = (record, options) => strip(record.choices, record.placement, options);

// A drawing of a given width in pixels, without options: for the first table.
const sketch = (record, pixels) => drawing(record, { scale: 1, width: Math.min(25.9, pixels / Math.max(slots.length, 1)) });

function curve(values) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const at = values.map((one, i) => `${10 + (240 * i) / Math.max(values.length - 1, 1)},${8 + (44 * (low + span - one)) / span}`);
  const label = `validation ${metric.name}: ${values.map((one) => fixed(one, metric.decimals)).join(", ")}`;
  const ends = `${measured(values[0], true)} → ${measured(values[values.length - 1], true)}, ${values.length} epochs`;
  return element("svg", { role: "img", width: 260, height: 76, "aria-label": label },
    element("polyline", { points: at.join(" "), style: "fill:none;stroke:var(--accent);stroke-width:2" }),
    element("text", { x: 10, y: 72, style: "fill:var(--ink);font:11px system-ui" }, ends));
}

function keyOf(entries) {
  return element("ul", { class: "key" }, ...entries.map(([look, words]) => element("li", {},
    element("svg", { width: 12, height: 12, "aria-hidden": "true" }, element("rect", { class: look, width: 12, height: 12, rx: 2 })), words)));
}

// Which module has which colour.
const moduleKey = () => keyOf(study.modules.map((module) => [colourOf(module), module]));

// Where attention helps: a drawing of all sites for each module, coloured by its effects.
function drawHeat(into) {
  if (!study.heat.modules) return;
  const parts = Object.entries(study.heat.modules).flatMap(([module, sites]) => {
    const words = Object.values(sites).map(([, text]) => text).join("; ");
    return [element("b", {}, module), element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `effects of ${module}` },
      strip({}, words, { heat: sites, scale: 1.6, width: Math.min(26, 700 / Math.max(slots.length, 1)) }))];
  });
  into.append(element("div", { class: "sketches" }, ...parts), keyOf(study.heat.key));
}
