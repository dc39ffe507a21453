// The table of clusters: sorted by any column, and searched.
const table = $("#clusters");
if (table) {
  const body = $("tbody", table);
  const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
  $$("thead th", table).forEach((head, column) => {
    const button = $("button", head);
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      $$("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = $$("tr", body).sort((a, b) =>
        value(a, column).localeCompare(value(b, column), undefined, { numeric: true }));
      body.append(...(up ? rows : rows.reverse()));
    });
  });
  const search = $("#search"), count = $("#count"), all = $$("tr", body);
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of all) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${all.length} clusters`;
  };
  search.addEventListener("input", show);
  show();
}
