// One puzzle after the other: choose a type for every cell, answer, be scored.

function startGame(data) {
  let number = 0;
  let given = []; // for every cell the position of its type, or null
  let seconds = 0;
  const puzzle = () => data.puzzles[number];

  // Only time with the page in view counts.
  setInterval(() => {
    if (document.hidden || $("#form").inert) return;
    seconds += 1;
    $("#clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }, 1000);

  function show() {
    given = puzzle().cells.map(() => null);
    seconds = 0;
    $("#title").textContent = `Puzzle ${number + 1} of ${data.puzzles.length}`;
    $("#context").textContent = puzzle().context;
    $("#clock").textContent = "0:00";
    $("#notes").value = "";
    $("#cells").replaceChildren(...puzzle().cells.map(cellItem));
    $("#types").replaceChildren(...puzzle().candidates.map(typeItem));
    $("#form").inert = false;
    $("#submit").hidden = false;
    $("#result").hidden = true;
    refresh();
  }

  function cellItem(genes, i) {
    const choices = puzzle().candidates.map((type, j) => make("option", { value: j }, type));
    const select = make("select", { id: `type-${i}`, onchange: () => give(i, select.value === "" ? null : Number(select.value)) },
      make("option", { value: "" }, "choose a type"), choices);
    const item = make("li", {
      ondragover: (event) => { event.preventDefault(); item.classList.add("over"); },
      ondragleave: () => item.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        item.classList.remove("over");
        const type = Number(event.dataTransfer.getData("text/plain"));
        if (puzzle().candidates[type] !== undefined) give(i, type);
      },
    }, make("div", { class: "head" }, make("label", { for: `type-${i}` }, `Cell ${i + 1}`), select),
       make("p", {}, genes.flatMap((gene) => [make("span", { class: "gene" }, gene), " "])));
    return item;
  }

  function typeItem(type, j) {
    return make("li", { draggable: "true", ondragstart: (event) => event.dataTransfer.setData("text/plain", String(j)) },
      make("span", {}, type), make("span", { class: "at" }));
  }

  /** Give a cell a type; a cell that had it has none then. */
  function give(cell, type) {
    const holder = type === null ? -1 : given.indexOf(type);
    if (holder >= 0) given[holder] = null;
    given[cell] = type;
    refresh();
  }

  function refresh() {
    given.forEach((type, i) => { $(`#type-${i}`).value = type === null ? "" : String(type); });
    $$("#types li").forEach((item, j) => {
      const cell = given.indexOf(j);
      item.classList.toggle("used", cell >= 0);
      $(".at", item).textContent = cell >= 0 ? `cell ${cell + 1}` : "";
    });
    const left = given.filter((type) => type === null).length;
    $("#left").textContent = left ? `${left} of ${given.length} cells have no type yet` : "Every cell has a type.";
    $("#submit").disabled = left > 0;
  }

  async function send() {
    $("#form").inert = true;
    const body = JSON.stringify({ id: puzzle().id, labels: given, seconds, notes: $("#notes").value });
    try {
      const reply = await fetch("/answer", { method: "POST", body, headers: { "x-token": data.token, "content-type": "application/json" } });
      const said = await reply.json();
      if (!reply.ok) throw new Error(said.error);
      tell(said);
    } catch (error) {
      $("#form").inert = false;
      $("#left").textContent = `Not kept: ${error.message}`;
    }
  }

  function tell(said) {
    const right = said.right.filter(Boolean).length;
    $("#submit").hidden = true;
    $("#result-title").textContent = right === said.right.length
      ? `All ${right} cells are right, in ${seconds} s` : `${right} of ${said.right.length} cells are right, in ${seconds} s`;
    $$("#cells li").forEach((item, i) => {
      item.classList.add(said.right[i] ? "was-right" : "was-wrong");
      $(".head", item).append(make("span", { class: `truth ${said.right[i] ? "right" : "wrong"}` },
        said.right[i] ? "✓ right" : `✗ it is ${puzzle().candidates[said.answer[i]]}`));
    });
    $("#beside").textContent = said.solvers.length
      ? "On this puzzle: " + said.solvers.map((s) => `${s.name} ${s.right} of ${s.of}`).join(", ") + "." : "";
    standing(said.standing);
    const last = number === data.puzzles.length - 1;
    $("#next").hidden = last;
    if (last) $("#beside").append(" That was the last puzzle of this session; your answers are kept.");
    $("#result").hidden = false;
    $("#result-title").focus();
    $("#result").scrollIntoView({ block: "end" });
  }

  function standing(rows) {
    $("#standing").replaceChildren(...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name),
      make("td", { class: "number" }, `${row.batches} of ${row.puzzles}`),
      make("td", { class: "number" }, `${(100 * row.cells).toFixed(1)} %`), make("td", { class: "number" }, String(row.puzzles)))));
  }

  $("#form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!$("#submit").disabled) send();
  });
  $("#next").addEventListener("click", () => {
    number += 1;
    show();
    scrollTo(0, 0);
    $("#title").focus();
  });
  $("#app").hidden = false;
  show();
}

unpack($("#data")).then(startGame);
