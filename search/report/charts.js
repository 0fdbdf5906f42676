// Draws the figures as SVG, as wide as the page, with a legend and notes at the pointer. Their data: figures.py.
// Colours are variables of the style sheet, so that a change between light and dark needs no new drawing.
"use strict";

function svgElement(parent, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") element.style.cssText = value;  // a policy of a page may forbid the attribute
    else element.setAttribute(key, value);
  }
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function numberText(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) || Math.abs(value) >= 10000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}

const charts = (() => {
  const letter = 6.6;  // pixels of a letter, about
  const near = 24;  // pixels from the pointer to a point that gets a note
  let clips = 0;

  // From a value to pixels between two ends.
  function scale(axis, from, to) {
    const at = axis.log ? Math.log10 : Number;
    const low = at(axis.low), factor = (to - from) / (at(axis.high) - low);
    return value => from + (at(value) - low) * factor;
  }

  function valueText(axis, value) {
    return axis.labels ? axis.labels[Math.round(value)] : numberText(value);
  }

  const cut = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

  // Ticks along x that do not overlap, the first and the last preferred.
  function spaced(ticks, place, width, left, right) {
    const most = Math.floor(Math.max(58, Math.min(150, width / Math.max(1, ticks.length) - 8)) / letter);
    const shown = [];
    for (const [value, label] of ticks) {
      const text = cut(label, most), half = text.length * letter / 2;
      const at = Math.max(half - left + 4, Math.min(width + right - half, place(value)));
      if (!shown.length || at - half > shown.at(-1).end + 8) shown.push({ x: place(value), at, text, end: at + half });
    }
    return shown;
  }

  // The path of a line; null is a gap, `step` makes stairs, a point alone is a dot.
  function linePath(xs, ys, step) {
    let path = "", before = null;
    xs.forEach((x, place) => {
      const y = ys[place];
      if (x === null || y === null) { before = null; return; }
      const at = `${x.toFixed(1)},${y.toFixed(1)}`;
      if (before === null) path += `M${at}h0`;
      else if (step === "hv") path += `H${x.toFixed(1)}V${y.toFixed(1)}`;
      else if (step === "vh") path += `V${y.toFixed(1)}H${x.toFixed(1)}`;
      else path += `L${at}`;
      before = at;
    });
    return path;
  }

  const drawers = {
    // Every line of a layer is in one path: one each would be slow.
    lines(layer, chart, group) {
      const paths = layer.items.map(([candidate, xs, ys]) => {
        const epochs = xs ?? ys.map((_, place) => place + 1);
        const px = epochs.map(value => (value === null ? null : chart.x(value)));
        const py = ys.map(value => (value === null ? null : chart.y(value)));
        const path = linePath(px, py, layer.step);
        epochs.forEach((value, place) => {
          if (py[place] === null) return;
          chart.points.push({ layer, candidate, x: px[place], y: py[place], values: [value, ys[place]], path });
        });
        return path;
      });
      svgElement(group, "path", { class: "line", d: paths.join("") });
      // A point between gaps has no line.
      const alone = paths.join("").match(/M[^A-Za-z]*h0(?![LHV])/g);
      if (alone) svgElement(group, "path", { class: "dots", d: alone.join(""), "stroke-width": layer.size ?? 5 });
    },
    points(layer, chart, group) {
      const path = layer.x.map((value, place) => {
        const x = chart.x(value), y = chart.y(layer.y[place]);
        chart.points.push({ layer, candidate: layer.n[place], x, y, values: [value, layer.y[place]] });
        return `M${x.toFixed(1)},${y.toFixed(1)}h0`;
      });
      svgElement(group, "path", { class: "dots", d: path.join(""), "stroke-width": layer.size });
    },
    spans(layer, chart, group) {
      const height = Math.max(5, Math.abs(chart.y(1) - chart.y(0)) * 0.68);
      const path = layer.items.map(([row, begin, end, candidate]) => {
        const x = chart.x(begin), wide = chart.x(end) - x, y = chart.y(row) - height / 2;
        chart.boxes.push({ layer, candidate, x, y, width: Math.max(wide, 2), height, values: [begin, end] });
        const width = wide > 4 ? wide - 1 : Math.max(wide, 0.6);  // a gap between two jobs
        return `M${x.toFixed(1)},${y.toFixed(1)}h${width.toFixed(1)}v${height.toFixed(1)}h${-width.toFixed(1)}z`;
      });
      svgElement(group, "path", { class: "spans", d: path.join("") });
    },
    // A grid of the whole plot, a digit per cell: its colour.
    cells(layer, chart, group) {
      const high = chart.height / layer.rows.length, paths = {};
      layer.rows.forEach((row, number) => {
        const wide = chart.width / row.length, y = chart.height - (number + 1) * high;
        [...row].forEach((step, column) => {
          if (step === "-") return;
          const box = `M${(column * wide).toFixed(1)},${y.toFixed(1)}h${wide.toFixed(2)}v${high.toFixed(2)}h${-wide.toFixed(2)}z`;
          paths[step] = (paths[step] ?? "") + box;
        });
      });
      for (const [step, d] of Object.entries(paths)) {
        svgElement(group, "path", { class: "cells", d, style: `fill:var(--step-${step})` });
      }
    },
  };

  function axes(svg, figure, chart) {
    const { x, y } = figure;
    const hasCells = figure.layers.some(layer => layer.kind === "cells");  // these are read without a grid
    let last = Infinity;
    for (const [value, label] of y.ticks) {
      const at = chart.y(value);
      if (at < -1 || at > chart.height + 1 || last - at < 15) continue;
      last = at;
      if (!y.labels && !hasCells) svgElement(svg, "path", { class: "grid", d: `M0,${at.toFixed(1)}h${chart.width}` });
      svgElement(svg, "text", { x: -8, y: at + 4, "text-anchor": "end" }, cut(label, chart.labelLetters));
    }
    const inside = x.ticks.filter(([value]) => chart.x(value) > -1 && chart.x(value) < chart.width + 1);
    for (const tick of spaced(inside, chart.x, chart.width, chart.left, chart.right)) {
      if (!x.labels && !hasCells) svgElement(svg, "path", { class: "grid", d: `M${tick.x.toFixed(1)},0v${chart.height}` });
      svgElement(svg, "text", { x: tick.at, y: chart.height + 18, "text-anchor": "middle" }, tick.text);
    }
    svgElement(svg, "path", { class: "frame-line", d: `M0,0v${chart.height}h${chart.width}` });
    svgElement(svg, "text", { class: "title", x: -chart.left + 2, y: -12 }, cut(y.title, Math.floor((chart.width + chart.left) / letter)));
    const title = svgElement(svg, "text", { class: "title", x: chart.width, y: chart.height + 38, "text-anchor": "end" });
    title.textContent = cut(x.title, Math.floor((chart.width + chart.left) / letter));
    for (const mark of figure.marks ?? []) {
      svgElement(svg, "path", { class: "mark", d: `M${chart.x(mark).toFixed(1)},0v${chart.height}` });
    }
  }

  function nameOf(layer, candidate) {
    if (candidate === null) return layer.name;
    return layer.names ? layer.names[candidate] : `candidate ${candidate}`;
  }

  // The note of what is nearest to the pointer, and its line drawn over the others.
  function point(target, figure, chart, event) {
    const box = target.querySelector("svg").getBoundingClientRect();
    const px = event.clientX - box.left - chart.left, py = event.clientY - box.top - chart.top;
    let found = chart.boxes.findLast(each =>
      !chart.hidden.has(each.layer) && px >= each.x && px <= each.x + each.width && py >= each.y && py <= each.y + each.height);
    let text = found && `${nameOf(found.layer, found.candidate)}: ${found.layer.name}\n` +
      `${figure.x.title}: ${found.values.map(numberText).join(" to ")}`;
    if (!found) {
      let least = near ** 2;
      for (const each of chart.points) {
        const distance = (each.x - px) ** 2 + (each.y - py) ** 2;
        if (distance <= least && !chart.hidden.has(each.layer)) { least = distance; found = each; }
      }
      if (found) {
        const lines = [figure.x, figure.y].map((axis, place) =>
          (axis.title ? `${axis.title.replace(/ \((more|less) is better\)$/, "")}: ` : "") + valueText(axis, found.values[place]));
        text = [nameOf(found.layer, found.candidate), ...lines].join("\n");
      }
    }
    const note = target.querySelector(".tip");
    note.hidden = !found;
    chart.over.setAttribute("d", "");
    if (!found) return;
    note.textContent = text;
    const x = found.width ? px : found.x, y = found.width ? found.y : found.y;
    chart.over.setAttribute("d", found.path ?? (found.width ? "" : `M${found.x},${found.y}h0`));
    chart.over.setAttribute("class", found.path ? "over" : "over dots");
    const left = chart.left + x, top = target.querySelector("svg").offsetTop + chart.top + y;
    note.style.left = `${Math.max(0, Math.min(left + 12, target.clientWidth - note.offsetWidth))}px`;
    note.style.top = `${Math.max(0, top - note.offsetHeight - 10)}px`;
  }

  function legend(target, figure, redraw) {
    const named = figure.layers.filter(layer => layer.name);
    if (figure.legend === false || (named.length < 2 && !figure.scale)) return;
    const line = target.appendChild(document.createElement("div"));
    line.className = "legend";
    for (const layer of named) {
      const button = line.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = layer.name;
      button.style.setProperty("--color", `var(${layer.color})`);
      button.setAttribute("aria-pressed", !target.hiddenLayers.has(layer));
      button.addEventListener("click", () => {
        if (!target.hiddenLayers.delete(layer)) target.hiddenLayers.add(layer);
        redraw();
      });
      button.addEventListener("dblclick", () => {
        const others = named.filter(each => each !== layer);
        const isAlone = others.every(each => target.hiddenLayers.has(each));
        target.hiddenLayers = new Set(isAlone ? [] : others);
        redraw();
      });
    }
    (figure.scale ?? []).forEach((text, step) => {
      const item = line.appendChild(document.createElement("span"));
      item.textContent = text;
      item.style.setProperty("--color", `var(--step-${step})`);
    });
  }

  function draw(target, figure) {
    const width = target.clientWidth;
    if (!width) return;  // in a closed part of the page; it is drawn when it opens
    target.hiddenLayers ??= new Set();
    target.replaceChildren();
    legend(target, figure, () => draw(target, figure));
    const most = Math.max(8, Math.floor(width * 0.28 / letter));
    const letters = Math.min(most, Math.max(...figure.y.ticks.map(([, label]) => label.length), 2));
    const chart = { left: letters * letter + 16, top: 30, right: 14, bottom: 46, labelLetters: letters, points: [], boxes: [] };
    chart.width = width - chart.left - chart.right;
    chart.height = figure.height - chart.top - chart.bottom;
    chart.x = scale(figure.x, 0, chart.width);
    chart.y = scale(figure.y, chart.height, 0);
    chart.hidden = target.hiddenLayers;
    const svg = svgElement(target, "svg", { width, height: figure.height, viewBox: `0 0 ${width} ${figure.height}`, role: "img" });
    svgElement(svg, "title", {}, target.dataset.title || figure.y.title);
    const plot = svgElement(svg, "g", { transform: `translate(${chart.left},${chart.top})` });
    const clip = svgElement(svgElement(plot, "clipPath", { id: `clip${++clips}` }), "rect", { x: -5, y: -5 });
    clip.setAttribute("width", chart.width + 10);
    clip.setAttribute("height", chart.height + 10);
    const under = figure.layers.filter(layer => layer.kind === "cells"), over = figure.layers.filter(layer => layer.kind !== "cells");
    const inside = () => svgElement(plot, "g", { "clip-path": `url(#clip${clips})` });
    const drawLayers = (layers, parent) => layers.forEach(layer => {
      if (chart.hidden.has(layer)) return;
      const group = svgElement(parent, "g", { class: layer.kind, style: `--color:var(${layer.color})` });
      drawers[layer.kind](layer, chart, group);
    });
    drawLayers(under, inside());
    axes(plot, figure, chart);
    const front = inside();
    drawLayers(over, front);
    chart.over = svgElement(front, "path", { class: "over" });
    const note = target.appendChild(document.createElement("div"));
    note.className = "tip";
    note.hidden = true;
    svg.addEventListener("pointermove", event => point(target, figure, chart, event));
    svg.addEventListener("pointerdown", event => point(target, figure, chart, event));
    svg.addEventListener("pointerleave", () => { note.hidden = true; chart.over.setAttribute("d", ""); });
  }

  return { draw };
})();
