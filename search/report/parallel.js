// Parallel coordinates as SVG: every line is a candidate, every axis can be brushed.
"use strict";
(() => {
  const data = figures.parallel;
  const target = document.getElementById("parallel-lines");
  if (!data || !target) return;
  const { axes, candidates, scores } = data;
  const top = 44, bottom = 380, absent = 412, height = 440;
  const gap = Math.max(104, Math.min(230, (target.clientWidth - 150) / Math.max(1, axes.length - 1)));
  const left = 60;
  const width = left + gap * (axes.length - 1) + 110;
  const x = number => left + gap * number;
  const y = place => (place === null ? absent : bottom - place * (bottom - top));
  const ranges = new Map();

  function valueText(axis, value) {
    if (value === null) return "not drawn";
    return axis.labels ? axis.labels[value] : numberText(value);
  }

  // Of ticks that would overlap, the first remains.
  function spaced(ticks) {
    const shown = [];
    for (const tick of ticks) if (!shown.length || Math.abs(y(tick[0]) - y(shown.at(-1)[0])) >= 15) shown.push(tick);
    return shown;
  }

  const most = Math.floor((gap - 14) / 7);  // letters between two axes
  const cut = text => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const svg = svgElement(target, "svg", { width, height, role: "img", "aria-label": "Parallel coordinates of searched values" });
  const lines = candidates.map((candidate, number) => {
    const points = axes.map((axis, place) => `${x(place)},${y(axis.places[number]).toFixed(1)}`);
    const line = svgElement(svg, "path", { class: "line", d: `M${points.join("L")}`, style: `--score:${scores[number] ** 2}` });
    const values = axes.map(axis => `${axis.path}: ${valueText(axis, axis.values[number])}`);
    svgElement(line, "title", {}, [`candidate ${candidate}`, ...values].join("\n"));
    return line;
  });

  function show() {
    let kept = 0;
    lines.forEach((line, number) => {
      const inside = [...ranges].every(([place, [low, high]]) => {
        const at = y(axes[place].places[number]);
        return at >= low && at <= high;
      });
      line.classList.toggle("off", !inside);
      kept += inside;
    });
    const text = ranges.size ? `${kept} of ${lines.length} lines are within the ranges.` : "";
    document.getElementById("parallel-count").textContent = text;
  }

  function addBrush(place) {
    const mark = svgElement(svg, "rect", { class: "brush", x: x(place) - 7, width: 14, height: 0, visibility: "hidden" });
    const grip = svgElement(svg, "rect", { class: "grip", x: x(place) - 18, y: top - 8, width: 36, height: absent - top + 16 });
    let start = null;
    const at = event => Math.max(top - 8, Math.min(absent + 8, event.clientY - svg.getBoundingClientRect().top));
    grip.addEventListener("pointerdown", event => {
      start = at(event);
      grip.setPointerCapture(event.pointerId);
      ranges.delete(place);
      mark.setAttribute("visibility", "hidden");
      show();
    });
    grip.addEventListener("pointermove", event => {
      if (start === null || Math.abs(at(event) - start) < 3) return;
      const range = [Math.min(start, at(event)), Math.max(start, at(event))];
      ranges.set(place, range);
      mark.setAttribute("y", range[0]);
      mark.setAttribute("height", range[1] - range[0]);
      mark.setAttribute("visibility", "visible");
      show();
    });
    grip.addEventListener("pointerup", () => { start = null; });
  }

  axes.forEach((axis, place) => {
    const side = { x: x(place) + 8, "text-anchor": "start" };
    svgElement(svg, "line", { class: "axis", x1: x(place), x2: x(place), y1: top, y2: bottom });
    // Titles are in two rows, so that each has the room of two axes.
    const title = axis.title.length > 2 * most ? `…${axis.title.slice(1 - 2 * most)}` : axis.title;
    const label = svgElement(svg, "text", { class: "title", x: x(place), y: place % 2 ? 30 : 14, "text-anchor": "middle" }, title);
    svgElement(label, "title", {}, axis.path);
    for (const [at, text] of spaced(axis.ticks)) svgElement(svg, "text", { ...side, y: y(at) + 4 }, cut(text));
    if (axis.places.includes(null)) {
      svgElement(svg, "line", { class: "axis hidden", x1: x(place), x2: x(place), y1: bottom, y2: absent });
      svgElement(svg, "text", { ...side, class: "absent", y: absent + 4 }, "not drawn");
    }
    addBrush(place);
  });
})();
