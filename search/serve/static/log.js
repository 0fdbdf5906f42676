// A log that is read from its end and followed as it grows.
import { ask, stream } from "./api.js";
import { element, errorLine, replaceContent } from "./dom.js";

const firstCharacters = 65536, mostCharacters = 400_000;

// A section that loads nothing before it is opened. `close()` ends its stream. `mayGrow()` says whether a log that was at its end, or
// could not be read, is to be read again, as after a resume.
export function logPart(title, path, { isOpen = false, mayGrow = () => false } = {}) {
  const text = document.createTextNode("");
  const lines = element("pre", { class: "log", tabindex: 0, role: "log", "aria-label": title, "aria-live": "off" }, text);
  const problem = element("div"), note = element("p", { class: "note" });
  const details = element("details", { open: isOpen }, element("summary", {}, title), note, lines, problem);
  const section = element("section", { "aria-label": title, "data-part": "log" }, details);
  let source, offset, numOpened = 0, hasEnded = false;

  function append(more) {
    const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    text.appendData(more);
    if (text.length > mostCharacters) {
      const cut = text.data.indexOf("\n", text.length - mostCharacters / 2) + 1;
      text.deleteData(0, cut);
      note.textContent = "The beginning is left out.";
    }
    if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  }

  async function open() {
    close();
    if (!details.open || !section.isConnected) return;
    const number = numOpened;
    replaceContent(problem);
    let found;
    try {
      found = await ask(`${path}/log?offset=${-firstCharacters}`);
    } catch (error) {
      if (number !== numOpened) return;
      replaceContent(problem, errorLine(error));
      hasEnded = true;
      return;
    }
    if (number !== numOpened) return;  // closed, or opened again, since it was asked for
    text.data = found.text;
    offset = found.next_offset;
    note.textContent = found.offset > 0 ? "The beginning is left out." : "";
    lines.scrollTop = lines.scrollHeight;
    source = stream(() => `${path}/log/stream?offset=${offset}`, {
      log(data) {
        append(data.text);
        offset = data.next_offset;
      },
      end() {
        close();
        hasEnded = true;
      },
    });
  }

  function close() {
    numOpened += 1;
    hasEnded = false;
    source?.close();
    source = undefined;
  }

  async function update() {
    if (hasEnded && mayGrow()) await open();
  }

  details.addEventListener("toggle", () => (details.open ? open() : close()));
  return { section, update, close };
}
