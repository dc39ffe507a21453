// One puzzle: who said what, how sure, and why.

const MARKS = ["supported", "marker", "absent"];
const SAID = ["in the list of cell", "known marker, in the list of cell", "not in the list of cell"];

function showPuzzle(puzzle, data, current, chooseRun) {
  const types = puzzle.candidates.map((type) => data.types[type]);
  const place = [puzzle.donor_id && `donor ${puzzle.donor_id}`, puzzle.tissue, puzzle.disease, puzzle.dataset];
  const parts = [
    make("p", { class: "muted small" }, place.filter(Boolean).join(" · ")),
    make("p", {}, puzzle.context),
    answersTable(puzzle, data, types),
  ];
  const said = puzzle.runs.flatMap((response, index) => (response ? [index] : []));
  const chosen = said.includes(current) ? current : said[0];
  if (chosen === undefined) return [...parts, cellList(puzzle, data, types, null)];
  parts.push(
    make("h4", {}, said.length > 1 ? "Look closer at a run" : "The response"),
    make("div", { class: "tabs", role: "group", "aria-label": "Run" }, said.map((index) =>
      make("button", { type: "button", "data-run": index, "aria-pressed": String(index === chosen), onclick: () => chooseRun(index) },
           chip(index, data.runs[index])))),
  );
  const response = puzzle.runs[chosen];
  if (response.failure) {
    parts.push(make("p", { class: "panel" }, make("b", { class: "wrong" }, "The call failed. "), response.failure));
    return [...parts, cellList(puzzle, data, types, null)];
  }
  parts.push(facts(response), ...(response.shares ? [sharesTable(puzzle, types, response, chosen)] : []));
  parts.push(make("div", { class: "split" },
    make("section", {}, make("h4", {}, response.format ? "Reasoning" : "The response, as it came"),
      reasoning(puzzle, response)),
    cellList(puzzle, data, types, response)));
  return parts;
}

function verdict(right) {
  return make("span", { class: `mark ${right ? "right" : "wrong"}`, "aria-label": right ? "right" : "wrong", role: "img" },
              right ? "✓" : "✗");
}

/** What every run gave every cell, beside what is true. */
function answersTable(puzzle, data, types) {
  const shown = puzzle.runs.flatMap((response, index) => (response ? [index] : []));
  const head = make("tr", {}, make("th", {}, "Cell"), make("th", {}, "True type"),
    shown.map((index) => make("th", {}, chip(index, data.runs[index]))));
  const rows = puzzle.cells.map((_, cell) => make("tr", {},
    make("th", { scope: "row" }, make("a", { href: `#cell-${cell + 1}`, "data-cell": cell + 1 }, String(cell + 1))),
    make("td", {}, types[puzzle.answer[cell]]),
    shown.map((index) => answerOf(puzzle.runs[index], cell, types))));
  const table = make("table", { class: "answers" }, make("thead", {}, head), make("tbody", {}, rows));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Answers of all runs" }, table);
}

function answerOf(response, cell, types) {
  if (response.failure) return make("td", { class: "muted" }, "call failed");
  const given = response.given[cell];
  const label = given === null ? response.labels?.[cell] : types[given];
  if (label === undefined) return make("td", { class: "muted" }, "no readable label");
  // A right answer repeats the column of true types, so a tick says it all.
  const right = response.right[cell];
  return make("td", {}, verdict(right), right ? unseen(label) : label || "(empty)");
}

function facts(response) {
  const right = response.right.filter(Boolean).length;
  const item = (text, bad = false) => make("li", { class: bad ? "bad" : null }, text);
  return make("ul", { class: "facts" },
    item(`${right} of ${response.right.length} cells right`),
    response.reason ? item(response.reason, true) : null,
    response.cut ? item("cut off at the limit of tokens", true) : null,
    response.tokens === null ? null : item(`${response.tokens} tokens`),
    item(`${response.seconds < 1 ? Math.round(1000 * response.seconds) + " ms" : response.seconds.toFixed(1) + " s"}`));
}

