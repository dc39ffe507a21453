"use strict";
// Small tools, and the parts of the page outside the puzzle browser. Text from data only ever
// becomes text nodes: nothing here writes markup.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Make an element; strings among the children become text, and null ones are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const unseen = (text) => make("span", { class: "unseen" }, text);
const runColour = (index) => `var(--run-${index % 8})`;
const chip = (index, text) => make("span", { class: "chip", "--run": runColour(index) }, text);

/** Let arrow keys, Home and End move among the elements a function lists. */
function roving(container, list, choose) {
  container.addEventListener("keydown", (event) => {
    const items = list();
    const here = items.indexOf(document.activeElement);
    const steps = { ArrowDown: here + 1, ArrowRight: here + 1, ArrowUp: here - 1, ArrowLeft: here - 1,
                    Home: 0, End: items.length - 1 };
    if (here < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = items[Math.max(0, Math.min(items.length - 1, steps[event.key]))];
    next.focus();
    choose(next);
  });
}

/** Turn panels that stand below each other into tabs. */
function tabs(list) {
  const buttons = $$("[role=tab]", list);
  const select = (chosen) => {
    for (const button of buttons) {
      const on = button === chosen;
      button.setAttribute("aria-selected", on);
      button.tabIndex = on ? 0 : -1;
      document.getElementById(button.getAttribute("aria-controls")).hidden = !on;
    }
  };
  list.hidden = buttons.length < 2;
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[role=tab]");
    if (button) select(button);
  });
  roving(list, () => buttons, select);
  if (buttons.length) select(buttons[0]);
}

$$("[role=tablist]").forEach(tabs);

// Mark the part of the page that is being read.
const links = new Map($$(".bar-top a").map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70%" });
for (const id of links.keys()) reading.observe(document.getElementById(id));
