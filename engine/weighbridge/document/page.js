"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

  // The table: sorted by its headings, searched by its words.
  const table = byId("table"), body = table.tBodies[0], search = byId("search");
  const rows = [...body.rows], heads = [...table.tHead.rows].at(-1).cells;
  const words = new Map();
  const textual = [...heads].flatMap((head, i) => (head.classList.contains("n") ? [] : [i]));

  const textOf = (row) => {
    if (!words.has(row)) {
      words.set(row, textual.map((i) => row.cells[i].textContent).join(" ").toLowerCase());
    }
    return words.get(row);
  };

  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !wanted.every((word) => textOf(row).includes(word));
      shown += row.hidden ? 0 : 1;
    }
    byId("shown").textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  };

  const keyOf = (row, i, numeric) => {
    const cell = row.cells[i], text = cell.dataset.o ?? cell.textContent;
    return numeric ? Number.parseFloat(text.replaceAll(",", "")) : text;
  };

  const compare = (a, b) => (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);

  const sort = (head, i) => {
    const numeric = head.classList.contains("n");
    const cycle = numeric ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
    const next = cycle[(cycle.indexOf(head.ariaSort) + 1) % 3], sign = next === "ascending" ? 1 : -1;
    for (const other of heads) other.ariaSort = "none";
    head.ariaSort = next;
    const missing = (key) => key === "" || Number.isNaN(key);
    const keyed = rows.map((row) => [keyOf(row, i, numeric), row]);
    if (next !== "none") {
      // What has no value comes last, either way round.
      keyed.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
    }
    body.append(...keyed.map(([, row]) => row));
  };

  [...heads].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, i));
    head.append(button);
  });
  search.addEventListener("input", filter);
  filter();

  // A link to a row that the search hides shows all rows first.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#t"]');
    if (link && byId(link.hash.slice(1))?.hidden) {
      search.value = "";
      filter();
    }
  });

  // The map: a column at a time, walked through with the arrow keys.
  const grid = byId("map-grid");
  if (!grid) return;
  const data = JSON.parse(byId("map-data").textContent);
  const links = [...grid.querySelectorAll("a")], readout = byId("map-readout"), choice = byId("map-column");
  const idle = readout.textContent;

  const describe = (link, column, cell) => {
    const layer = link.dataset.layer === "-1" ? "no layer" : `layer ${link.dataset.layer}`;
    const place = `${link.closest("tr").cells[0].textContent}, ${layer}`;
    if (!cell) return { place: `${place}: no value`, name: "" };
    const [, value, name, tensors] = cell;
    const many = tensors > 1 ? ` (one of ${tensors.toLocaleString("en")} tensors)` : "";
    return { place: `${place}: ${column.label} ${value || "not known"}${many}, `, name: data.names[name] };
  };

  const draw = () => {
    const column = data.columns[choice.value];
    byId("map-meaning").textContent = `${column.label}: ${column.meaning}`;
    byId("map-ticks").replaceChildren(...column.ticks.map((tick) => Object.assign(document.createElement("li"), { textContent: tick })));
    links.forEach((link, i) => {
      const cell = column.cells[i], line = cell && data.lines[cell[2]];
      const { place, name } = describe(link, column, cell);
      link.className = cell && cell[0] >= 0 ? `m${cell[0]}` : "none";
      line ? link.setAttribute("href", `#${line}`) : link.removeAttribute("href");
      link.setAttribute("aria-label", place + name);
      link.title = place + name;
    });
  };

  const tell = (link) => {
    if (!link) return;
    const column = data.columns[choice.value];
    const { place, name } = describe(link, column, column.cells[links.indexOf(link)]);
    const isolated = Object.assign(document.createElement("bdi"), { textContent: name });
    readout.replaceChildren(place, isolated);
  };

  const enter = (link) => {
    for (const other of links) other.tabIndex = -1;
    link.tabIndex = 0;
    link.focus();
  };

  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  const walk = (event) => {
    const step = steps[event.key], from = event.target.closest("td");
    if (!step || !from) return;
    event.preventDefault();
    const body = grid.tBodies[0];
    let row = from.parentElement.sectionRowIndex, column = from.cellIndex;
    do {
      row += step[0];
      column += step[1];
      const link = body.rows[row]?.cells[column]?.querySelector("a");
      if (link) return enter(link);
    } while (row >= 0 && row < body.rows.length && column > 0 && column < body.rows[0].cells.length);
  };

  choice.addEventListener("change", draw);
  grid.addEventListener("pointerover", (event) => tell(event.target.closest("a")));
  grid.addEventListener("pointerleave", () => { readout.textContent = idle; });
  grid.addEventListener("focusin", (event) => tell(event.target.closest("a")));
  grid.addEventListener("keydown", walk);
  links.forEach((link, i) => { link.tabIndex = i ? -1 : 0; });
  draw();
})();