/** The probability of every type for every cell. */
function sharesTable(puzzle, types, response, run) {
  const cells = puzzle.cells.map((_, cell) => cell);
  const head = make("tr", {}, make("th", {}), cells.map((cell) => make("th", { scope: "col" }, unseen("Cell "), String(cell + 1))));
  const rows = types.map((type, j) => make("tr", {}, make("th", { scope: "row" }, type), cells.map((i) => {
    const share = response.shares[i][j] / 1000;
    const chosen = response.given[i] === j;
    const gold = puzzle.answer[i] === j;
    const names = ["chosen", "gold", "deep"].filter((_, k) => [chosen, gold, share > 0.55][k]);
    return make("td", { class: names.join(" ") || null, "--share": share,
                        title: `Cell ${i + 1}, ${type}: ${(100 * share).toFixed(1)} %` },
      share >= 0.01 ? String(Math.round(100 * share)) : "",
      chosen ? unseen(" chosen") : null, gold ? unseen(" true type") : null);
  })));
  return make("section", {}, make("h4", {}, "How sure it was, in per cent"),
    make("ul", { class: "legend" }, make("li", {}, "□ ring: the type chosen"), make("li", {}, "● green dot: the true type"),
      make("li", {}, response.method === "softmax" ? "each cell by itself" : "each type once")),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Probabilities" },
      make("table", { class: `matrix shares ${runClass(run)}` }, make("thead", {}, head), make("tbody", {}, rows))));
}

/** The text with its cells and genes as links into the lists of genes. */
function reasoning(puzzle, response) {
  const count = [0, 0, 0];
  const text = response.text.map((piece) => {
    if (typeof piece === "string") return piece;
    const [word, cell, mark] = piece;
    if (mark === undefined) return make("a", { class: "cell", href: `#cell-${cell}`, "data-cell": cell }, word);
    count[mark] += 1;
    return make("a", { class: `cited ${MARKS[mark]}`, href: `#cell-${cell}`, "data-cell": cell, "data-gene": word,
                       title: `${SAID[mark]} ${cell}` }, word, unseen(` (${SAID[mark]} ${cell})`));
  });
  const names = ["in the list of its cell", "known marker of the type given", "not in the list of its cell"];
  const legend = make("ul", { class: "legend" }, MARKS.map((mark, k) =>
    make("li", {}, make("span", { class: `cited ${mark}` }, String(count[k])), ` ${names[k]}`)));
  const empty = response.text.length === 0;
  return make("div", {}, legend, make("div", { class: "panel reasoning" }, empty ? "(no reasoning)" : text));
}

function cellList(puzzle, data, types, response) {
  const cited = puzzle.cells.map(() => new Set());
  for (const piece of response?.text ?? []) {
    if (typeof piece !== "string" && piece.length === 3) cited[piece[1] - 1].add(piece[0]);
  }
  const items = puzzle.cells.map((genes, i) => {
    const type = puzzle.candidates[puzzle.answer[i]];
    const known = new Set(data.markers[type] ?? []);
    const list = genes.flatMap((gene) => {
      const name = data.genes[gene];
      const classes = ["gene", cited[i].has(name) ? "cited supported" : "", known.has(gene) ? "known" : ""];
      return [make("span", { class: classes.filter(Boolean).join(" "), "data-name": name }, name), " "];
    });
    return make("li", { id: `cell-${i + 1}` }, make("h5", {}, `Cell ${i + 1} · ${types[puzzle.answer[i]]}`), make("p", {}, list));
  });
  return make("section", {}, make("h4", {}, "Genes, highest expression first"),
    make("ul", { class: "legend" }, make("li", {}, make("span", { class: "cited supported" }, "cited"), " in the reasoning"),
      make("li", {}, make("span", { class: "gene known" }, "underlined"), " known marker of the true type")),
    make("ol", { class: "cells" }, items));
}

/** Show the cell, and the gene in it, that a link of the answer or the reasoning speaks of. */
function followLink(event) {
  const link = event.target.closest("a[data-cell]");
  if (!link) return;
  event.preventDefault();
  $$(".cells .shown, .cells .found").forEach((old) => old.classList.remove("shown", "found"));
  const cell = document.getElementById(`cell-${link.dataset.cell}`);
  cell.classList.add("shown");
  const gene = $$("[data-name]", cell).find((span) => span.dataset.name === link.dataset.gene);
  gene?.classList.add("found");
  cell.scrollIntoView({ block: "center" });
}
