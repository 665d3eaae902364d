// Changes the page only where a value has changed. So a selection stays, and nothing is announced twice.

/** Returns the elements with `data-part` below an element, by name. */
export function parts(element) {
  return Object.fromEntries([...element.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
}

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Sets an attribute of an element; null removes it. */
export function attribute(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function make(tag, className = "", content = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (content) made.textContent = content;
  return made;
}

/**
 * Shows a list of [name, value] pairs in a <dl>. Keeps the elements while the names stay the same.
 * A value is a text, or { text, level, title, note }. level: `good`, `warn`, `bad` or empty.
 */
export function pairs(list, values) {
  const names = values.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(
      ...values.map(([name]) => {
        const pair = make("div");
        pair.append(make("dt", "", name), make("dd"), make("dd", "note"));
        return pair;
      }),
    );
  }
  values.forEach(([, value], index) => {
    const shown = typeof value === "string" ? { text: value } : value;
    const [, element, note] = list.children[index].children;
    text(note, shown.note ?? "");
    text(element, shown.text);
    attribute(element, "class", shown.level || null);
    attribute(element, "title", shown.title || null);
  });
}

/** Shows steps for the operator: a sentence, and commands with a button that copies them. */
export function steps(box, all) {
  const shown = JSON.stringify(all);
  if (box.dataset.shown === shown) return;
  box.dataset.shown = shown;
  box.replaceChildren(
    ...all.map(({ text: sentence, commands }) => {
      const row = make("div", "step");
      if (sentence) row.append(make("span", "", sentence));
      for (const command of commands) row.append(copyable(command));
      return row;
    }),
  );
}

function copyable(command) {
  const box = make("span", "command");
  const button = make("button", "copy", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy the command: ${command}`);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(command, box.firstChild)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  box.append(make("code", "", command), button);
  return box;
}

/** Copies a text. Without access to the clipboard (plain HTTP), selects it instead and returns false. */
async function copy(value, element) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}
