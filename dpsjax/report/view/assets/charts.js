"use strict";
// Elements: text goes in as text only, so nothing that a policy wrote can become markup.
function el(tag, given, ...children) {
  const made = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(given || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) made.style.setProperty(key, v);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined)
    made.append(child instanceof Node ? child : document.createTextNode(String(child)));
  return made;
}
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
function short(value) {
  if (!known(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : size >= 100 ? value.toFixed(0) : size >= 0.01 || size === 0
    ? value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3) : value.toExponential(1);
}
// A running mean over a window that is cut at the ends; what is not known is left out.
function smooth(values, width) {
  const half = width >> 1, sums = [0], counts = [0];
  values.forEach((v, i) => { sums.push(sums[i] + (known(v) ? v : 0)); counts.push(counts[i] + (known(v) ? 1 : 0)); });
  return values.map((_, i) => {
    const low = Math.max(i - half, 0), high = Math.min(i + half + 1, values.length), n = counts[high] - counts[low];
    return n ? (sums[high] - sums[low]) / n : null;
  });
}
function ticks(low, high, about) {
  const rough = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999), found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) found.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return found;
}
const tick = (t) => Math.abs(t) >= 1e6 ? `${+(t / 1e6).toPrecision(3)}M` : Math.abs(t) >= 1e4 ? `${+(t / 1e3).toPrecision(3)}k`
  : Math.abs(t) < 1e-3 && t ? t.toExponential(0) : String(+t.toPrecision(4));
const drawn = new Set();
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => drawn.forEach((draw) => draw()), 120); });

