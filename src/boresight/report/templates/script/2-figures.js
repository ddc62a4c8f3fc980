/* Figures at a threshold, of all judged images; and what one image is at it. */

function inPrecision(value) {
  return set().table.single ? Math.fround(value) : value;
}
function passes(score) {
  return inPrecision(score) >= inPrecision(state.threshold);
}
/** Sums of the table's steps at the threshold and its totals: of one class, or of all where `label` is -1. */
function sums(label) {
  const { score, label: labels, steps, totals } = set().table,
    told = {};
  for (const name in totals) {
    told[name] = label < 0 ? totals[name].reduce((a, b) => a + b, 0) : totals[name][label] || 0;
  }
  for (const name in steps) told[name] = 0;
  for (let i = 0; i < score.length && passes(score[i]); i++) {
    if (label >= 0 && labels[i] !== label) continue;
    for (const name in steps) told[name] += steps[name][i];
  }
  return told;
}
function ratio(a, b) {
  return b > 0 ? a / b : null;
}
function counts(told) {
  const tp = told.hit,
    fp = told.false,
    fn = told.truths - tp;
  return { tp, fp, fn, precision: ratio(tp, tp + fp), recall: ratio(tp, tp + fn), f1: ratio(2 * tp, 2 * tp + fp + fn) };
}
function refinement(told) {
  return {
    boxes: told.boxes,
    replaced: told.replaced,
    improved: told.improved,
    harmed: told.harmed,
    good: told.good,
    before: ratio(told.before, told.boxes),
    after: ratio(told.before + told.gain, told.boxes),
  };
}
function plain(value, digits = 3) {
  return value === null || value === undefined ? "—" : value.toFixed(digits);
}

/** What a mark is at the threshold: its kind, the object that it stands for, and its fit. */
function stateOf(mark) {
  if (refines()) return refinedState(mark);
  let now = { kind: data.kinds[mark[KIND]], object: mark[OBJECT], fit: mark[FIT] };
  for (const [score, kind, object, fit] of mark[MORE] || []) {
    if (inPrecision(score) >= inPrecision(state.threshold)) now = { kind: data.kinds[kind], object, fit };
  }
  return now;
}
function refinedState(mark) {
  if (mark[FIT] === null)
    return { kind: "unassigned", object: -1, fit: null, replaced: passes(mark[SCORE]) && !!mark[MORE] };
  const replaced = passes(mark[SCORE]) && !!mark[MORE],
    gain = mark[REFINED_FIT] - mark[FIT];
  const kind = !replaced ? "kept" : gain > 5e-4 ? "improved" : gain < -5e-4 ? "worse" : "unchanged";
  return { kind, object: mark[OBJECT], fit: replaced ? mark[REFINED_FIT] : mark[FIT], replaced };
}
/** Everything that is to be seen of an image at the threshold: marks with their states, and what was missed. */
function seen(entry) {
  const truth = imageOf(entry).truth,
    marks = [],
    taken = new Set();
  for (const mark of entry.marks) {
    if (!refines() && !passes(mark[SCORE])) break;
    const now = stateOf(mark);
    if (now.kind === "hit") taken.add(now.object);
    marks.push({ mark, now });
  }
  const counted = truth.filter((t) => !t[5]).length;
  const missed = refines() ? [] : truth.map((t, i) => i).filter((i) => !truth[i][5] && !taken.has(i));
  const fits = marks.filter((m) => (refines() ? m.now.fit !== null : m.now.kind === "hit")).map((m) => m.now.fit);
  const total = fits.reduce((a, b) => a + b, 0);
  const mean = refines() ? ratio(total, fits.length) : ratio(total, counted);
  const wrong = refines()
    ? marks.filter((m) => m.now.kind === "worse").length
    : marks.filter((m) => FALSE.includes(m.now.kind) && !hushed(m.now.kind)).length + missed.length;
  return { marks, missed, counted, mean, wrong };
}
function cut(entry) {
  return entry.below !== null && (refines() || passes(entry.below)) && !(set().quiet && !filters().kind);
}
function summary(entry, view) {
  const tally = {};
  for (const { now } of view.marks) tally[now.kind] = (tally[now.kind] || 0) + 1;
  if (view.missed.length) tally.missed = view.missed.length;
  const kinds = ["hit", "missed", ...FALSE, "ignored", "improved", "worse", "unchanged", "kept", "unassigned"];
  const parts = kinds.filter((k) => tally[k] && !hushed(k)).map((k) => `${tally[k]} ${plural(k, tally[k])}`);
  return (parts.join(", ") || "nothing found") + (cut(entry) ? " and more" : "");
}
function plural(kind, count) {
  return WORDS[kind] + (count !== 1 && ["hit", "duplicate", "false_alarm"].includes(kind) ? "s" : "");
}
