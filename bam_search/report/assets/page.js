// What the page does when it is used: one selected candidate everywhere, tables that sort, filter and download, placements that are drawn.
// Text of the study only ever becomes textContent or an attribute's value; nothing of it is parsed as HTML.
"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const records = new Map(study.records.map((record) => [record.tag, record]));
  const figures = [...document.querySelectorAll(".plotly-graph-div")];
  const rows = [...document.querySelectorAll("tr[data-tag]")];
  const chances = new Map(study.found.finalists.map((one) => [one.tag, one.on_front_text]));
  let chosen = null; // the tag of the selected candidate
  let brushed = null; // the tags that a brush left, null for all
  const linkedTo = [], brushedTo = []; // what hears of a selection, and of a brush

  // ---- elements

  function element(name, attributes = {}, ...children) {
    const made = name in { svg: 1, rect: 1, line: 1, text: 1, title: 1, polyline: 1, g: 1 }
      ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  const points = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const signed = (value) => (value < 0 ? "" : "+") + value.toFixed(2);

  // A value of the metric: of a mean or a final training, or with `once` of a single training in the search.
  const metric = study.metric, title = [metric.name, metric.unit].filter(Boolean).join(", ");
  const measured = (value, once = false) => {
    const text = points(value, Math.max(metric.decimals - once, 0));
    return value === null || !metric.unit ? text : `${text} ${metric.unit}`;
  };

  // ---- a placement, drawn: the backbone's blocks from left to right, attention where it sits, its options below

  const COLOURS = { bam: "#0072b2", se: "#d55e00" };

  function slots() {
    // Sites in a block share its slot; any other site has a slot of its own, and so has the end of a stage.
    const found = [];
    for (const site of study.sites) {
      const last = found[found.length - 1], block = site.roles.includes("stage-ends") ? "" : site.block;
      const size = `${site.channels}×${Math.min(site.height, site.width)}²`;
      if (!block || !last || last.block !== block) found.push({ block, stage: site.stage, sites: [], size });
      found[found.length - 1].sites.push(site.name);
    }
    return found;
  }
  const layout = slots();

  // `choices` are by site, each with its module and options; null where a record's text is no placement.
  function strip(choices, label, { colourOf = null, scale = 1.8 } = {}) {
    const placed = new Map(Object.entries(choices || {})), width = 26, height = 46;
    const top = scale > 1 ? 0 : 8; // small drawings have no sizes above them
    const svg = element("svg", { class: "strip", role: "img", "aria-label": label,
      width: scale * width * layout.length, height: scale * (height - top),
      viewBox: `0 ${top} ${width * layout.length} ${height - top}` });
    svg.append(element("line", { class: "trunk", x1: 0, x2: width * layout.length, y1: 17, y2: 17 }));
    let stage = null;
    layout.forEach((slot, i) => {
      const x = i * width;
      if (slot.stage !== stage && slot.stage !== null && scale > 1) svg.append(element("text", { x: x + 1, y: 7 }, slot.size));
      stage = slot.stage;
      if (slot.block) {
        const shape = { class: "block", x: x + 2, y: 9, width: width - 4, height: 16, rx: 2 };
        svg.append(element("rect", shape, element("title", {}, slot.block)));
      }
      slot.sites.forEach((name, n) => {
        const choice = placed.get(name), heat = colourOf && colourOf(name);
        if (!choice && !heat) return;
        const left = x + width / 2 - 6 + 6 * (n - (slot.sites.length - 1) / 2);
        const shape = { x: left, y: 11, width: 12, height: 12, rx: slot.block ? 2 : 6, fill: heat || COLOURS[choice.module] || "#666" };
        svg.append(element("rect", shape, element("title", {}, name)));
        if (!choice) return;
        svg.append(element("text", { x: left + 3, y: 20, style: "fill:#fff" }, choice.module[0].toUpperCase()));
        Object.entries(choice.options).forEach(([name, value], k) => svg.append(element("text", { x: left - 1, y: 33 + 9 * k }, `${name}${value}`)));
      });
    });
    return svg;
  }

  const drawing = (record, options) => strip(record.choices, record.placement, options);

  // ---- what is known of a candidate

  function facts(record) {
    const ended = record.stopped ? "stopped" : record.failure ? "failed" : "–", n = record.test_metrics.length;
    const mean = n && record.test_metrics.reduce((a, b) => a + b) / n;
    const interval = record.latency_interval.map(signed).join(" to ");
    return [
      [`validation ${metric.name}`, record.val_metric === null ? ended : measured(record.val_metric, true)],
      [`mean test ${metric.name}`, n ? `${measured(mean)} (n = ${n})` : "not tested"],
      ...(chances.has(record.tag) ? [["on the front", chances.get(record.tag)]] : []),
      ["parameters", `${record.params.toLocaleString("en")} (${signed(record.params_overhead)} %)`],
      ["MACs, conv + fc", `${record.macs_conv_fc.toLocaleString("en")} (${signed(record.macs_conv_fc_overhead)} %)`],
      ["MACs, all operators", `${record.macs.toLocaleString("en")} (${signed(record.macs_overhead)} %)`],
      ["activations", `${record.activations.toLocaleString("en")} (${signed(record.activations_overhead)} %)`],
      ...(record.latency_overhead === null ? [] : [["latency", `${signed(record.latency_overhead)} % (${interval})`]]),
    ];
  }

  const table = (pairs) => element("table", {}, element("tbody", {}, ...pairs.map(([key, value]) =>
    element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, value)))));

  function titled(text, content) {
    return element("div", {}, element("h3", {}, text), content);
  }

  function curve(values) {
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    const at = values.map((one, i) => `${10 + (280 * i) / Math.max(values.length - 1, 1)},${10 + (60 * (low + span - one)) / span}`);
    const label = `validation ${metric.name}: ${values.map((one) => points(one, metric.decimals)).join(", ")}`;
    const ends = `${measured(values[0], true)} → ${measured(values[values.length - 1], true)}, ${values.length} epochs`;
    return element("svg", { role: "img", width: 300, height: 96, "aria-label": label },
      element("polyline", { points: at.join(" "), fill: "none", stroke: "#0072b2", "stroke-width": 2 }),
      element("text", { x: 10, y: 92, style: "fill:var(--ink);font:11px system-ui" }, ends));
  }

  function detail(record) {
    const title = `#${record.tag} ${record.name || record.origin}`;
    const costs = Object.entries(record.by_operator).map(([name, n]) => [name, n.toLocaleString("en")]);
    const tests = record.test_metrics.map((one, i) => [`seed ${record.test_seeds[i]}`, measured(one)]);
    const trace = record.failure || record.test_failure;
    document.getElementById("detail").replaceChildren(...[
      element("h3", {}, title), element("p", {}, element("code", {}, record.placement)), drawing(record),
      element("div", { class: "columns" },
        titled("What is known", table(facts(record))),
        costs.length ? titled("MACs by operator", table(costs)) : null,
        tests.length ? titled(`Test ${metric.name}`, table(tests)) : null,
        record.epoch_metrics.length > 1 ? titled(`Validation ${metric.name} by epoch`, curve(record.epoch_metrics)) : null),
      record.stopped ? element("p", {}, `Stopped ${record.stopped}`) : null,
      trace ? titled("The traceback", element("pre", {}, trace)) : null,
      titled("Commands", element("pre", {}, (study.commands || []).map((text) =>
        text.replaceAll("{tag}", record.tag).replaceAll("{placement}", () => record.placement)).join("\n"))),
    ].filter((child) => child !== null));
    document.getElementById("detail").hidden = false;
  }

  // ---- one selection for all

  function choose(tag, scroll = false) {
    if (!records.has(tag)) return;
    for (const row of rows) row.classList.toggle("chosen", row.dataset.tag === tag);
    chosen = tag;
    detail(records.get(tag));
    for (const hear of linkedTo) hear(tag);
    history.replaceState(null, "", `#candidate-${tag}`);
    if (scroll) document.getElementById("detail").scrollIntoView({ block: "nearest" });
  }

  function ring(tag) {
    // The last trace of a figure of candidates is an empty one, kept for the ring around the selected one.
    for (const figure of figures) {
      const last = figure.data.length - 1;
      if (figure.data[last].meta !== "ring") continue;
      const x = [], y = [];
      figure.data.forEach((trace, i) => {
        if (i === last || !trace.customdata || trace.visible === "legendonly") return;
        trace.customdata.forEach((other, k) => { if (other === tag) { x.push(value(trace.x, k)); y.push(value(trace.y, k)); } });
      });
      Plotly.restyle(figure, { x: [x], y: [y] }, [last]);
    }
  }

  // After the next paint: a figure of a thousand points takes a tenth of a second to draw, and the row and the detail need not wait.
  linkedTo.push((tag) => requestAnimationFrame(() => setTimeout(() => chosen === tag && ring(tag))));

  // plotly.js decodes arrays that came as base64 into typed arrays in `_inputArray`.
  const value = (array, k) => (array._inputArray || array)[k];

  // ---- figures

  const tip = element("div", { id: "tip", role: "tooltip" });
  tip.hidden = true;
  document.body.append(tip);

  function hovered(event) {
    const record = records.get(event.points[0].customdata);
    if (!record) return;
    tip.replaceChildren(element("b", {}, `#${record.tag} ${record.name || record.origin}`), element("br"), record.placement, element("br"),
      drawing(record, { scale: 1.2 }), table(facts(record)));
    tip.hidden = false;
    const at = event.event, left = Math.min(at.clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${Math.max(Math.min(at.clientY + 14, innerHeight - tip.offsetHeight - 8), 4)}px`;
  }

  function dress() {
    const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    for (const figure of figures) {
      const colours = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": of("--ink") };
      for (const axis of Object.keys(figure.layout).filter((key) => /^[xy]axis/.test(key))) {
        colours[`${axis}.gridcolor`] = of("--line");
        colours[`${axis}.zerolinecolor`] = of("--quiet");
      }
      Plotly.relayout(figure, colours);
    }
  }

  function brush(tags) {
    brushed = tags;
    for (const hear of brushedTo) hear();
  }

  for (const figure of figures) {
    const save = (format) => {
      const button = element("button", { type: "button" }, format.toUpperCase());
      const picture = { format, filename: "figure", width: 1100, height: 600, scale: format === "png" ? 2 : 1 };
      button.addEventListener("click", () => Plotly.downloadImage(figure, picture));
      return button;
    };
    // Beside plotly's own frame, whose height is fixed.
    figure.parentElement.after(element("div", { class: "controls" }, "save this figure:", save("svg"), save("png")));
    figure.on("plotly_hover", hovered);
    figure.on("plotly_unhover", () => { tip.hidden = true; });
    figure.on("plotly_click", (event) => choose(event.points[0].customdata));
    figure.on("plotly_selected", (event) => event && brush(new Set(event.points.map((point) => point.customdata))));
    figure.on("plotly_deselect", () => brush(null));
    figure.on("plotly_buttonclicked", () => setTimeout(() => chosen && ring(chosen)));
  }

  // ---- parallel coordinates: a line for each candidate, an axis for each site and objective; drag along an axis to brush

  function axes() {
    // Each axis gives a candidate's place between 0 and 1, and says what its ends are.
    const sites = study.axes.map((axis, i) => ({ name: axis.site, ends: [axis.choices[0], axis.choices[axis.choices.length - 1]],
      at: (record) => record.at[i] / Math.max(axis.choices.length - 1, 1) }));
    const keys = [[title, "val_metric", metric.decimals], ["params, +%", "params_overhead", 2], ["MACs, +%", "macs_conv_fc_overhead", 2]];
    const numbers = keys.map(([name, key, digits]) => {
      const all = lines.map((record) => record[key]), low = Math.min(...all), span = Math.max(...all) - low || 1;
      return { name, ends: [points(low, digits), points(low + span, digits)], at: (record) => (record[key] - low) / span };
    });
    return [...sites, ...numbers];
  }
  const lines = study.records.filter((record) => record.val_metric !== null && record.at);

  function parallel(into) {
    const own = axes(), width = 1100, height = 300, top = 44, low = 24, brushes = new Map(), drawn = new Map();
    const x = (i) => 50 + (i * (width - 100)) / (own.length - 1), y = (share) => height - low - share * (height - top - low);
    const svg = element("svg", { class: "parallel", role: "img", viewBox: `0 0 ${width} ${height}`,
      "aria-label": "parallel coordinates of the candidates; the table of all candidates says the same" });
    for (const record of lines) {
      const at = own.map((axis, i) => `${x(i).toFixed(1)},${y(axis.at(record)).toFixed(1)}`).join(" ");
      const line = element("polyline", { points: at, "data-tag": record.tag }, element("title", {}, `#${record.tag} ${record.placement}`));
      drawn.set(record.tag, line);
      svg.append(line);
    }
    const apply = () => {
      const inside = (record) => [...brushes].every(([i, { from, to }]) => from <= own[i].at(record) && own[i].at(record) <= to);
      brush(brushes.size ? new Set(lines.filter(inside).map((record) => record.tag)) : null);
    };
    own.forEach((axis, i) => {
      const range = element("rect", { class: "range", x: x(i) - 7, y: 0, width: 14, height: 0 });
      const hold = element("rect", { class: "hold", x: x(i) - 12, y: top, width: 24, height: height - top - low });
      const share = (event) => {
        const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        return Math.max(0, Math.min(1, (height - low - point.y) / (height - top - low)));
      };
      let start = null;
      hold.addEventListener("pointerdown", (event) => { start = share(event); hold.setPointerCapture(event.pointerId); });
      hold.addEventListener("pointermove", (event) => start !== null && show(start, share(event)));
      hold.addEventListener("pointerup", (event) => {
        const ends = [start, share(event)].sort((a, b) => a - b);
        const [from, to] = ends.map((at) => (at < 0.02 ? 0 : at > 0.98 ? 1 : at)); // who drags to an end means all of it
        start = null;
        if (to - from < 0.02) brushes.delete(i); else brushes.set(i, { from, to });
        if (to - from < 0.02) show(0, 0);
        apply();
      });
      const show = (one, other) => {
        range.setAttribute("y", y(Math.max(one, other)));
        range.setAttribute("height", Math.abs(one - other) * (height - top - low));
      };
      const text = (at, content) => element("text", { x: x(i), y: at, "text-anchor": "middle" }, content);
      svg.append(element("line", { x1: x(i), x2: x(i), y1: top, y2: height - low }), range, hold,
        text(i % 2 ? 26 : 12, axis.name), text(38, axis.ends[1]), text(height - 8, axis.ends[0]));
    });
    into.append(svg);
    linkedTo.push((tag) => {
      for (const [other, line] of drawn) line.classList.toggle("chosen", other === tag);
      if (drawn.has(tag)) svg.insertBefore(drawn.get(tag), svg.querySelector("line")); // on top of the other lines, below the axes
    });
    brushedTo.push(() => {
      for (const [tag, line] of drawn) line.classList.toggle("out", Boolean(brushed) && !brushed.has(tag));
      if (brushed) return;
      brushes.clear();
      for (const one of svg.querySelectorAll(".range")) one.setAttribute("height", 0);
    });
  }

  // ---- tables

  function number(text) {
    const found = text.replace(/,/g, "").match(/^[#R A]*([+-]?\d+(\.\d+)?)/);
    return found ? Number(found[1]) : NaN;
  }

  function sort(body, column, ascending) {
    const keyed = [...body.rows].map((row) => { const text = textOf(row.cells[column]); return { row, text, n: number(text) }; });
    // What is no number comes last, whichever way.
    keyed.sort((a, b) => isNaN(a.n) || isNaN(b.n)
      ? (isNaN(a.n) - isNaN(b.n)) || (ascending ? 1 : -1) * a.text.localeCompare(b.text) : (ascending ? 1 : -1) * (a.n - b.n));
    body.append(...keyed.map(({ row }) => row));
  }

  function sortable(made) {
    const heads = [...made.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(made.tBodies[0], column, ascending);
      });
    });
  }

  function controls(made) {
    const hint = "filter: layer3, bam(r=4), failed …";
    const input = element("input", { type: "search", placeholder: hint, "aria-label": "filter the candidates" });
    const count = element("span", { "aria-live": "polite" });
    const own = [...made.tBodies[0].rows];
    const lower = new Map(own.map((row) => [row, [...row.cells].map(textOf).join(" ").toLowerCase()]));
    const shown = () => [...made.tBodies[0].rows].filter((row) => !row.hidden);
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const row of own) {
        row.hidden = !(words.every((word) => lower.get(row).includes(word)) && (!brushed || brushed.has(row.dataset.tag)));
        n += !row.hidden;
      }
      count.textContent = `${n} of ${own.length}${brushed ? ", brushed" : ""}`;
    };
    brushedTo.push(apply);
    input.addEventListener("input", apply);
    const save = (name, kind, text) => {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => download(`candidates.${kind}`, text(shown())));
      return button;
    };
    const all = element("button", { type: "button" }, "All");
    all.addEventListener("click", () => { input.value = ""; brush(null); });
    made.parentElement.before(element("div", { class: "controls" }, input, count, all,
      save("CSV", "csv", (some) => [made.tHead.rows[0], ...some].map(csv).join("\n") + "\n"),
      save("JSON", "json", (some) => JSON.stringify(some.map((row) => records.get(row.dataset.tag)), null, 1))));
    apply();
  }

  const textOf = (cell) => (cell.classList.contains("drawn") ? cell.firstChild.textContent : cell.textContent); // without its drawing
  const csv = (row) => [...row.cells].map(textOf).map((text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text)).join(",");

  function download(name, text) {
    const link = element("a", { href: URL.createObjectURL(new Blob([text])), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const recordOf = (cell) => records.get(cell.parentElement.dataset.tag);

  // Drawings of a long table are made when they come into view.
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      target.append(drawing(recordOf(target), { scale: 1 }));
    }
  });
  for (const cell of document.querySelectorAll("td.drawn")) seen.observe(cell);

  for (const row of rows) row.tabIndex = 0;
  document.addEventListener("click", (event) => {
    const row = event.target.closest && event.target.closest("[data-tag]");
    if (row) choose(row.dataset.tag);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.dataset && event.target.dataset.tag) choose(event.target.dataset.tag);
  });
  for (const made of document.querySelectorAll("table")) if (made.tHead) sortable(made);
  for (const made of document.querySelectorAll("table.all")) controls(made);

  const lined = document.getElementById("parallel");
  if (lined && lines.length) parallel(lined);

  const heat = document.getElementById("heat");
  if (heat) heat.append(strip({}, "none", { colourOf: (name) => study.heat[name] || null }));

  const linked = () => { const found = location.hash.match(/^#candidate-(\w+)$/); if (found) choose(found[1], true); };
  addEventListener("hashchange", linked);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
  dress();
  linked();
  document.body.dataset.ready = "yes";
})();
