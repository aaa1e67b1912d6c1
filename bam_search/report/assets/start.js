// All parts together, once the page is there.

for (const table of document.querySelectorAll("table")) {
  if (table.tHead && !table.matches(".all, .first")) sortable(table);
  if (table.matches(".all")) filterable(table);
  if (table.querySelector("tr[data-tag]")) {
    for (const row of table.tBodies[0].rows) row.tabIndex = -1;
    roving(table.tBodies[0], () => table.tBodies[0].rows);
  }
}
for (const picture of document.querySelectorAll(".panel")) roving(picture, () => picture.querySelectorAll(".mark"));
// Drawings have one height, and their cells have it before: rows that grow in sight would move from under a click.
const deepest = Math.max(0, ...[...records.values()].flatMap((record) => Object.values(record.choices || {}).map((choice) => Object.keys(choice.options).length)));
document.documentElement.style.setProperty("--strip", `${19 + 9 * deepest}px`);
for (const cell of document.querySelectorAll("td.drawn, td.sketch")) sights.observe(cell);

for (const head of document.querySelectorAll("th.where")) head.append(moduleKey());

const heatInto = document.getElementById("heat"), parallelInto = document.getElementById("parallel");
if (heatInto) drawHeat(heatInto);
if (parallelInto && lines.length) parallel(parallelInto);
Object.keys(FIGURES).forEach(prepareFigure);

// The contents scroll, and the address keeps what it says of the rest.
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", (event) => {
    const section = document.querySelector(link.getAttribute("href"));
    event.preventDefault();
    section.scrollIntoView();
    section.tabIndex = -1;
    section.focus({ preventScroll: true });
  });
}
const sections = [...document.querySelectorAll("nav a")].map((link) => [link, document.querySelector(link.getAttribute("href"))]);
const inSight = new IntersectionObserver(() => {
  const above = sections.filter(([, section]) => section && section.getBoundingClientRect().top < innerHeight / 3);
  for (const [link] of sections) link.removeAttribute("aria-current");
  if (above.length) above[above.length - 1][0].setAttribute("aria-current", "true");
}, { threshold: [0, 0.2, 0.5, 1] });
for (const section of document.querySelectorAll("section")) inSight.observe(section);

function recolour(scheme = "") {
  redraw(scheme);
  for (const paint of repaints) paint(scheme);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => recolour());
// On paper everything is there, light, and as wide as the paper; figures keep their pixels and are scaled.
const PAPER = 690; // CSS pixels between the margins of A4
const scaled = () => document.querySelectorAll(".figure, .parallel");
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  if (typeof Plotly !== "undefined") for (const id of Object.keys(FIGURES)) if (document.getElementById(id)) draw(id, "light");
  recolour("light");
  for (const one of scaled()) Object.assign(one.style, { zoom: PAPER / one.clientWidth, width: `${one.clientWidth}px` });
});
addEventListener("afterprint", () => {
  for (const one of scaled()) Object.assign(one.style, { zoom: "", width: "" });
  recolour();
});

function readAll() {
  readState();
  readKept();
  if (drawn.has("figure-candidates")) draw("figure-candidates");
  applyBrushes();
  choose(records.has(address.get("candidate")) ? address.get("candidate") : null);
}
restored.push(readAll);
readAll();
const linkedRow = (marked.get(chosen) || []).find((one) => one.matches("table.first tr, table.all tr"));
if (linkedRow) linkedRow.scrollIntoView({ block: "nearest" });
document.body.dataset.ready = "yes";
