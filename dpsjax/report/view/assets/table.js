// A table of any length: only the rows in sight are elements.
const ROW = 28;
function grid(columns, onChoose) {
  const state = { rows: [], order: [], sort: null, down: false, chosen: null };
  const body = el("div", { style: { position: "relative" } }), head = el("div", { class: "row head", role: "row" });
  const least = columns.reduce((sum, c) => sum + (c.least || c.width), 0);
  const outer = el("div", { class: "rows", tabindex: 0, role: "grid", "aria-label": "prompts", style: {
    "--columns": columns.map((c) => c.least ? `minmax(${c.least}px, 1fr)` : `${c.width}px`).join(" "), "--least": `${least}px` } }, head, body);
  for (const column of columns) head.append(el("button", { class: column.text ? null : "n", title: column.help, onclick: () => sortBy(column.name) }, column.label));
  function sortBy(name, down) {
    const column = columns.find((c) => c.name === name) || columns[0];
    state.down = down === undefined ? (state.sort === column.name ? !state.down : !column.text) : down;
    state.sort = column.name;
    outer.scrollTop = 0;
    arrange();
    api.changed();
  }
  function arrange() {
    const column = columns.find((c) => c.name === state.sort) || columns[0], sign = state.down ? -1 : 1;
    const keys = new Map(state.rows.map((row) => [row, column.value(row)]));
    state.order = [...state.rows].sort((a, b) => {
      const x = keys.get(a), y = keys.get(b), noX = x === null || x === undefined, noY = y === null || y === undefined;
      if (noX || noY) return noX === noY ? a.place - b.place : noX ? 1 : -1; // what is not known comes last
      return (x < y ? -sign : x > y ? sign : 0) || a.place - b.place;
    });
    columns.forEach((c, i) => {
      head.children[i].textContent = c.label + (c.name === state.sort ? (state.down ? " ↓" : " ↑") : "");
      if (c.name === state.sort) head.children[i].setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.children[i].removeAttribute("aria-sort");
    });
    body.style.setProperty("height", `${state.order.length * ROW}px`);
    show();
  }
  function show() {
    const first = Math.max(0, Math.floor(outer.scrollTop / ROW) - 4), last = Math.min(state.order.length, first + Math.ceil(620 / ROW) + 8);
    body.replaceChildren(...state.order.slice(first, last).map((row, i) => el("div", { class: `row${row === state.chosen ? " on" : ""}`, role: "row",
      "aria-selected": String(row === state.chosen), style: { top: `${(first + i) * ROW}px` }, onclick: () => choose(row) },
      columns.map((c) => { const shown = c.show ? c.show(row) : c.value(row);
        return el("span", { class: c.text ? null : "n", title: c.text ? String(c.value(row)).slice(0, 400) : null }, shown === null || shown === undefined ? "–" : shown); }))));
  }
  function choose(row, scroll) {
    state.chosen = row;
    if (scroll) reveal();
    show();
    onChoose(row);
  }
  function reveal() {
    const place = state.order.indexOf(state.chosen) * ROW;
    if (place < outer.scrollTop || place > outer.scrollTop + 620 - 3 * ROW) outer.scrollTop = Math.max(0, place - 240);
  }
  outer.addEventListener("scroll", () => requestAnimationFrame(show));
  outer.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 18, PageUp: -18 }[event.key];
    if (!move || !state.order.length) return;
    event.preventDefault();
    const place = state.order.indexOf(state.chosen);
    choose(state.order[Math.min(Math.max(place + move, 0), state.order.length - 1)], true);
  });
  const api = { element: outer, state, sortBy, choose, reveal, changed() {}, fill(rows) { state.rows = rows; outer.scrollTop = 0; arrange(); } };
  return api;
}
