// The list of puzzles: search, filters, keys.

const CHUNK = 60; // items of the list that are made at a time

function startBrowser(data) {
  const form = $(".browser-tools");
  const controls = Object.fromEntries(["search", "outcome", "run", "n", "donor", "type"].map((id) => [id, $(`#${id}`)]));
  const list = $("#list");
  const detail = $("#detail");
  let current = 0;
  let shown = [];
  let run = 0;
  let drawn = ""; // the puzzle and the run that the detail shows

  const options = (select, values, texts = values) =>
    select.append(...values.map((value, i) => make("option", { value }, String(texts[i]))));
  const unique = (values) => [...new Set(values.filter((v) => v !== null))].sort((a, b) => (a > b) - (a < b));
  options(controls.run, data.runs.map((_, i) => i), data.runs);
  options(controls.n, [...new Set(data.puzzles.map((p) => p.cells.length))].sort((a, b) => a - b));
  options(controls.donor, unique(data.puzzles.map((p) => p.donor_id)));
  const typeOrder = data.types.map((_, i) => i).sort((a, b) => (data.types[a] > data.types[b]) - (data.types[a] < data.types[b]));
  options(controls.type, typeOrder, typeOrder.map((i) => data.types[i]));
  if (data.runs.length < 2) {
    controls.run.parentElement.hidden = true;
    $("option[value=differ]", controls.outcome).remove();
  }

  const texts = data.puzzles.map((p) => [p.id, p.context, p.donor_id, p.tissue, p.disease, p.dataset,
    ...p.candidates.map((t) => data.types[t]), ...new Set(p.cells.flat().map((g) => data.genes[g]))].join("\n").toLowerCase());

  // Items are made when they are first needed: a thousand would make every filter slow.
  const items = new Map();
  function item(i) {
    if (!items.has(i)) items.set(i, makeItem(data.puzzles[i], i));
    return items.get(i);
  }
  const button = (i) => item(i).firstChild;

  function makeItem(puzzle, i) {
    const scores = puzzle.runs.flatMap((response, r) => (response ? [scoreOf(response, r)] : []));
    const donor = puzzle.donor_id ? ` · donor ${puzzle.donor_id}` : "";
    return make("li", {}, make("button", { type: "button", tabindex: -1, "data-puzzle": i },
      make("span", { class: "top" }, make("span", {}, `${puzzle.cells.length} cells${donor}`),
        make("span", { class: "muted" }, puzzle.id.slice(0, 6))),
      make("span", { class: "scores" }, scores)));
  }

  /** Let the list hold the items up to a place among those shown, and the rest of their chunk. */
  function extend(place) {
    const wanted = Math.min(shown.length, CHUNK * Math.ceil((place + 1) / CHUNK));
    list.append(...shown.slice(list.children.length, wanted).map(item));
  }

  function scoreOf(response, index) {
    const n = response.right?.length;
    const text = response.failure ? "failed" : response.format ? `${response.right.filter(Boolean).length}/${n}` : "unreadable";
    return make("span", { class: `chip ${runClass(index)}${response.exact ? " exact" : ""}` },
      unseen(`${data.runs[index]}: `), text);
  }

  const outcomes = {
    wrong: (r) => !r.failure && !r.exact,
    right: (r) => Boolean(r.exact),
    failed: (r) => Boolean(r.failure) || !r.format,
  };

  function matches(puzzle, i, wanted) {
    if (wanted.n && puzzle.cells.length !== wanted.n) return false;
    if (wanted.donor && puzzle.donor_id !== wanted.donor) return false;
    const place = wanted.type === null ? -1 : puzzle.candidates.indexOf(wanted.type);
    if (wanted.type !== null && place < 0) return false;
    if (!wanted.words.every((word) => texts[i].includes(word))) return false;
    if (!wanted.outcome) return wanted.run === null || puzzle.runs[wanted.run] !== null;
    const said = (wanted.run === null ? puzzle.runs : [puzzle.runs[wanted.run]]).filter(Boolean);
    if (wanted.outcome === "differ") {
      const given = puzzle.runs.filter((r) => r && !r.failure).map((r) => r.given.join());
      const own = wanted.run === null ? given[0] : puzzle.runs[wanted.run]?.given?.join();
      return own !== undefined && given.some((other) => other !== own);
    }
    // With a type chosen, "wrong" asks for puzzles in which a cell of that type is wrong.
    if (wanted.outcome === "wrong" && place >= 0) {
      const cell = puzzle.answer.indexOf(place);
      return cell >= 0 && said.some((r) => !r.failure && !r.right[cell]);
    }
    return said.some(outcomes[wanted.outcome]);
  }

  function filter() {
    const number = (value) => (value === "" ? null : Number(value));
    const wanted = {
      words: controls.search.value.toLowerCase().split(/\s+/).filter(Boolean),
      outcome: controls.outcome.value, run: number(controls.run.value), n: number(controls.n.value),
      donor: controls.donor.value, type: number(controls.type.value),
    };
    shown = data.puzzles.flatMap((puzzle, i) => (matches(puzzle, i, wanted) ? [i] : []));
    list.replaceChildren();
    extend(0);
    $("#count").textContent = shown.length === data.puzzles.length
      ? `${shown.length} puzzles` : `${shown.length} of ${data.puzzles.length} puzzles`;
    if (wanted.run !== null) run = wanted.run;
    if (!shown.length) {
      detail.replaceChildren(make("p", { class: "muted" }, "No puzzle is like that. Clear a filter to see more."));
      drawn = "";
    } else {
      open(shown.includes(current) ? current : shown[0]);
    }
  }

  function open(i, { reveal = false } = {}) {
    button(current).removeAttribute("aria-current");
    button(current).tabIndex = -1;
    current = i;
    button(i).setAttribute("aria-current", "true");
    button(i).tabIndex = 0;
    if (drawn !== `${i} ${run}`) draw(i);
    const at = shown.indexOf(i);
    extend(at + 1);
    for (const step of $$("[data-step]", detail)) step.disabled = !(at + Number(step.dataset.step) in shown);
    // The list scrolls by itself, so that the page stays where it is.
    const [top, bottom] = [item(i).offsetTop, item(i).offsetTop + item(i).offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    if (reveal) $("#puzzle-title").scrollIntoView({ block: "start" });
  }

  function draw(i) {
    const puzzle = data.puzzles[i];
    drawn = `${i} ${run}`;
    const step = (by, text) => make("button", { type: "button", "data-step": by, onclick: () => move(by) }, text);
    detail.replaceChildren(
      make("header", {}, make("h3", { id: "puzzle-title", tabindex: -1 }, `Puzzle ${puzzle.id.slice(0, 6)}`,
        make("span", { class: "muted small" }, `  ${puzzle.cells.length} cells, ${puzzle.candidates.length} types`)),
        make("div", { class: "steps" }, step(-1, "← Previous"), step(1, "Next →"))),
      ...showPuzzle(puzzle, data, run, (index) => {
        run = index;
        open(current);
        $(`[data-run="${index}"]`, detail).focus();
      }));
  }

  function move(by) {
    const at = shown.indexOf(current) + by;
    if (at in shown) open(shown[at]);
  }

  list.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen) return;
    open(Number(chosen.dataset.puzzle), { reveal: matchMedia("(max-width: 56rem)").matches });
    history.replaceState(null, "", `#puzzle-${data.puzzles[current].id}`);
  });
  list.addEventListener("scroll", () => {
    if (list.scrollTop + 2 * list.clientHeight > list.scrollHeight) extend(list.children.length);
  });
  roving(list, () => shown.slice(0, list.children.length).map(button), (chosen) => open(Number(chosen.dataset.puzzle)));
  detail.addEventListener("click", followLink);
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      controls.search.focus();
    } else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  });

  $("#app").hidden = false;
  const named = data.puzzles.findIndex((p) => location.hash === `#puzzle-${p.id}`);
  current = Math.max(0, named);
  filter();
  if (named >= 0) $("#puzzles").scrollIntoView();
}

if ($("#data")) {
  unpack($("#data")).then(startBrowser).catch((error) => {
    $("#app").before(make("p", {}, `The puzzles cannot be shown: ${error.message}. A browser of 2023 or later is needed.`));
  });
}