// A figure that draws itself to the width it has. spec: title, x label, y [low, high] (null: of the data), height,
// series [{name, color, x, y, dash, faint, dots, low, high, plain}], bands [{name, color, y}] with bandX, diagonal.
function chart(spec) {
  const legend = el("div", { class: "legend" }), place = el("div"), figure = el("figure", {}, el("figcaption", {}, spec.title), place, legend);
  const series = spec.series || [], all = spec.bands ? [{ x: spec.bandX, y: [0, 1] }] : series;
  const draw = () => {
    if (!figure.isConnected) { drawn.delete(draw); return; }
    const width = Math.max(figure.clientWidth, 220), height = spec.height || 210, left = 40, right = 8, top = 8, bottom = 34;
    const values = (of) => all.flatMap(of).filter(known);
    const xs = values((s) => s.x), ys = spec.y ? [] : values((s) => [...s.y, ...(s.low || []), ...(s.high || [])]);
    let [x0, x1] = spec.x01 || [extreme(xs, Math.min), extreme(xs, Math.max)], [y0, y1] = spec.y || [extreme(ys, Math.min), extreme(ys, Math.max)];
    if (!known(x0)) [x0, x1] = [0, 1];
    if (!known(y0)) [y0, y1] = [0, 1];
    if (x1 === x0) x1 = x0 + 1;
    if (!spec.y) { const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06; if (y0 > 0 && y0 < y1 * 0.5) y0 = 0; else y0 -= y0 === 0 ? 0 : room; y1 += room; }
    const X = (v) => left + (v - x0) / (x1 - x0) * (width - left - right), Y = (v) => top + (y1 - v) / (y1 - y0) * (height - top - bottom);
    const svg = el("svg:svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": spec.title });
    for (const t of ticks(y0, y1, 4)) svg.append(el("svg:line", { class: "grid", x1: left, x2: width - right, y1: Y(t), y2: Y(t) }),
      el("svg:text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, tick(t)));
    if (spec.bands) bands(svg, spec, X, Y);
    for (const t of ticks(x0, x1, Math.max(2, width / 70))) svg.append(el("svg:text", { x: X(t), y: height - bottom + 15, "text-anchor": "middle" }, tick(t)));
    svg.append(el("svg:line", { class: "axis", x1: left, x2: width - right, y1: Y(y0), y2: Y(y0) }),
      el("svg:text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, spec.x));
    if (spec.diagonal) svg.append(el("svg:line", { class: "axis", "stroke-dasharray": "4 4", x1: X(0), y1: Y(0), x2: X(1), y2: Y(1) }));
    for (const s of series) line(svg, s, X, Y);
    hover(svg, spec, { X, Y, x0, x1, left, right, top, bottom, width, height }, legend);
    place.replaceChildren(svg);
    entries(legend, spec, null);
  };
  drawn.add(draw);
  queueMicrotask(draw);
  return figure;
}
function extreme(values, of) { let best; for (const v of values) best = best === undefined ? v : of(best, v); return best; }
function path(xs, ys, X, Y) {
  let text = "", on = false;
  xs.forEach((x, i) => { if (!known(ys[i])) { on = false; return; } text += `${on ? "L" : "M"}${X(x).toFixed(1)} ${Y(ys[i]).toFixed(1)}`; on = true; });
  return text;
}
function line(svg, s, X, Y) {
  if (!s.points) svg.append(el("svg:path", { d: path(s.x, s.y, X, Y), fill: "none", stroke: s.color, "stroke-width": s.faint ? 0.8 : 1.8,
    "stroke-opacity": s.faint ? 0.35 : 1, "stroke-dasharray": s.dash ? (s.dash === true ? "5 3" : s.dash) : null, "stroke-linejoin": "round" }));
  s.x.forEach((x, i) => {
    if (!known(s.y[i])) return;
    if (s.low) svg.append(el("svg:line", { x1: X(x), x2: X(x), y1: Y(s.low[i]), y2: Y(s.high[i]), stroke: s.color, "stroke-width": 1.2 }));
    if (s.dots || s.points) svg.append(el("svg:circle", { cx: X(x), cy: Y(s.y[i]), r: s.radius ? s.radius[i] : 3, fill: s.fills ? s.fills[i] : s.color,
      "fill-opacity": s.radius ? 0.6 : 1 }));
  });
}
function bands(svg, spec, X, Y) {
  const xs = spec.bandX.length > 1 ? spec.bandX : [spec.bandX[0], spec.bandX[0] + 1];
  let below = xs.map(() => 0);
  for (const band of spec.bands) {
    const above = below.map((b, i) => b + band.y[Math.min(i, band.y.length - 1)]);
    const back = xs.map((x, i) => `L${X(x).toFixed(1)} ${Y(below[i]).toFixed(1)}`).reverse().join("");
    svg.append(el("svg:path", { d: path(xs, above, X, Y) + back + "Z", fill: band.color, "fill-opacity": 0.85 }));
    below = above;
  }
}
function entries(legend, spec, at) {
  const items = spec.bands ? spec.bands.map((b) => ({ ...b, box: true, x: spec.bandX })) : (spec.series || []).filter((s) => s.name);
  const made = items.map((s) => {
    let value = null;
    if (at !== null && !s.points) { const i = nearest(s.x, at); value = s.y[i]; }
    return el("span", {}, el("i", { class: s.box ? "box" : s.points ? "point" : s.dash ? "dash" : null, style: { "border-color": s.color } }), s.name,
      known(value) ? [" ", el("b", {}, short(value))] : null);
  });
  if (at !== null) made.unshift(el("span", {}, `${spec.x} `, el("b", {}, short(at))));
  legend.replaceChildren(...(spec.quiet && at === null ? [] : made));
}
function nearest(xs, at) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= at) low = middle; else high = middle; }
  return at - xs[low] <= xs[high] - at ? low : high;
}
function hover(svg, spec, size, legend) {
  if (spec.still) return;
  const mark = el("svg:line", { class: "axis", y1: size.top, y2: size.height - size.bottom, visibility: "hidden" });
  svg.append(mark);
  const xs = spec.bands ? spec.bandX : (spec.series.find((s) => s.name) || { x: [] }).x;
  if (!xs.length) return;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), inner = size.width - size.left - size.right;
    const at = size.x0 + ((event.clientX - box.left) / box.width * size.width - size.left) / inner * (size.x1 - size.x0), x = xs[nearest(xs, at)];
    for (const name of ["x1", "x2"]) mark.setAttribute(name, size.X(x));
    mark.setAttribute("visibility", "visible");
    entries(legend, spec, x);
  });
  svg.addEventListener("pointerleave", () => { mark.setAttribute("visibility", "hidden"); entries(legend, spec, null); });
}
