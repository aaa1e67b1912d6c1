// What the page knows, and how it makes elements and numbers of it.
// Text of the study only ever becomes textContent or an attribute's value; nothing of it is parsed as HTML.

const study = JSON.parse(document.getElementById("study").textContent);
const records = new Map(study.records.map((record) => [record.tag, record]));
const finalists = new Map(study.found.finalists.map((one) => [one.tag, one]));
const metric = study.metric, metricTitle = [metric.name, metric.unit].filter(Boolean).join(", ");

const SVG = new Set(["svg", "rect", "line", "text", "title", "polyline", "g", "circle"]);

function element(name, attributes = {}, ...children) {
  const made = SVG.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function button(text, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}

// `+ 0` makes 0 of -0, which would be shown as "-0.00".
const fixed = (value, digits = 2) =>
  value === null || value === undefined ? "–" : (Number(value.toFixed(digits)) + 0).toFixed(digits);
const signed = (value) => (Number(value.toFixed(2)) < 0 ? "" : "+") + fixed(value);

// A value of the metric: of a mean or a final training, or with `once` of a single training in the search.
function measured(value, once = false) {
  const text = fixed(value, Math.max(metric.decimals - once, 0));
  return value === null || !metric.unit ? text : `${text} ${metric.unit}`;
}

// What one sees, in the address: a link to it shows the same. A fragment without "=" is an anchor.
const address = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

function remember(key, value) {
  if (value === null || value === "") address.delete(key); else address.set(key, value);
  const text = address.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

const restored = []; // what reads the address again after it changed
addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  for (const key of [...address.keys()]) address.delete(key);
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) address.set(key, value);
  for (const read of restored) read();
});
