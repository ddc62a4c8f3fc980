/* The panel of counts: threshold, curve, figures, classes. */

const POSITIONS = 1000;
function power() {
  return refines() ? 1 : 3;
}
function highest() {
  return Math.max(1, set().table.score[0] || 0);
}
function thresholdAt(position) {
  return highest() * (position / POSITIONS) ** power();
}
function positionOf(threshold) {
  return POSITIONS * (Math.max(0, threshold) / highest()) ** (1 / power());
}
/** Take a threshold; where the table is thinned, the nearest at which it is exact. */
function setThreshold(value) {
  const grid = set().table.grid;
  state.threshold = grid.length ? grid.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a)) : value;
  const slider = at("b-threshold");
  slider.value = String(positionOf(state.threshold));
  slider.setAttribute("aria-valuetext", `threshold ${plain(state.threshold, 4)}`);
  at("b-threshold-value").value = String(Number(state.threshold.toPrecision(6)));
  at("b-stored").disabled = inPrecision(state.threshold) === inPrecision(set().threshold);
  showCounts();
}
function showCounts() {
  const label = filters().label,
    parts = [["", sums(-1)]];
  if (label >= 0) parts.push([`${nameOf(label)} alone: `, sums(label)]);
  at("b-counts").replaceChildren(...parts.map(([head, told]) => countRow(head, told)));
  showClasses();
  moveCursor();
}
function countRow(head, told) {
  const row = document.createElement("p");
  row.append(head);
  const cells = refines() ? refinedCells(refinement(told)) : countCells(counts(told));
  cells.forEach(([name, value, words]) => {
    const cell = document.createElement("span"),
      figure = document.createElement("b");
    cell.dataset.figure = name;
    figure.textContent = value;
    cell.append(figure, ` ${words}`);
    row.append(cell);
  });
  return row;
}
function countCells(c) {
  const each = ratio(c.fp, set().judged);
  return [
    ["tp", String(c.tp), "hits"],
    ["fp", String(c.fp), "false alarms"],
    ["fn", String(c.fn), "missed"],
    ["precision", plain(c.precision), "precision"],
    ["recall", plain(c.recall), "recall"],
    ["f1", plain(c.f1), "F1"],
    ["each", plain(each, 2), set().kind === "points" ? "false alarms a frame" : "false alarms an image"],
  ];
}
function refinedCells(r) {
  return [
    ["replaced", String(r.replaced), `of ${r.boxes} boxes replaced`],
    ["improved", String(r.improved), "improved"],
    ["harmed", String(r.harmed), `of ${r.good} above 0.8 made worse`],
    ["before", plain(r.before), "mean IoU before"],
    ["after", plain(r.after), "mean IoU after"],
  ];
}
function showClasses() {
  const heads = refines()
    ? ["Class", "Boxes", "Replaced", "Improved", "IoU before", "IoU after"]
    : ["Class", "Objects", "Hits", "False alarms", "Missed", "Precision", "Recall", "F1"];
  const rows = set().classes.map((name, k) => {
    const told = sums(k);
    if (refines()) {
      const r = refinement(told);
      return [name, r.boxes, r.replaced, r.improved, plain(r.before), plain(r.after)];
    }
    const c = counts(told);
    return [name, told.truths, c.tp, c.fp, c.fn, plain(c.precision), plain(c.recall), plain(c.f1)];
  });
  if (!at("b-classes").open) return;
  const table = at("b-class-table"),
    head = document.createElement("tr");
  head.append(
    ...heads.map((text) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = text;
      return cell;
    }),
  );
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(
        ...row.map((text, i) => {
          const cell = document.createElement(i ? "td" : "th");
          if (!i) cell.scope = "row";
          cell.textContent = String(text);
          return cell;
        }),
      );
      return line;
    }),
  );
}
/** F1 (of a refiner the mean IoU) against the threshold, under the slider. */
function drawCurve() {
  const { score, steps, totals } = set().table,
    all = {};
  for (const name in totals) all[name] = totals[name].reduce((a, b) => a + b, 0);
  const sum = {};
  for (const name in steps) sum[name] = 0;
  const points = [];
  let row = 0;
  for (let p = POSITIONS; p >= 0; p -= 4) {
    for (; row < score.length && inPrecision(score[row]) >= inPrecision(thresholdAt(p)); row++) {
      for (const name in steps) sum[name] += steps[name][row];
    }
    const told = { ...all, ...sum },
      value = refines() ? refinement(told).after : counts(told).f1;
    if (value !== null) points.push([(p / POSITIONS) * 400, value]);
  }
  const best = points.reduce((a, [, value]) => Math.max(a, value), 0),
    low = refines() ? points.reduce((a, [, value]) => Math.min(a, value), 1) : 0;
  const height = (value) => 58 - 54 * (best > low ? (value - low) / (best - low) : 0.5);
  at("b-curve-line").setAttribute(
    "points",
    points.map(([x, value]) => `${x.toFixed(1)},${height(value).toFixed(1)}`).join(" "),
  );
  const words = `${refines() ? "mean IoU after" : "F1"} against the threshold, ${points.length ? `${plain(low, 2)} to ${plain(best)}` : "not known"}`;
  at("b-curve").setAttribute("aria-label", words);
  at("b-curve-words").textContent = ` · the curve: ${words}; dashed: the stored one`;
  const stored = (positionOf(set().threshold) / POSITIONS) * 400;
  for (const end of ["x1", "x2"]) at("b-curve-stored").setAttribute(end, stored.toFixed(1));
}
function moveCursor() {
  const x = (positionOf(state.threshold) / POSITIONS) * 400;
  for (const end of ["x1", "x2"]) at("b-curve-now").setAttribute(end, x.toFixed(1));
}
