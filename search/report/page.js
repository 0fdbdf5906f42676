// Draws the figures one after the other, sorts tables, changes between light and dark.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const current = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = current === "dark" ? "light" : "dark";
  });
  let themeOnScreen;
  addEventListener("beforeprint", () => { themeOnScreen = root.dataset.theme; root.dataset.theme = "light"; });
  addEventListener("afterprint", () => {
    if (themeOnScreen) root.dataset.theme = themeOnScreen;
    else delete root.dataset.theme;
  });

  // The name of a column is aligned as its numbers are.
  document.querySelectorAll("table").forEach(table =>
    table.querySelectorAll("th").forEach((header, column) => {
      const isNumber = [...table.tBodies[0].rows].some(row => row.cells[column]?.className === "number");
      header.classList.toggle("number", isNumber);
    }));

  function sortBy(table, column, header) {
    const body = table.tBodies[0];
    const descends = header.getAttribute("aria-sort") !== "descending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.replaceAll(",", "");
    const compare = (one, two) => {
      if (one === "–" || two === "–") return (one === "–") - (two === "–");  // missing values are last
      const difference = Number(one) - Number(two);
      const order = Number.isNaN(difference) ? one.localeCompare(two, "en", { numeric: true }) : difference;
      return descends ? -order : order;
    };
    const rows = [...body.rows].map(row => [key(row), row]).sort((one, two) => compare(one[0], two[0]));
    body.append(...rows.map(([, row]) => row));
    table.querySelectorAll("th").forEach(each => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descends ? "descending" : "ascending");
  }

  document.querySelectorAll("table.sortable").forEach(table =>
    table.querySelectorAll("th").forEach((header, column) =>
      header.addEventListener("click", () => sortBy(table, column, header))));

  const targets = [...document.querySelectorAll(".figure")];
  const widths = new Map();
  const observer = new ResizeObserver(entries => requestAnimationFrame(() => {
    for (const { target } of entries) {
      if (widths.get(target) === target.clientWidth) continue;
      widths.set(target, target.clientWidth);
      charts.draw(target, figures[target.dataset.figure]);
    }
  }));
  // One figure at a time, so that the page can be read and scrolled in between.
  (function next() {
    const target = targets.shift();
    if (!target) {
      root.dataset.ready = Math.round(performance.now());
      return;
    }
    widths.set(target, target.clientWidth);
    charts.draw(target, figures[target.dataset.figure]);
    observer.observe(target);
    setTimeout(next);
  })();
})();
