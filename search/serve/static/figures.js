// Places of figures, which charts.js of the report draws, and figures of the curves of a single training.
import { element, part } from "./dom.js";

const observer = new ResizeObserver(entries => requestAnimationFrame(() => {
  for (const { target } of entries) {
    if (target.isConnected && target.figure && target.drawnWidth !== target.clientWidth) draw(target);
  }
}));

function draw(target) {
  target.drawnWidth = target.clientWidth;
  charts.draw(target, target.figure);
}

// An element that draws a figure when it is on the page, and again when its width changes.
export function figurePlace(figure, title) {
  const target = element("div", { class: "figure", "data-title": title });
  target.style.minHeight = `${figure.height}px`;
  target.figure = figure;
  observer.observe(target);
  return target;
}

function niceTicks(low, high, most = 6) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(each => each * power >= rough);
  const ticks = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) {
    const value = Number((number * step).toPrecision(10));
    ticks.push([value, numberText(value)]);
  }
  return ticks;
}

function axis(title, values, { isWhole = false, margin = 0.04 } = {}) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) [low, high] = [low - (Math.abs(low) * 0.05 || 0.5), high + (Math.abs(high) * 0.05 || 0.5)];
  const room = margin * (high - low);
  const ticks = niceTicks(low - room, high + room);
  return { title, low: low - room, high: high + room, log: false, ticks: isWhole ? ticks.filter(([value]) => Number.isInteger(value)) : ticks };
}

const notDrawn = new Set(["epoch", "step", "seconds_at", "epoch_seconds"]);
const mostFigures = 8;

// Figures of the results by epoch: a training result and that of the validation data share one.
export function curveFigures(rows, monitor = "") {
  const names = [...new Set(rows.flatMap(row => Object.keys(row)))].filter(name => !notDrawn.has(name));
  const groups = new Map();
  for (const name of names) {
    const key = name.replace(/^(val|test)_/, "");
    groups.set(key, [...(groups.get(key) ?? []), name]);
  }
  const wanted = monitor.split(" ").at(-1).replace(/^val_/, "");
  const order = [...groups].sort(([one], [two]) => (two === wanted) - (one === wanted) || (two === "loss") - (one === "loss"));
  return order.slice(0, mostFigures).map(([key, members]) => {
    const layers = members.map((name, number) => {
      const known = rows.filter(row => Number.isFinite(row[name]) && Number.isFinite(row.epoch));
      const items = [[0, known.map(row => row.epoch), known.map(row => row[name])]];
      return { kind: "lines", name, color: `--series-${number % 8}`, names: [name], items };
    }).filter(layer => layer.items[0][1].length);
    const epochs = layers.flatMap(layer => layer.items[0][1]), values = layers.flatMap(layer => layer.items[0][2]);
    if (!values.length) return null;
    return [key, { height: 260, x: axis("epoch", epochs, { isWhole: true, margin: 0.01 }), y: axis(key, values), layers }];
  }).filter(each => each !== null);
}

// The part of a view with the curves of a training.
export function curvesPart(load) {
  return part("Curves", load, ({ reports, monitor }) => {
    const found = curveFigures(reports ?? [], monitor ?? "");
    if (!found.length) return element("p", { class: "note" }, "No epoch has ended yet.");
    return element("div", { class: "multiples wide" }, found.map(([title, figure]) => figurePlace(figure, title)));
  });
}
