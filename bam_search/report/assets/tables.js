// Tables that sort; the table of all candidates filters, goes to files and shows as many rows as one can read.

const SHOWN = 200; // so many rows of a long table are shown at first: a browser takes seconds to lay out thousands

const textOf = (cell) => (cell.classList.contains("drawn") && cell.firstChild ? cell.firstChild.textContent : cell.textContent); // without its drawing

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

// `key` is where the address keeps the order of the table, if it does; `after` is called when the order changed.
function sortable(table, key = null, after = () => {}) {
  const heads = [...table.tHead.rows[0].cells];
  const order = (column, ascending) => {
    for (const other of heads) other.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
    sort(table.tBodies[0], column, ascending);
    after();
  };
  heads.forEach((head, column) => {
    const words = [...head.childNodes].filter((one) => one.nodeName !== "svg").map((one) => one.textContent).join("").trim();
    if (!words) return;
    head.replaceChildren(button(words, () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      order(column, ascending);
      if (key) remember(key, `${ascending ? "" : "-"}${column}`);
    }), ...head.querySelectorAll("svg"));
  });
  if (!key) return;
  const read = () => { const wanted = address.get(key) || "", column = Math.abs(parseInt(wanted, 10)); if (heads[column]) order(column, !wanted.startsWith("-")); };
  restored.push(read);
  read();
}

// Spreadsheets run cells that begin like this as formulas.
const harmless = (text) => (/^[=+\-@\t\r]/.test(text) && isNaN(Number(text)) ? `'${text}` : text);
const csv = (row) => [...row.cells].map(textOf).map(harmless).map((text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text)).join(",");

function download(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function filterable(table) {
  const input = element("input", { type: "search", placeholder: "filter: layer3, bam(r=4), failed …", "aria-label": "filter the candidates" });
  const count = element("span", { "aria-live": "polite" }), body = table.tBodies[0];
  const lower = new Map([...body.rows].map((row) => [row, [...row.cells].map(textOf).join(" ").toLowerCase()]));
  let most = SHOWN;
  const more = button("", () => { most = Infinity; apply(); });
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of body.rows) {
      row.hidden = !(words.every((word) => lower.get(row).includes(word)) && (!brushed || brushed.has(row.dataset.tag)));
      n += !row.hidden;
      row.classList.toggle("later", n > most);
    }
    count.textContent = `${n} of ${body.rows.length}${brushed ? ", brushed" : ""}`;
    more.hidden = n <= most;
    more.textContent = `show all ${n}`;
  };
  brushedTo.push(apply);
  input.addEventListener("input", () => { remember("filter", input.value.trim()); apply(); });
  const read = () => { input.value = address.get("filter") || ""; apply(); };
  restored.push(read);
  const shown = () => [...body.rows].filter((row) => !row.hidden);
  const all = button("All", () => { input.value = ""; remember("filter", null); clearBrushes(); });
  table.parentElement.before(element("div", { class: "controls" }, input, count, all,
    button("CSV", () => download("candidates.csv", [table.tHead.rows[0], ...shown()].map(csv).join("\n") + "\n")),
    button("JSON", () => download("candidates.json", JSON.stringify(shown().map((row) => records.get(row.dataset.tag)), null, 1)))));
  table.parentElement.after(more);
  sortable(table, "sort", apply);
  read();
  table.classList.add("ready");
  // A selected row is shown, even if it is far down.
  linkedTo.push((tag) => { for (const row of marked.get(tag) || []) row.classList.remove("later"); });
}

// Drawings of a long table are made when they come into view.
const sights = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    sights.unobserve(target);
    const record = records.get(target.parentElement.dataset.tag);
    target.append(target.classList.contains("sketch") ? sketch(record, 190) : drawing(record, { scale: 1, width: Math.min(26, 380 / Math.max(slots.length, 1)) }));
  }
});
