"use strict";
// Sorts tables, switches between machines and workloads, shows embedded records, and unfolds all parts for printing.

function order(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.order !== undefined) return Number(cell.dataset.order);
  return cell.classList.contains("missing") || cell.classList.contains("number") ? null : cell.textContent;
}

function compare(a, b, direction) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  if (typeof a === typeof b && typeof a === "number") return direction * (a - b);
  return direction * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(header) {
  const table = header.closest("table");
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [order(row, header.cellIndex), row]);
  rows.sort((a, b) => compare(a[0], b[0], ascending ? 1 : -1));
  body.append(...rows.map((pair) => pair[1]));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}

// The switch hides parts of other workloads and machines. Without it all parts are shown one below the other.
const choice = document.getElementById("switch");
const belonging = Array.from(document.querySelectorAll("[data-view]"));

function show(view) {
  for (const element of belonging) element.hidden = view !== "" && element.dataset.view !== view;
  const hidden = belonging.filter((element) => element.hidden).length;
  choice.value = view;
  document.querySelector(".switch-note").textContent =
    hidden ? "Tables and plots of other workloads and machines are hidden; summary, machines and history show all." : "";
}

// A link to a hidden part shows the choice that it belongs to.
function follow() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const within = target && target.closest("[data-view]");
  if (within && within.hidden) {
    show(within.dataset.view);
    target.scrollIntoView();
  }
}

if (choice) {
  choice.closest(".switch").hidden = false;
  choice.addEventListener("change", () => show(choice.value));
  addEventListener("hashchange", follow);
  show("");
}

// Characters that could reorder or hide the text around them are shown as escapes.
function visible(text) {
  return text.replace(/[^\P{C}\n]|[\u2028\u2029]/gu, (char) => "\\u" + char.codePointAt(0).toString(16).padStart(4, "0"));
}

for (const details of document.querySelectorAll("details.raw")) {
  details.addEventListener("toggle", () => {
    const shown = details.querySelector("pre");
    if (details.open && !shown.textContent) {
      const record = JSON.parse(details.querySelector("script").textContent);
      shown.textContent = visible(JSON.stringify(record, null, 2));
    }
  });
}

// For printing everything is unfolded; help that several tables share appears once.
let folded = [];
addEventListener("beforeprint", () => {
  const said = new Set();
  folded = Array.from(document.querySelectorAll("details:not([open]):not(.raw)")).filter((details) => {
    const known = details.matches(".help") && said.has(details.textContent);
    said.add(details.textContent);
    return !known;
  });
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
