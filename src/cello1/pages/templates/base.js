"use strict";
// Small tools of all pages. Text from data only ever becomes text nodes: nothing writes markup.

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
const runClass = (index) => `r${index % 8}`;
const chip = (index, text) => make("span", { class: `chip ${runClass(index)}` }, text);

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

/** Read the data of the page: JSON, compressed, in base64. */
async function unpack(element) {
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

