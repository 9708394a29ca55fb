// The page: numbers first, then curves, then prompts, then settings.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs, TRAINED = RUNS.map((r, i) => ({ ...r, color: OF_RUN[i % OF_RUN.length] })).filter((r) => r.series.step.length);
const lastOf = (values) => values.length ? values[values.length - 1] : null;
const mean = (values) => { const v = values.filter(known); return v.length ? v.reduce((a, b) => a + b, 0) / v.length : null; };
function numbersOf(run) {
  const held = run.held_out, step = lastOf(run.series.step);
  return [["steps", known(run.planned) && step < run.planned ? `${short(step)} of ${short(run.planned)}` : short(step)], ["rollouts", short(lastOf(run.series.rollouts))],
    ["effective ratio", short(mean(run.series.effective_ratio))], ["held-out, sampled", held ? `${short(held.accuracy[0])} → ${short(lastOf(held.accuracy))}` : "–"],
    ["held-out, greedy", held ? `${short(held.greedy[0])} → ${short(lastOf(held.greedy))}` : "–"], ["prompts visited", `${short(lastOf(run.series.coverage))} of ${short(run.size)}`],
    ["seconds a step", short(median(run.seconds))]];
}
function median(values) { const v = values.filter(known).sort((a, b) => a - b); return v.length ? v[v.length >> 1] : null; }
function summaryOf() {
  if (TRAINED.length === 1) return el("div", { class: "tiles" }, numbersOf(TRAINED[0]).map(([name, value]) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, name))));
  const all = TRAINED.map(numbersOf);
  return el("div", { class: "wide", style: { "margin-top": "14px" } }, el("table", { class: "plain" }, el("tr", {}, el("th", {}, "run"), all[0].map(([name]) => el("th", { class: "n" }, name))),
    all.map((numbers, i) => el("tr", {}, el("td", {}, el("span", { class: "dot", style: { background: TRAINED[i].color } }), TRAINED[i].label), numbers.map(([, value]) => el("td", { class: "n" }, value))))));
}
const windowOf = (run) => 2 * Math.floor(run.series.step.length / 20) + 1;
const share = (run, name) => run.series[name].map((v, i) => { const n = run.series.groups[i]; return known(v) && n ? v / n : null; });
function smoothed(run, name, color, x, y, faint) {
  const made = [{ name, color, x, y: smooth(y, windowOf(run)) }];
  return faint ? [{ color, x, y, faint: true }, ...made] : made;
}
function curves(axis) {
  const one = TRAINED.length === 1, X = (run) => run.series[axis], of = (make) => TRAINED.flatMap(make), run = TRAINED[0];
  const overlay = (title, values, y) => ({ title, x: axis, y, quiet: one, series: of((r) => smoothed(r, one ? null : r.label, one ? "var(--blue)" : r.color, X(r), values(r), one).map((s) => ({ ...s, name: s.faint ? null : one ? "mean" : r.label }))) });
  const effective = one ? { title: "Outcomes of the prompts that were asked", x: axis, y: [0, 1], series: [["mixed (effective)", "effective_ratio", "var(--green)"], ["all wrong", "all_wrong", "var(--red)"], ["all right", "all_right", "var(--orange)"]]
    .flatMap(([name, key, color]) => smoothed(run, name, color, X(run), key === "effective_ratio" ? run.series[key] : share(run, key), true)) }
    : overlay("Effective ratio: share of prompts with mixed outcomes", (r) => r.series.effective_ratio, [0, 1]);
  const accuracy = { title: "Held-out accuracy", x: axis, series: of((r) => {
    const h = r.held_out;
    const batch = one ? smoothed(r, "training batch (selected)", "var(--grey)", X(r), r.series.accuracy) : [];
    if (!h) return batch;
    return [...batch, { name: one ? "sampled" : `${r.label}, sampled`, color: one ? "var(--blue)" : r.color, x: h[axis], y: h.accuracy, dots: true },
      { name: one ? "greedy" : "greedy", color: one ? "var(--orange)" : r.color, x: h[axis], y: h.greedy, dots: true, dash: true },
      ...(one ? [{ name: "before, best temperature", color: "var(--text)", x: [h[axis][0], lastOf(h[axis])], y: [h.best_before, h.best_before], dash: "1 3" }] : [])];
  }) };
  const bandsOf = (r, title, rows, unseen) => ({ title: one ? title : `${title}: ${r.label}`, x: "step", y: [0, 1], bandX: r.series.step,
    bands: rows.map((y, k) => ({ y, ...[{ name: "never visited", color: "var(--unseen)" }, { name: "all wrong", color: "var(--red)" }, { name: "mixed", color: "var(--green)" }, { name: "all right", color: "var(--orange)" }][k + (unseen ? 0 : 1)] })) });
  const occupancy = of((r) => [bandsOf(r, "The pool, as each prompt was last seen", r.occupancy.observed, true), bandsOf(r, "The pool, as it is believed to be", r.occupancy.predicted, false)]);
  const calibration = { title: "Calibration of P(mixed)", x: "predicted P(mixed); upright: how often it was, with 95 % intervals", y: [0, 1], x01: [0, 1], diagonal: true, still: true, series: of((r) => {
    const c = r.calibration, most = Math.max(...c.count, 1);
    return [{ name: one ? "prompts that were asked (area: how many)" : r.label, color: one ? "var(--blue)" : r.color, x: c.mean, y: c.rate, low: c.low, high: c.high, points: true, radius: c.count.map((n) => 2 + 8 * Math.sqrt(n / most)) }];
  }) };
  const more = [["Tokens of a response", (r) => r.length], ["Responses without an end", (r) => r.series.truncated], ["Entropy (nats a token)", (r) => r.series.entropy],
    ["Norm of the gradient", (r) => r.series.grad_norm], ["Brier score of P(mixed)", (r) => r.series.brier], ["Prompts visited so far", (r) => r.series.coverage], ["Seconds a step", (r) => r.seconds]];
  return [el("div", { class: "charts" }, [effective, accuracy, overlay("Reward", (r) => r.series.reward), ...occupancy, calibration].map(chart)),
    el("details", { open: true }, el("summary", {}, "More curves"), el("div", { class: "charts small" }, more.map(([title, values]) => chart({ ...overlay(title, values), height: 150 }))))];
}
function curveSection() {
  if (!TRAINED.length) return [];
  const place = el("div"), buttons = ["step", "rollouts"].map((axis) => el("button", { onclick: () => draw(axis) }, axis === "step" ? "by step" : "by rollouts"));
  function draw(axis) {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(["step", "rollouts"][i] === axis)));
    place.replaceChildren(...curves(axis));
  }
  draw("step");
  const note = TRAINED.some((r) => r.series.step.length > 20) ? "Curves are means over about a tenth of the run; faint: every step." : "";
  return [el("div", { class: "bar", style: { margin: "26px 0 4px" } }, el("h2", { style: { margin: "0 8px 0 0" } }, "Curves"), buttons, el("span", { class: "dim" }, note)), place];
}
function bySource() {
  const found = TRAINED.filter((r) => r.held_out && Object.keys(r.held_out.after_by_source).length > 1);
  return found.map((r) => el("details", {}, el("summary", {}, `Held-out accuracy by source${TRAINED.length > 1 ? `: ${r.label}` : ""}`), el("table", { class: "plain" },
    el("tr", {}, ["source", "before", "after"].map((t, i) => el("th", { class: i ? "n" : null }, t))),
    Object.keys(r.held_out.after_by_source).map((s) => el("tr", {}, el("td", {}, s), [r.held_out.before_by_source[s], r.held_out.after_by_source[s]].map((v) => el("td", { class: "n" }, short(v))))))));
}
function evaluationTable(found, title) {
  const names = Object.keys(found.all.measures), rows = [["all", found.all], ...Object.entries(found.sources)], percent = (v) => (100 * v).toFixed(1);
  const cell = (m) => m ? [el("b", {}, percent(m.value)), el("span", { class: "dim" }, ` ${percent(m.low)}–${percent(m.high)}`)] : "–";
  return el("div", { class: "wide" }, el("h3", {}, title), el("p", { class: "dim", style: { margin: "0 0 6px" } },
    `${short(found.samples)} responses to each of ${short(found.all.problems)} problems, temperature ${found.temperature}; percent, with 95 % intervals over problems${found.unscored ? `; ${short(found.unscored)} without a verdict count as wrong` : ""}${found.truncated ? `; ${short(found.truncated)} cut off at the limit` : ""}`),
    el("table", { class: "plain" }, el("tr", {}, el("th", {}, "source"), el("th", { class: "n" }, "problems"), names.map((n) => el("th", { class: "n" }, n))),
      rows.filter(([name], i) => !i || rows.length > 2).map(([name, of]) => el("tr", {}, el("td", {}, name), el("td", { class: "n" }, short(of.problems)), names.map((n) => el("td", { class: "n" }, cell(of.measures[n])))))));
}
function evaluations() {
  const below = RUNS.flatMap((r) => r.evaluations.map((e) => [e, RUNS.length > 1 ? `${r.label}: ${e.name}` : e.name]));
  const shown = RUNS.filter((r) => r.evaluation).map((r) => [r.evaluation, r.label]), first = (e) => Object.entries(e.all.measures).find(([n]) => n === "pass@1") || Object.entries(e.all.measures)[0];
  if (!shown.length && !below.length) return [];
  const own = RUNS.filter((r) => r.evaluation), color = (r) => OF_RUN[RUNS.indexOf(r) % OF_RUN.length];
  const line = (r, kind) => { const all = Object.entries(r.evaluation.all.measures).filter(([n]) => n.startsWith(kind)); return { name: `${own.length > 1 ? `${r.label}, ` : ""}${kind}k`, color: color(r), dash: kind === "maj@" || null,
    x: all.map(([n]) => +n.split("@")[1]), y: all.map(([, m]) => m.value), low: all.map(([, m]) => m.low), high: all.map(([, m]) => m.high), dots: true }; };
  const counts = (r) => { const bins = Array(11).fill(0); for (const row of rowsOf(r).held) if (row.rate !== null) bins[Math.round(10 * row.rate)]++; return bins; };
  return [el("h2", {}, "Evaluations"), ...shown.map(([found, title]) => evaluationTable(found, title)),
    ...below.map(([found, title]) => el("details", {}, el("summary", {}, `${title}: ${first(found)[0]} ${(100 * first(found)[1].value).toFixed(1)} %`), evaluationTable(found, ""))), own.length ? el("div", { class: "charts", style: { "margin-top": "16px" } },
    chart({ title: "Solved within k responses; dashed: by their majority", x: "k", y: [0, 1], series: own.flatMap((r) => ["pass@", "maj@"].map((k) => line(r, k)).filter((s) => s.x.length)) }),
    chart({ title: "Problems by their share of right responses", x: "share right", x01: [0, 1], series: own.map((r) => ({ name: r.label, color: color(r), x: [...Array(11).keys()].map((k) => k / 10), y: counts(r), dots: true })) })) : null].filter(Boolean);
}
function settingsOf(run) {
  if (!run.settings.command) return null;
  return el("details", {}, el("summary", {}, RUNS.length > 1 ? run.label : "What was set"), el("pre", { class: "question" }, run.settings.command), el("pre", { style: { "margin-top": "8px" } }, JSON.stringify(run.settings, null, 1)));
}
function subtitle(run) {
  const c = run.settings.config;
  if (!c) return null;
  const count = run.settings.policy_parameters, device = run.settings.devices || {};
  const facts = [c.task.name, c.selector.name, `seed ${c.seed}`, `${c.rollout.prompts} prompts × ${c.grpo.rollouts_per_prompt} rollouts a step`, `learning rate ${c.grpo.learning_rate}`,
    known(count) ? `${short(count)} parameters${c.model.init === "base" ? "" : ` (${c.model.init.split("/").pop()})`}` : null, device.count ? `${device.count} × ${device.kind}` : null];
  return el("p", { class: "dim subtitle" }, `${RUNS.length > 1 ? `${run.label}: ` : ""}${facts.filter(Boolean).join(" · ")}`);
}
function themeButton() {
  const root = document.documentElement, dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return el("button", { title: "light or dark", onclick: () => { root.dataset.theme = dark() ? "light" : "dark"; } }, "◐");
}
function build() {
  RUNS.forEach((run) => { run.label = run.name; });
  TRAINED.forEach((run) => { run.label = run.name; });
  const left = RUNS.reduce((sum, r) => sum + r.left_out, 0), unfinished = TRAINED.filter((r) => known(r.planned) && lastOf(r.series.step) < r.planned);
  document.getElementById("page").replaceChildren(
    el("header", {}, el("h1", {}, RUNS.map((r) => r.name).join("  ·  ")), el("span", { class: "dim" }, `as of ${DATA.made} `, themeButton())), ...RUNS.map(subtitle).filter(Boolean), ...(TRAINED.length ? [summaryOf()] : []),
    ...(unfinished.length ? [el("p", { class: "note" }, `${unfinished.map((r) => r.name).join(", ")}: not at its end when this page was made; the same command makes it anew.`)] : []),
    ...curveSection(), ...bySource(), ...evaluations(), el("h2", {}, "Prompts"), ...(left ? [el("p", { class: "note" }, `The oldest ${short(left)} responses are left out of this page; they are in responses.jsonl.`)] : []),
    ...promptPanel(RUNS, location.hash.slice(1)), el("h2", {}, "Settings"), ...RUNS.map(settingsOf).filter(Boolean));
}
build();
