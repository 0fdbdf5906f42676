// Dialogs: a question before what cannot be undone, and forms whose errors are shown next to their button.
import { keyMaker } from "./api.js";
import { element, errorLine, replaceContent } from "./dom.js";

const secondsOfMessage = 30;
let lastNumber = 0;

// Show a form in a dialog. Fields: { name, label, kind, value, options, hint, required }; kinds are those of inputs,
// "select" (options: values, or [value, text]), "area" and "check". `send(values)` does the work: its errors are shown and the
// dialog stays open. Returns the answer of `send`, or null if the dialog was cancelled.
export function formDialog({ title, text, fields = [], confirm, isDangerous = false, send }) {
  return new Promise(resolve => {
    const opener = document.activeElement;
    const heading = element("h2", { id: `dialog${++lastNumber}` }, title);
    const problem = element("div");
    const inputs = Object.fromEntries(fields.map(field => [field.name, inputOf(field)]));
    const submit = element("button", { type: "submit", class: isDangerous ? "danger" : "primary" }, confirm);
    const cancel = element("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    let answer = null;
    const form = element(
      "form", { onsubmit: async event => {
        event.preventDefault();
        const values = Object.fromEntries(fields.map(({ name, kind }) => [name, kind === "check" ? inputs[name].checked : inputs[name].value]));
        replaceContent(problem);
        submit.disabled = true;
        try {
          answer = await send(values);
          dialog.close();
        } catch (error) {
          replaceContent(problem, errorLine(error));
        }
        submit.disabled = false;
      } },
      fields.map(field => labelOf(field, inputs[field.name])),
      element("div", { class: "buttons" }, submit, cancel),
      problem,
    );
    const dialog = element(
      "dialog", { "aria-labelledby": heading.id, onclose: () => { dialog.remove(); focusAgain(opener); resolve(answer); } },
      heading, text && element("p", {}, text), form,
    );
    document.body.append(dialog);
    dialog.showModal();
    (fields.length ? inputs[fields[0].name] : cancel).focus();
  });
}

// Focus an element, or the one that has been drawn in its place.
function focusAgain(before) {
  const key = before?.dataset?.key;
  const found = before?.isConnected && !before.disabled ? before : key && document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  (found || document.getElementById("main")).focus({ preventScroll: true });
}

function inputOf({ kind = "text", value, options = [], required, min, max, autocomplete }) {
  if (kind === "select") {
    return element("select", {}, options.map(each => {
      const [key, text] = Array.isArray(each) ? each : [each, each];
      return element("option", { value: key, selected: key === value }, text);
    }));
  }
  if (kind === "area") {
    const area = element("textarea", { required, rows: 4, spellcheck: "false", autocapitalize: "off" });
    area.value = value ?? "";
    return area;
  }
  const type = kind === "check" ? "checkbox" : kind;
  return element("input", { type, required, min, max, autocomplete, value, checked: kind === "check" && Boolean(value) });
}

export function labelOf({ kind, label, hint }, input) {
  if (kind === "check") return element("label", { class: "check" }, input, element("span", {}, label));
  return element("label", {}, element("span", {}, label), input, hint && element("small", {}, hint));
}

// The line in which a row of buttons says what went wrong, or was done.
export const messageLine = () => element("div", { "aria-live": "polite" });

// A row of buttons. Each: { name, title, ask, isDangerous, fields, confirm, send, done }; `send(values, key)` gets a key that is the
// same if the values are sent again. One that has a question or fields opens a dialog; the others act at once. The caller passes
// the `messageLine` again if the buttons are drawn again.
export function buttonRow(buttons, line, changed) {
  const made = buttons.map(each => element("button", {
    type: "button", class: each.isDangerous ? "danger" : null, "data-key": `button ${each.name}`,
    onclick: async event => {
      const button = event.currentTarget, isAsked = Boolean(each.ask || each.fields), keyOf = keyMaker();
      const send = values => each.send(values, keyOf(values));
      replaceContent(line);
      button.disabled = !isAsked;
      try {
        const answer = isAsked
          ? await formDialog({ title: each.title ?? each.name, text: each.ask, confirm: each.name, ...each, send })
          : await send({});
        if (answer !== null) {
          const message = element("p", { class: "message" }, answer?.message ?? each.done ?? "Done.");
          replaceContent(line, message);
          setTimeout(() => message.remove(), secondsOfMessage * 1000);
          await changed?.(answer);
        }
      } catch (error) {
        replaceContent(line, errorLine(error));
      }
      button.disabled = false;
      if (!isAsked) focusAgain(button);
    },
  }, each.fields || each.ask ? `${each.name}…` : each.name));
  return element("div", { class: "actions" }, element("div", { class: "buttons" }, made), line);
}
