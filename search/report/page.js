// Draws the figures in the colours of the style sheet, sorts tables, changes between light and dark.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
(() => {
  const root = document.documentElement;
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;

  function color(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  // A copy in which names of variables ("--accent") are colours; columns of numbers stay as they are.
  function painted(value) {
    if (typeof value === "string") return value.startsWith("--") ? color(value) : value;
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
    }
    return value;
  }

  function laidOut(layout) {
    const axis = {
      gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, ticks: "", automargin: true,
      title: { standoff: 10 },
    };
    const given = painted(layout);
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--text") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      margin: { l: 64, r: 24, t: 12, b: 52 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--text") } },
      ...given,
      xaxis: { ...axis, ...given.xaxis, title: { ...axis.title, ...given.xaxis?.title } },
      yaxis: { ...axis, ...given.yaxis, title: { ...axis.title, ...given.yaxis?.title } },
    };
  }

  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(name) {
    const target = document.getElementById(`figure-${name}`);
    if (target) Plotly.react(target, figures[name].traces.map(painted), laidOut(figures[name].layout), config);
  }

  const drawAll = () => Object.keys(figures).forEach(draw);

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    drawAll();
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", drawAll);
  document.getElementById("theme").addEventListener("click", () => {
    const current = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    setTheme(current === "dark" ? "light" : "dark");
  });
  let themeOnScreen;
  addEventListener("beforeprint", () => { themeOnScreen = root.dataset.theme; setTheme("light"); });
  addEventListener("afterprint", () => setTheme(themeOnScreen));

  // The name of a column is aligned as its numbers are.
  document.querySelectorAll("table").forEach(table =>
    table.querySelectorAll("th").forEach((header, column) => {
      const isNumber = [...table.tBodies[0].rows].some(row => row.cells[column].className === "number");
      header.classList.toggle("number", isNumber);
    }));

  function sortBy(table, column, header) {
    const body = table.tBodies[0];
    const descends = header.getAttribute("aria-sort") !== "descending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
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

  // One figure at a time, so that the page can be read and scrolled in between.
  const waiting = Object.keys(figures);
  (function next() {
    if (!waiting.length) {
      root.dataset.ready = Math.round(performance.now());
      return;
    }
    draw(waiting.shift());
    setTimeout(next);
  })();
})();
