// As much of a browser as the scripts of the service's page need in Node: elements, an address, requests, streams.
class FakeElement {
  constructor(name, data = "") {
    Object.assign(this, { name, data, children: [], attributes: {}, listeners: {}, dataset: {}, style: {}, parent: null });
  }
  get open() { return "open" in this.attributes; }
  set open(isOpen) { isOpen ? this.setAttribute("open", "") : delete this.attributes.open; }
  get textContent() { return this.data + this.children.map(each => each.textContent).join(""); }
  set textContent(text) { this.replaceChildren(text); }
  get length() { return this.data.length; }
  get lastElementChild() { return this.children.at(-1); }
  get isConnected() { return this === body || Boolean(this.parent?.isConnected); }
  append(...added) {
    for (const each of added) {
      const child = each instanceof FakeElement ? each : new FakeElement("#text", String(each));
      child.parent = this;
      this.children.push(child);
    }
  }
  replaceChildren(...added) {
    for (const each of this.children) each.parent = null;
    this.children = [];
    this.append(...added);
  }
  appendData(more) { this.data += more; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, act) { (this.listeners[name] ??= []).push(act); }
  removeEventListener() {}
  fire(name) { return Promise.all((this.listeners[name] ?? []).map(act => act({ preventDefault() {}, currentTarget: this }))); }
  all(name) { return [...(this.name === name ? [this] : []), ...this.children.flatMap(each => each.all(name))]; }
  contains() { return false; }
  querySelectorAll() { return []; }
  focus() {}
  select() {}
}

export const body = new FakeElement("body");
const known = {};
globalThis.Node = FakeElement;
globalThis.document = Object.assign(new FakeElement("#document"), {
  body, hidden: false, activeElement: null, documentElement: new FakeElement("html"),
  createElement: name => new FakeElement(name),
  createTextNode: text => new FakeElement("#text", text),
  querySelector: name => document.getElementById(name),
  getElementById(name) {
    if (!known[name]) body.append(known[name] = new FakeElement(name));
    return known[name];
  },
});
globalThis.location = { hash: "" };
globalThis.localStorage = { getItem: () => "yes", setItem() {} };
globalThis.scrollTo = globalThis.addEventListener = () => {};
globalThis.ResizeObserver = class { observe() {} };
globalThis.numberText = String;

// Streams that were opened, with `say` for what the service sends.
export const streams = [];
globalThis.EventSource = class {
  constructor(path) {
    Object.assign(this, { path, isClosed: false, listeners: {} });
    streams.push(this);
  }
  addEventListener(name, act) { this.listeners[name] = act; }
  say(name, data = {}) { return this.listeners[name]({ data: JSON.stringify(data) }); }
  close() { this.isClosed = true; }
};

// Answers by path: { status, content }, or a promise of it.
export const answers = new Map();
globalThis.fetch = async path => {
  const { status = 200, content } = await answers.get(path.split("?")[0]);
  return { ok: status < 400, status, statusText: "", text: async () => JSON.stringify(content) };
};

// Let everything happen that waits for answers.
export const settle = () => new Promise(resolve => setTimeout(resolve, 1));
