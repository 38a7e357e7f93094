/** Elements. Text gets into the page by textContent and by attributes, and in no other way. */

/** @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * @param {string} tag @param {string} className
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Text of somebody's, whatever its direction, apart from what stands around it.
 * @param {string} text @param {string} [className] */
export function isolated(text, className = "") {
  return element("bdi", className, text);
}

/** Write a text, if it is another one: what is written anew is read out anew.
 * @param {HTMLElement} where @param {string} text */
export function write(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/** Make the children of a parent these nodes, moving none that stays.
 * @param {HTMLElement} parent @param {Node[]} nodes */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) {
    if (!wanted.has(child)) child.remove();
  }
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

/** Let the arrows lead from one button of a list to the next. @param {HTMLElement} list */
export function followArrows(list) {
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const index = buttons.findIndex((button) => button === document.activeElement);
    const last = buttons.length - 1;
    const target = {
      ArrowDown: Math.min(index + 1, last), ArrowUp: Math.max(index - 1, 0), Home: 0, End: last,
    }[event.key];
    if (index < 0 || target === undefined) return;
    event.preventDefault();
    buttons[target].focus();
  });
}

/** Give a list one tab stop: the button that has the focus, or had it last.
 * @param {HTMLElement} list @param {EventTarget | null} [focused] */
export function keepOneStop(list, focused = document.activeElement) {
  const buttons = [...list.querySelectorAll("button")];
  const stop = buttons.find((button) => button === focused) ??
    buttons.find((button) => button.tabIndex === 0) ?? buttons[0];
  for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
}
