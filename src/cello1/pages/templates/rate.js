"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const store = "cello1-rate-" + data.page;
const byId = (id) => document.getElementById(id);
let state = { rater: "", choices: {}, seconds: {} };
try { state = Object.assign(state, JSON.parse(localStorage.getItem(store) || "{}")); }
catch { /* without storage, choices last as long as the page */ }
let at = Math.max(0, data.items.findIndex((_, i) => !(i in state.choices)));
let since = Date.now();

// Everything from data goes through textContent, so none of it can become markup.
function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}
function response(side) {
  const parts = [element("div", side.reasoning, "reasoning")];
  if (side.answer.length) {
    const list = document.createElement("ol");
    side.answer.forEach((label) => list.append(element("li", label)));
    parts.push(element("h3", "Answer, cell by cell"), list);
  }
  return parts;
}
function save() {
  try { localStorage.setItem(store, JSON.stringify(state)); } catch { /* see above */ }
}
function show() {
  const item = data.items[at];
  byId("title").textContent = `Puzzle ${at + 1} of ${data.items.length}`;
  const cells = item.cells.map((genes, i) =>
    element("p", `Cell ${i + 1}: ${genes.join(", ")}`, "genes"));
  byId("puzzle").replaceChildren(
    element("p", item.context), ...cells, element("p", "Types: " + item.candidates.join("; ")));
  byId("left").replaceChildren(...response(item.left));
  byId("right").replaceChildren(...response(item.right));
  const done = Object.keys(state.choices).length;
  byId("progress").textContent = `${done} of ${data.items.length} rated`;
  document.querySelectorAll("[data-choice]").forEach((button) =>
    button.setAttribute("aria-pressed", String(state.choices[at] === button.dataset.choice)));
  byId("back").disabled = at === 0;
  byId("next").disabled = at === data.items.length - 1;
  since = Date.now();
}
function move(by) {
  at = Math.min(data.items.length - 1, Math.max(0, at + by));
  show();
  byId("title").focus();
  window.scrollTo(0, 0);
}
function choose(choice) {
  state.choices[at] = choice;
  state.seconds[at] = (state.seconds[at] || 0) + (Date.now() - since) / 1000;
  save();
  if (at < data.items.length - 1) move(1); else show();
}
function exportChoices() {
  const text = JSON.stringify({ page: data.page, ...state }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `choices-${(state.rater || "rater").replace(/[^\w-]+/g, "_")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}
document.querySelectorAll("[data-choice]").forEach((button) =>
  button.addEventListener("click", () => choose(button.dataset.choice)));
byId("back").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("export").addEventListener("click", exportChoices);
byId("rater").value = state.rater;
byId("rater").addEventListener("input", (event) => { state.rater = event.target.value; save(); });
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { 1: "left", 2: "tie", 3: "right" }[event.key];
  if (choice) choose(choice);
  else if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
});
show();
