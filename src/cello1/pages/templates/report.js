// The parts of the report outside the puzzle browser.

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

