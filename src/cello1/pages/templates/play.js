// One puzzle after the other: choose a type for every cell, answer, be scored.

function startGame(data) {
  let number = 0;
  let given = []; // for every cell the position of its type, or null
  let seconds = 0;
  let playing = false;
  const puzzle = () => data.puzzles[number];

  // Only time with the page in view counts.
  setInterval(() => {
    if (document.hidden || !playing) return;
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
    $("#submit").hidden = false;
    $("#result").hidden = true;
    lock(false);
    refresh();
  }

  function cellItem(genes, i) {
    const choices = puzzle().candidates.map((type, j) => make("option", { value: j }, type));
    const select = make("select", { id: `type-${i}`, onchange: () => choose(i, select.value === "" ? null : Number(select.value)) },
      make("option", { value: "" }, "choose a type"), choices);
    const item = make("li", {
      ondragover: (event) => { event.preventDefault(); item.classList.add("over"); },
      ondragleave: () => item.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        item.classList.remove("over");
        const type = Number(event.dataTransfer.getData("text/plain"));
        if (playing && puzzle().candidates[type] !== undefined) move(i, type);
      },
    }, make("div", { class: "head" }, make("label", { for: `type-${i}` }, `Cell ${i + 1}`), select),
       make("p", {}, genes.flatMap((gene) => [make("span", { class: "gene" }, gene), " "])));
    return item;
  }

  function typeItem(type, j) {
    return make("li", { draggable: "true", ondragstart: (event) => event.dataTransfer.setData("text/plain", String(j)) },
      make("span", {}, type), make("span", { class: "at" }));
  }

  /** A type dropped onto a cell leaves the cell that had it. */
  function move(cell, type) {
    const holder = given.indexOf(type);
    if (holder >= 0) given[holder] = null;
    choose(cell, type);
  }

  /** A type chosen in a list takes nothing from other cells: arrow keys pass by many types. */
  function choose(cell, type) {
    given[cell] = type;
    refresh();
  }

  function refresh() {
    const holders = puzzle().candidates.map((_, j) => given.flatMap((type, i) => (type === j ? [i + 1] : [])));
    given.forEach((type, i) => {
      $(`#type-${i}`).value = type === null ? "" : String(type);
      $(`#type-${i}`).closest("li").classList.toggle("twice", type !== null && holders[type].length > 1);
    });
    $$("#types li").forEach((item, j) => {
      item.classList.toggle("used", holders[j].length > 0);
      $(".at", item).textContent = holders[j].length ? `cell ${holders[j].join(", ")}` : "";
    });
    const left = given.filter((type) => type === null).length;
    const shared = holders.filter((cells) => cells.length > 1).map((cells) => `cells ${cells.join(" and ")} share a type`);
    const open = left ? [`${left} of ${given.length} cells have no type yet`] : [];
    $("#left").textContent = [...open, ...shared].join("; ") || "Every cell has a type of its own.";
    $("#submit").disabled = left > 0 || shared.length > 0;
  }

  /** While an answer is on its way, and after it, nothing can be changed. */
  function lock(locked) {
    playing = !locked;
    for (const control of $$("select, textarea", $("#form"))) control.disabled = locked;
    $("#submit").disabled = locked;
  }

  async function send() {
    lock(true);
    const body = JSON.stringify({ id: puzzle().id, labels: given, seconds, notes: $("#notes").value });
    try {
      const reply = await fetch("/answer", { method: "POST", body, headers: { "x-token": data.token, "content-type": "application/json" } });
      const said = await reply.json();
      if (!reply.ok) throw new Error(said.error);
      tell(said);
    } catch (error) {
      lock(false);
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
