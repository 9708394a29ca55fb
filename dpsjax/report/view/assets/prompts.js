// The prompts of a run as rows, and what is known of one.
const OF_RUN = ["var(--blue)", "var(--red)", "var(--green)", "var(--pink)", "var(--orange)", "var(--sky)"];
const STATES = ["all wrong", "mixed", "all right"];
function rowsOf(run) {
  const v = run.visits, rows = [];
  for (let n = 0; n < run.size; n++) rows.push({ key: String(n), place: n, prompt: n, id: run.pool.id[n] || "", source: run.pool.source[n] || "",
    text: run.pool.text[n] || "", visits: [], right: 0, trials: 0, responses: [], belief: run.belief && run.belief[0] ? run.belief.map((b) => b[n] / 1000) : null });
  for (let i = 0; i < v.step.length; i++) {
    const row = rows[v.prompt[i]], of = row.visits, last = of[of.length - 1];
    if (!v.trials[i]) continue;
    if (last && last.step === v.step[i]) { last.passes += v.passes[i]; last.trials += v.trials[i]; } // in another round of the step
    else of.push({ step: v.step[i], passes: v.passes[i], trials: v.trials[i], predicted: v.predicted.map((p) => p[i] / 1000) });
    row.right += v.passes[i]; row.trials += v.trials[i];
  }
  const held = new Map(), blank = (n) => ({ key: `h${n}`, place: n, prompt: n, id: run.held.id[n] || "", source: run.held.source[n] || "", text: run.held.text[n] || "",
    visits: [], right: 0, trials: 0, responses: [], belief: null, held: true });
  if (!run.series.step.length) run.held.id.forEach((_, n) => held.set(n, blank(n))); // an evaluation asks them all
  for (const r of run.responses) {
    if (r.split === "train" && rows[r.prompt]) { const row = rows[r.prompt]; row.responses.push(r); row.source ||= r.source; row.text ||= r.question || ""; continue; }
    if (!held.has(r.prompt)) held.set(r.prompt, blank(r.prompt));
    const row = held.get(r.prompt);
    row.source ||= r.source; row.text ||= r.question || "";
    row.responses.push(r);
    if (r.split.endsWith("greedy")) continue;
    let last = row.visits[row.visits.length - 1];
    if (!last || last.step !== r.step) row.visits.push(last = { step: r.step, passes: 0, trials: 0, predicted: null });
    for (const of of [last, row]) of.trials += 1;
    last.passes += r.correct ? 1 : 0; row.right += r.correct ? 1 : 0;
  }
  const all = [...rows, ...[...held.values()].sort((a, b) => a.prompt - b.prompt)];
  for (const row of all) describe(row, run);
  return { pool: rows, held: all.slice(rows.length) };
}
function describe(row, run) {
  const last = row.visits[row.visits.length - 1], rates = row.visits.map((v) => v.passes / v.trials);
  row.last = last ? rates[rates.length - 1] : null;
  row.rate = row.trials ? row.right / row.trials : null;
  row.state = !last ? "never visited" : row.last === 0 ? STATES[0] : row.last === 1 ? STATES[2] : STATES[1];
  row.stuck = row.visits.length >= run.stuck && row.right === 0;
  row.regressed = row.last === 0 && row.right > 0;
  row.mixed = row.belief ? row.belief[1] : last && last.predicted ? last.predicted[1] : null;
  row.found = `${row.prompt} ${row.id} ${row.source} ${row.text}`.toLowerCase();
}
const COLUMNS = [
  { name: "prompt", label: "#", width: 62, value: (r) => r.prompt, help: "position in the pool" },
  { name: "source", label: "source", width: 98, text: true, value: (r) => r.source, help: "the group it is reported under" },
  { name: "visits", label: "visits", width: 66, value: (r) => r.visits.length, help: "steps with rollouts of it" },
  { name: "rate", label: "right", width: 118, value: (r) => r.rate, help: "share of right rollouts over all visits",
    show: (r) => r.rate === null ? null : [el("span", { class: "share" }, el("i", { style: { width: `${100 * r.rate}%` } })), `${r.right}/${r.trials}`] },
  { name: "last", label: "last", width: 60, value: (r) => r.last, show: (r) => r.last === null ? null : `${Math.round(100 * r.last)}%`, help: "share of right rollouts at the last visit" },
  { name: "step", label: "step", width: 62, value: (r) => r.visits.length ? r.visits[r.visits.length - 1].step : null, help: "of the last visit" },
  { name: "mixed", label: "P(mixed)", width: 84, value: (r) => r.mixed, show: (r) => r.mixed === null ? null : r.mixed.toFixed(2), help: "believed chance that the next visit is neither all wrong nor all right; before the last visit where the run has not ended" },
  { name: "kept", label: "kept", width: 64, value: (r) => r.responses.length, help: "responses that can be read" },
  { name: "text", label: "prompt", least: 180, text: true, value: (r) => r.text },
];
const OF_EVALUATION = ["prompt", "source", "rate", "kept", "text"];
const FILTERS = {
  "all prompts": () => true, "with responses": (r) => r.responses.length > 0, "never visited": (r) => !r.visits.length,
  "last all wrong": (r) => r.state === STATES[0], "last mixed": (r) => r.state === STATES[1], "last all right": (r) => r.state === STATES[2],
  "stuck": (r) => r.stuck, "regressed": (r) => r.regressed,
};
function promptPanel(runs, at) {
  const tables = runs.map(rowsOf), detail = el("div", { class: "detail", "aria-live": "polite" });
  let run = 0, held = false, rows = [];
  const columns = runs.some((r) => r.series.step.length) ? COLUMNS : COLUMNS.filter((c) => OF_EVALUATION.includes(c.name));
  const table = grid(columns, (row) => { detail.replaceChildren(...detailOf(row, runs[run])); detail.scrollTop = 0; remember(); });
  const pick = (options, label) => el("select", { "aria-label": label, onchange: () => list(true) }, options.map((o) => el("option", { value: o }, o)));
  const search = el("input", { type: "search", placeholder: "search text, id, source", "aria-label": "search", oninput: () => list(false) });
  const filter = pick(Object.keys(FILTERS), "filter"), source = pick(["every source"], "source"), count = el("span", { class: "dim", "data-count": true });
  const which = el("select", { "aria-label": "run", hidden: runs.length < 2, onchange: () => { run = +which.value; open(); } }, runs.map((r, i) => el("option", { value: i }, r.label)));
  const pools = [false, true].map((h) => el("button", { onclick: () => { held = h; open(); } }));
  function open(state = {}) {
    if (!tables[run].pool.length) held = true;
    if (!tables[run].held.length) held = false;
    which.value = run;
    rows = held ? tables[run].held : tables[run].pool;
    const sources = [...new Set(rows.map((r) => r.source))].sort(), before = source.value;
    source.replaceChildren(...["every source", ...sources].map((s) => el("option", { value: s }, s)));
    source.value = sources.includes(before) ? before : "every source";
    pools.forEach((button, i) => {
      const size = (i ? tables[run].held : tables[run].pool).length;
      button.setAttribute("aria-pressed", String(held === !!i));
      button.hidden = !size;
      button.textContent = `${i ? (runs[run].evaluation ? "problems" : "held-out, kept") : "pool"} (${size.toLocaleString("en-US")})`;
    });
    list(false, state);
  }
  function list(byHand, state = {}) {
    const wanted = search.value.toLowerCase().trim(), fits = FILTERS[filter.value];
    const shown = rows.filter((r) => fits(r) && (source.value === "every source" || r.source === source.value) && (!wanted || r.found.includes(wanted)));
    table.fill(shown);
    count.textContent = shown.length === rows.length ? "" : `${shown.length.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")}`;
    const kept = state.prompt && rows.find((r) => r.key === state.prompt) || (shown.includes(table.state.chosen) ? table.state.chosen : table.state.order[0]);
    if (kept) table.choose(kept, true);
    else detail.replaceChildren(el("p", { class: "note" }, "No prompt fits."));
  }
  // The address says what is shown, so that it can be sent to somebody who has the page.
  function remember() {
    const now = { run: run || "", prompt: table.state.chosen && table.state.chosen.key, sort: `${table.state.down ? "-" : ""}${table.state.sort}`,
      filter: filter.value === "all prompts" ? "" : filter.value, source: source.value === "every source" ? "" : source.value, find: search.value };
    const text = new URLSearchParams(Object.entries(now).filter(([, v]) => v)).toString();
    history.replaceState(null, "", `#${text}`);
  }
  table.changed = remember;
  const state = Object.fromEntries(new URLSearchParams(at));
  run = runs[+state.run] ? +state.run : 0;
  held = (state.prompt || "").startsWith("h");
  if (FILTERS[state.filter]) filter.value = state.filter;
  search.value = state.find || "";
  const sort = state.sort || "-kept";
  table.state.sort = sort.replace(/^-/, ""); table.state.down = sort.startsWith("-");
  open(state);
  if (state.source) { source.value = state.source; if (!source.value) source.value = "every source"; list(false, state); }
  setTimeout(table.reveal); // once it is on the page
  return [el("div", { class: "bar" }, which, pools, search, filter, source, count), el("div", { class: "split" }, table.element, detail)];
}
function detailOf(row, run) {
  const places = run.images_of[row.key];
  const facts = [row.id && row.id !== String(row.prompt) ? row.id : null, row.source, row.held ? null : row.visits.length ? `${row.right} of ${row.trials} right over ${row.visits.length} visits` : "never visited",
    row.held && row.trials ? `${row.right} of ${row.trials} kept responses right` : null, row.stuck ? "stuck" : null, row.regressed ? "regressed" : null].filter(Boolean);
  const made = [el("h3", { style: { "margin-top": 0 } }, `${row.held ? (run.evaluation ? "Problem" : "Held-out problem") : "Prompt"} ${row.prompt}`), el("p", { class: "dim", style: { margin: "0 0 8px" } }, facts.join(" · "))];
  if (places && places.length) made.push(el("div", { class: "pictures" }, places.map((p) => run.images[p] ? el("img", { src: run.images[p], alt: "image of the prompt" })
    : el("span", { class: "dim" }, `the image ${p} is missing, of another kind, or too large for this page`))));
  made.push(el("pre", { class: "question" }, row.text || "The text of this prompt was not kept."));
  if (row.visits.length && !run.evaluation) made.push(el("h3", {}, row.held ? "Kept responses that were right" : "Belief before each visit, and what the visit showed"), history_(row, run));
  return [...made, ...responsesOf(row, run)];
}
function history_(row, run) {
  const steps = row.visits.map((v) => v.step), rates = row.visits.map((v) => v.passes / v.trials), last = run.series.step.at(-1) || steps.at(-1);
  const fills = rates.map((r) => r === 0 ? "var(--red)" : r === 1 ? "var(--orange)" : "var(--green)"), chances = row.visits.every((v) => v.predicted);
  const names = [["P(all wrong)", "var(--red)"], ["P(mixed)", "var(--green)"], ["P(all right)", "var(--orange)"]], end = row.belief && run.finished ? row.belief : null;
  const series = chances ? names.map(([name, color], k) => ({ name, color, x: end ? [...steps, last] : steps, y: [...row.visits.map((v) => v.predicted[k]), ...(end ? [end[k]] : [])],
    dash: k === 1 ? null : "4 3" })) : [];
  series.push({ name: "share right", color: "var(--text)", x: steps, y: rates, points: true, fills });
  const seen = el("table", { class: "plain" }, el("tr", {}, ["step", "right", "P(mixed) before"].map((t) => el("th", { class: "n" }, t))),
    [...row.visits].reverse().map((v) => el("tr", {}, [v.step, `${v.passes}/${v.trials}`, v.predicted ? v.predicted[1].toFixed(3) : "–"].map((t) => el("td", { class: "n" }, t)))));
  return el("div", {}, chart({ title: "", x: "step", y: [0, 1], x01: [0, Math.max(last, 1)], height: 170, series }), el("details", {}, el("summary", {}, `${row.visits.length} visits in numbers`), seen));
}
function responsesOf(row, run) {
  if (!row.responses.length) return [el("h3", {}, "Responses"), el("p", { class: "note" }, "None of its responses were kept; with --responses.prompts and --responses.each a run keeps more.")];
  const place = el("div"), buttons = ["all", "right", "wrong"].map((name) => el("button", { onclick: () => fill(name, 40) }, name));
  function fill(name, most) {
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.textContent === name)));
    const shown = row.responses.filter((r) => name === "all" || (name === "right") === (r.correct === true)), groups = new Map();
    for (const r of [...shown].reverse().slice(0, most)) { const key = `step ${r.step}${r.split === "held-out greedy" ? ", the likeliest" : ""}`; groups.set(key, [r, ...(groups.get(key) || [])]); }
    place.replaceChildren(...[...groups].flatMap(([title, of]) => [run.evaluation ? null : el("p", { class: "dim", style: { margin: "10px 0 4px" } }, title), el("div", { class: "cards" }, of.map(card))].filter(Boolean)),
      ...(shown.length > most ? [el("button", { onclick: () => fill(name, most + 200) }, `${shown.length - most} more`)] : []));
  }
  fill("all", 40);
  return [el("h3", {}, `Responses (${row.responses.length})`), el("div", { class: "bar" }, buttons), place];
}
function card(r) {
  const verdict = r.correct === null || r.correct === undefined ? "no verdict" : r.correct ? "right" : "wrong", facts = [["answer", r.answer], ["reason", r.reason]].filter(([, v]) => v);
  const tokens = `${short(r.tokens)} tokens${r.truncated ? ", cut off at the limit" : ""}`;
  return el("div", { class: `card ${verdict}` }, el("div", {}, el("span", { class: "verdict" }, verdict), el("span", { class: "dim" }, `${known(r.reward) ? ` · reward ${+r.reward.toFixed(4)}` : ""} · ${tokens}`)),
    facts.length ? el("dl", {}, facts.map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)])) : null, el("pre", {}, marked(r.response, r.answer)));
}
function marked(text, answer) { // where the answer was found: its last place in the response
  const at = answer ? text.lastIndexOf(answer) : -1;
  return at < 0 || answer === text ? [text] : [text.slice(0, at), el("mark", {}, answer), text.slice(at + answer.length)];
}
