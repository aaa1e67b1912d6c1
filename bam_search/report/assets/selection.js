// One selected candidate everywhere, its details in a panel that stays in sight; and one brush for all.

let chosen = null; // the tag of the selected candidate
let brushed = null; // the tags that brushes left, null for all
const linkedTo = [], brushedTo = []; // what hears of a selection, and of a brush
const panel = document.getElementById("detail");
const marked = new Map(); // rows and marks by tag
for (const one of document.querySelectorAll("main [data-tag]")) marked.set(one.dataset.tag, [...(marked.get(one.dataset.tag) || []), one]);

function facts(record) {
  const ended = record.stopped ? "stopped" : record.failure ? "failed" : "–", n = record.test_metrics.length;
  const finalist = finalists.get(record.tag), mean = finalist ? finalist.test.mean : n && record.test_metrics.reduce((a, b) => a + b) / n;
  const times = [["trained", ""], ["deployed", "deployed_"]].flatMap(([how, form]) => {
    const time = record[`${form}latency_overhead`], interval = record[`${form}latency_interval`].map(signed).join(" to ");
    const predicted = record[`predicted_${form}latency_overhead`];
    const words = [time === null ? null : `${signed(time)} % (${interval})`, predicted === null ? null : `predicted ${signed(predicted)} %`];
    return words.some(Boolean) ? [[`time as ${how}`, words.filter(Boolean).join(", ")]] : [];
  });
  return [
    [`validation ${metric.name}`, record.val_metric === null ? ended : measured(record.val_metric, true)],
    [`mean test ${metric.name}`, n ? `${measured(mean)} (n = ${n})` : "not tested"],
    ...(finalist ? [[`test ${metric.name} to expect`, measured(finalist.expected)], ["on the front", finalist.on_front_text]] : []),
    ["parameters", `${record.params.toLocaleString("en")} (${signed(record.params_overhead)} %)`],
    ["MACs, conv + fc", `${record.macs_conv_fc.toLocaleString("en")} (${signed(record.macs_conv_fc_overhead)} %)`],
    ["MACs, all operators", `${record.macs.toLocaleString("en")} (${signed(record.macs_overhead)} %)`],
    ["activations", `${record.activations.toLocaleString("en")} (${signed(record.activations_overhead)} %)`],
    ...times,
  ];
}

const pairs = (some) => element("table", {}, element("tbody", {}, ...some.map(([key, value]) =>
  element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, value)))));

const titled = (text, content) => element("div", {}, element("h3", {}, text), content);

function showDetail(record) {
  const costs = Object.entries(record.by_operator).map(([name, n]) => [name, n.toLocaleString("en")]);
  const tests = record.test_metrics.map((one, i) => [`seed ${record.test_seeds[i]}`, measured(one)]);
  const trace = record.failure || record.test_failure;
  const commands = (study.commands || []).map((text) => text.replaceAll("{tag}", record.tag).replaceAll("{placement}", () => record.placement));
  panel.replaceChildren(...[
    button("✕", () => choose(null), { class: "close", "aria-label": "close (Esc)" }),
    element("h2", { "aria-live": "polite" }, `#${record.tag} ${record.name || record.origin}`),
    element("code", {}, record.placement),
    drawing(record, { scale: 1.5, width: Math.max(4, Math.min(26, (panel.clientWidth - 40) / 1.5 / Math.max(slots.length, 1))) }),
    record.stopped ? element("p", {}, `Stopped ${record.stopped}`) : null,
    trace ? titled("The traceback", element("pre", {}, trace)) : null,
    element("div", { class: "columns" },
      titled("What is known", pairs(facts(record))),
      tests.length ? titled(`Test ${metric.name}`, pairs(tests)) : null,
      record.epoch_metrics.length > 1 ? titled(`Validation ${metric.name} by epoch`, curve(record.epoch_metrics)) : null,
      costs.length ? titled("MACs by operator", pairs(costs)) : null),
    commands.length ? titled("Commands", element("pre", {}, commands.join("\n"))) : null,
  ].filter((child) => child !== null));
  panel.scrollTop = 0;
}

function mark(tag, on) {
  for (const one of marked.get(tag) || []) {
    one.classList.toggle("chosen", on);
    if (on) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
  }
}

// Select a candidate, or none; `from` is what was clicked, and stays in sight.
function choose(tag, from = null) {
  if (tag !== null && !records.has(tag)) return;
  tip.hidden = true;
  mark(chosen, false);
  mark(tag, true);
  chosen = tag;
  panel.hidden = tag === null;
  document.body.classList.toggle("detailed", tag !== null);
  if (tag !== null) showDetail(records.get(tag));
  for (const hear of linkedTo) hear(tag);
  remember("candidate", tag);
  if (from) from.scrollIntoView({ block: "nearest" });
}

function brush(tags) {
  brushed = tags;
  for (const hear of brushedTo) hear();
}

// Rows and marks: one of each group can be reached by Tab, and arrow keys go on from there.
const visible = (one) => !one.hidden && one.getClientRects().length > 0;

function roving(group, items) {
  const all = () => [...items()].filter(visible);
  const first = all()[0];
  if (first) first.tabIndex = 0;
  group.addEventListener("focusin", (event) => {
    const item = event.target.closest("[data-tag]");
    if (!item || !group.contains(item)) return;
    for (const other of group.querySelectorAll("[data-tag][tabindex='0']")) other.tabIndex = -1;
    item.tabIndex = 0;
  });
  group.addEventListener("keydown", (event) => {
    const item = event.target.closest("[data-tag]"), step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!item) return;
    if (event.key === "Enter" || event.key === " ") choose(item.dataset.tag, item);
    else if (step || event.key === "Home" || event.key === "End") {
      const own = all(), at = own.indexOf(item);
      const next = own[event.key === "Home" ? 0 : event.key === "End" ? own.length - 1 : Math.min(Math.max(at + step, 0), own.length - 1)];
      next.focus();
      if (chosen !== null) choose(next.dataset.tag, next);
    } else return;
    event.preventDefault();
  });
}

document.addEventListener("click", (event) => {
  const item = event.target.closest && event.target.closest("main [data-tag]");
  if (item) choose(item.dataset.tag, item);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chosen !== null && !event.defaultPrevented) choose(null);
});

// ---- what is under the pointer

const tip = element("div", { id: "tip", role: "tooltip" });
tip.hidden = true;
document.body.append(tip);

function showTip(record, at) {
  tip.replaceChildren(element("b", {}, `#${record.tag} ${record.name || record.origin}`), element("br"), record.placement, element("br"),
    drawing(record, { scale: 1.01, width: Math.min(26, 390 / Math.max(slots.length, 1)) }), pairs(facts(record)));
  tip.hidden = false;
  const left = Math.min(at.clientX + 14, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(left, 4)}px`;
  tip.style.top = `${Math.max(Math.min(at.clientY + 14, innerHeight - tip.offsetHeight - 8), 4)}px`;
}

for (const mark of document.querySelectorAll(".mark")) {
  mark.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && showTip(records.get(mark.dataset.tag), event));
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
