"use strict";

// Lists and tables can be filtered: a field says what it filters, and a line how much of it is left.
for (const tools of document.querySelectorAll(".tools")) {
  const field = tools.querySelector("input");
  const count = tools.querySelector("output");
  const items = [...document.querySelectorAll(field.dataset.filters)];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    items.forEach((item, index) => {
      item.hidden = !words.every((word) => texts[index].includes(word));
      left += !item.hidden;
    });
    count.value = words.length ? `${left} of ${items.length}` : "";
  };
  field.addEventListener("input", show);
  tools.hidden = false;
  show(); // a reloaded page keeps what was typed
}

// Headers of a sortable table become buttons: the first click sorts up, the second one down.
const order = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (typeof a === "number" ? a - b : order.compare(a, b));
const value = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (text === "" || text === "-") return null;
  return cell.classList.contains("number") ? parseFloat(text) : text;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const head of heads.filter((cell) => !cell.classList.contains("fixed"))) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((cell) => cell.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[head.cellIndex]), row]);
      const [known, unknown] = [rows.filter(([key]) => key !== null), rows.filter(([key]) => key === null)];
      known.sort(([a], [b]) => (falls ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...[...known, ...unknown].map(([, row]) => row)); // unknown ones stay last
    });
  }
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
