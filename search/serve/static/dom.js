// Elements from data. Whatever comes from the service becomes text, never HTML: names may be hostile.

// Make an element. Properties: `class`, `on...` as functions, booleans, attributes. Children: elements, texts, or nothing.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...present(children));
  return made;
}

const present = children => children.flat(Infinity).filter(each => each !== null && each !== undefined && each !== false && each !== "");

export function link(text, ...places) {
  return element("a", { href: addressOf(...places) }, text);
}

export function addressOf(...places) {
  return `#/${places.map(each => encodeURIComponent(each)).join("/")}`;
}

export function pill(state) {
  const kind = String(state).replace(/[^a-z_]/g, "");
  return element("span", { class: `pill ${kind}` }, String(state).replaceAll("_", " "));
}

// A value as text: a dash for none, results with four decimals so that they line up, lists as JSON.
export function valueText(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "object" || typeof value === "boolean") return JSON.stringify(value);
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  return !Number.isInteger(value) && size >= 0.01 && size < 100 ? value.toFixed(4) : numberText(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function timeText(seconds) {
  if (!seconds) return "–";
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
}

// A table that scrolls in its frame, which the keyboard can reach. Columns: { title, cell(row) }, optionally `number`.
export function table(label, columns, rows, { rowClass = () => null } = {}) {
  const head = columns.map(each => element("th", { scope: "col", class: each.number && "number" }, each.title));
  const body = rows.map(row =>
    element("tr", { class: rowClass(row) }, columns.map(each => {
      const content = each.cell(row);
      const isNone = content === "–";
      return element("td", { class: isNone ? "none" : each.number ? "number" : each.class }, content);
    })));
  return element(
    "div", { class: "frame", tabindex: 0, role: "region", "aria-label": label, "data-key": `table ${label}` },
    element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)),
  );
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { class: "facts" }, known.map(([name, value]) => [
    element("dt", {}, name), element("dd", {}, value instanceof Node ? value : valueText(value)),
  ]));
}

export function progressBar(done, total, label) {
  return element("progress", { max: Math.max(1, total ?? 1), value: Math.min(done ?? 0, total ?? 0), "aria-label": label });
}

// Buttons for the pages of a list; nothing if it has a single one.
export function pager(offset, limit, total, show) {
  if (total <= limit) return null;
  const last = Math.floor((total - 1) / limit) * limit;
  const to = (text, target, key) => element(
    "button", { type: "button", disabled: target === offset || target < 0 || target > last, "data-key": `page ${key}`, onclick: () => show(target) }, text);
  return element(
    "div", { class: "pager" },
    to("First", 0, "first"), to("Previous", Math.max(0, offset - limit), "previous"),
    element("span", {}, `${(offset + 1).toLocaleString("en")} to ${Math.min(total, offset + limit).toLocaleString("en")} of ${total.toLocaleString("en")}`),
    to("Next", Math.min(last, offset + limit), "next"), to("Last", last, "last"),
  );
}

// Replace the content of a place; the focus and the scrolled frames stay where they were.
export function replaceContent(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const scrolled = [...place.querySelectorAll("[data-key]")].map(each => [each.dataset.key, each.scrollTop, each.scrollLeft]);
  place.replaceChildren(...present(children));
  const found = new Map([...place.querySelectorAll("[data-key]")].map(each => [each.dataset.key, each]));
  for (const [key, top, left] of scrolled) {
    const frame = found.get(key);
    if (frame && (top || left)) Object.assign(frame, { scrollTop: top, scrollLeft: left });
  }
  if (focused !== undefined) (found.get(focused) ?? place.closest("[tabindex]"))?.focus({ preventScroll: true });
}

// A part of a view: `load` gets its data, `show` returns its elements, or null to hide it. It is drawn again only if the data
// differ, and loaded at most once in `seconds` and so seldom that its requests take at most a twentieth of the time.
export function part(title, load, show, { name = title, seconds = 0 } = {}) {
  const content = element("div", {}, element("p", { class: "loading" }, "Loading…"));
  const section = element("section", { "aria-label": title || null, "data-part": name }, title && element("h2", {}, title), content);
  let before, timer, last = -Infinity, pause = 0;

  async function update() {
    const wait = pause - (performance.now() - last);
    if (wait > 0) {
      timer ??= setTimeout(() => { timer = undefined; update(); }, wait);
      return;
    }
    last = performance.now();
    try {
      const data = await load();
      pause = Math.max(seconds * 1000, 20 * (performance.now() - last));
      const text = JSON.stringify(data);
      if (text === before) return;
      before = text;
      const made = show(data);
      section.hidden = made === null;
      replaceContent(content, made);
    } catch (error) {
      if (error.status === undefined) throw error;
      before = undefined;
      section.hidden = false;
      replaceContent(content, errorLine(error));
      if (error.status === 401) throw error;
    }
  }

  return {
    section,
    update,
    again() { before = undefined; last = -Infinity; return update(); },
    close() { clearTimeout(timer); },
  };
}

export function errorLine(error) {
  return element("p", { class: "error", role: "alert" }, error.message);
}

export function jsonBlock(title, value) {
  return element("details", {}, element("summary", {}, title), element("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));
}

// Images that load when they are near the screen, each a link to itself.
export function pictures(names, path) {
  return element("div", { class: "images" }, names.map(name => {
    const source = `${path}/pictures/${encodeURIComponent(name)}`;
    const image = element("img", { src: source, alt: name, loading: "lazy" });
    return element("figure", {}, element("a", { href: source, target: "_blank", rel: "noopener" }, image), element("figcaption", {}, name));
  }));
}
