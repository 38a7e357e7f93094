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

/** One tab stop for a list of buttons, and the arrows between them.
 * @param {HTMLElement} list */
export function makeRoving(list) {
  list.addEventListener("keydown", (event) => {
    const buttons = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("button")]);
    const index = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const last = buttons.length - 1;
    const target = {
      ArrowDown: Math.min(index + 1, last), ArrowUp: Math.max(index - 1, 0), Home: 0, End: last,
    }[event.key];
    if (index < 0 || target === undefined) return;
    event.preventDefault();
    buttons[target].focus();
  });
  list.addEventListener("focusin", ({ target }) => {
    for (const button of list.querySelectorAll("button")) button.tabIndex = button === target ? 0 : -1;
  });
}
