"use strict";

/* The image browser. Scores below are in the precision of the evaluation, so that both let the same detections pass. */
(function browser() {
  const source = document.getElementById("browser-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const at = (id) => document.getElementById(id);
  const X0 = 0, X1 = 2, SCORE = 4, LABEL = 5, KIND = 6, FIT = 7, OBJECT = 8, BUCKET = 9, LOST = 10, MORE = 11, REFINED_FIT = 12;
  const FALSE = ["duplicate", "wrong_class", "false_alarm"];
  const WORDS = {
    hit: "hit", duplicate: "duplicate", wrong_class: "wrong class", false_alarm: "false alarm", ignored: "ignored",
    missed: "missed", truth: "truth", dont_care: "need not be found", improved: "improved", worse: "made worse",
    unchanged: "moved, as good as before", kept: "kept as it was", unassigned: "stands for no object",
  };
  const COLOURS = {
    hit: "#56c8ff", duplicate: "#f2a0d0", wrong_class: "#c79bff", false_alarm: "#ff7a3d", ignored: "#b9c0c9",
    missed: "#ffe14d", truth: "#ffffff", dont_care: "#b9c0c9", improved: "#3fdc7c", worse: "#ff5c5c",
    unchanged: "#c79bff", kept: "#ffb020", unassigned: "#b9c0c9", refined: "#4db5ff",
  };
  const DASHES = { truth: [4, 3], dont_care: [4, 3], duplicate: [2, 2], wrong_class: [9, 3], ignored: [1, 3], unassigned: [1, 3] };
  const state = { set: 0, threshold: 0, position: 0, order: [], zoom: 1, left: 0, top: 0, picture: null, patches: [], map: null, target: null };
  const set = () => data.sets[state.set];
  const refines = () => set().kind === "refined";
  const shown = () => set().shown[state.order[state.position]];
  const imageOf = (entry) => data.images[entry.image];

  /* --- figures at a threshold ------------------------------------------------------------------------------------ */

  function inPrecision(value) {
    return set().table.single ? Math.fround(value) : value;
  }
  function passes(score) {
    return inPrecision(score) >= inPrecision(state.threshold);
  }
  /** Sums of the table's steps at the threshold and its totals: of one class, or of all where `label` is -1. */
  function sums(label) {
    const { score, label: labels, steps, totals } = set().table, told = {};
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
    const tp = told.hit, fp = told.false, fn = told.truths - tp;
    return { tp, fp, fn, precision: ratio(tp, tp + fp), recall: ratio(tp, tp + fn), f1: ratio(2 * tp, 2 * tp + fp + fn) };
  }
  function refinement(told) {
    return {
      boxes: told.boxes, replaced: told.replaced, improved: told.improved, harmed: told.harmed, good: told.good,
      before: ratio(told.before, told.boxes), after: ratio(told.before + told.gain, told.boxes),
    };
  }
  function plain(value, digits = 3) {
    return value === null || value === undefined ? "—" : value.toFixed(digits);
  }

  /* --- one image at a threshold ---------------------------------------------------------------------------------- */

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
    if (mark[FIT] === null) return { kind: "unassigned", object: -1, fit: null, replaced: passes(mark[SCORE]) && !!mark[MORE] };
    const replaced = passes(mark[SCORE]) && !!mark[MORE], gain = mark[REFINED_FIT] - mark[FIT];
    const kind = !replaced ? "kept" : gain > 5e-4 ? "improved" : gain < -5e-4 ? "worse" : "unchanged";
    return { kind, object: mark[OBJECT], fit: replaced ? mark[REFINED_FIT] : mark[FIT], replaced };
  }
  /** Everything that is to be seen of an image at the threshold: marks with their states, and what was missed. */
  function seen(entry) {
    const truth = imageOf(entry).truth, marks = [], taken = new Set();
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
    const wrong = refines() ? marks.filter((m) => m.now.kind === "worse").length
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

  /* --- filters and order ----------------------------------------------------------------------------------------- */

  function filters() {
    return { label: Number(at("b-class").value), kind: at("b-kind").value, bucket: Number(at("b-bucket").value) };
  }
  /** Without a trained score every emitted box counts: those that meet no object are shown where they are asked for. */
  function hushed(kind) {
    return set().quiet && FALSE.includes(kind);
  }
  function wanted(mark, now, f) {
    const kind = f.kind ? now.kind === f.kind : !hushed(now.kind);
    return kind && (f.label < 0 || mark[LABEL] === f.label) && (f.bucket < 0 || mark[BUCKET] === f.bucket);
  }
  function belongs(entry, view, f) {
    if (f.label < 0 && !f.kind && f.bucket < 0) return true;
    if (view.marks.some(({ mark, now }) => wanted(mark, now, f))) return true;
    if (f.bucket >= 0) return false;
    const truth = imageOf(entry).truth;
    if (f.kind === "missed") return view.missed.some((i) => f.label < 0 || truth[i][4] === f.label);
    return !f.kind && truth.some((t) => t[4] === f.label);
  }
  const ORDERS = {
    given: () => 0,
    errors: (entry, view) => -view.wrong,
    iou: (entry, view) => (view.mean === null ? Infinity : view.mean),
    regret: (entry) => (entry.regret === null ? Infinity : -entry.regret),
    displacement: (entry) => (entry.displacement === null ? Infinity : -entry.displacement),
  };
  /** Filter and sort the list; the image that is looked at stays where it still belongs. */
  function arrange() {
    const f = filters(), rank = ORDERS[at("b-sort").value], now = state.order.length ? state.order[state.position] : -1;
    const rows = set().shown.map((entry, i) => ({ i, entry, view: seen(entry) })).filter((r) => belongs(r.entry, r.view, f));
    rows.forEach((r) => { r.rank = rank(r.entry, r.view); });
    rows.sort((a, b) => (a.rank === b.rank ? a.i - b.i : a.rank < b.rank ? -1 : 1));
    state.order = rows.map((r) => r.i);
    state.position = Math.max(0, state.order.indexOf(now));
    fillList(rows);
    look();
  }

  /* --- the list -------------------------------------------------------------------------------------------------- */

  const watcher = "IntersectionObserver" in window ? new IntersectionObserver((entries) => {
    for (const one of entries) if (one.isIntersecting) reveal(one.target);
  }, { root: at("b-list"), rootMargin: "200px" }) : null;
  function reveal(thumb) {
    if (!thumb.src && thumb.dataset.image) {
      const src = data.images[Number(thumb.dataset.image)].src;
      if (src) thumb.src = src;
    }
    if (watcher) watcher.unobserve(thumb);
  }
  function fillList(rows) {
    const list = at("b-list");
    if (watcher) watcher.disconnect();
    list.replaceChildren(...rows.map(({ i, entry, view }, position) => {
      const item = document.createElement("div"), thumb = document.createElement("img"), text = document.createElement("span");
      const name = document.createElement("b"), told = document.createElement("small");
      item.id = `b-item-${i}`;
      item.setAttribute("role", "option");
      thumb.alt = "";
      thumb.dataset.image = String(entry.image);
      name.textContent = imageOf(entry).name;
      told.textContent = `${summary(entry, view)}${sortValue(entry, view)}`;
      text.append(name, told);
      item.append(thumb, text);
      item.addEventListener("click", () => go(position));
      if (watcher) watcher.observe(thumb); else reveal(thumb);
      return item;
    }));
    at("b-none").hidden = rows.length > 0;
  }
  function sortValue(entry, view) {
    const by = at("b-sort").value;
    if (by === "iou") return ` · ${set().kind === "points" ? "closeness" : "IoU"} ${plain(view.mean, 2)}`;
    if (by === "regret" || by === "displacement") return ` · ${by} ${plain(entry[by], 2)}`;
    return "";
  }
  function go(position) {
    if (!state.order.length) return;
    state.position = Math.min(Math.max(0, position), state.order.length - 1);
    look();
  }

  /* --- the picture ----------------------------------------------------------------------------------------------- */

  const canvas = at("b-canvas"), pen = canvas.getContext("2d");
  const layer = (name) => { const box = at(`b-layer-${name}`); return !box.closest("label").hidden && box.checked; };

  /** Show the image that the list points at. */
  function look() {
    const list = at("b-list");
    for (const item of list.children) item.setAttribute("aria-selected", "false");
    const empty = state.order.length === 0;
    at("b-figure").hidden = empty;
    at("b-place").textContent = empty ? "no image" : `${state.position + 1} of ${state.order.length}`;
    if (empty) return;
    const item = list.children[state.position];
    item.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", item.id);
    scrollWithin(list, item);
    const entry = shown();
    if (state.picture === null || state.picture.of !== entry.image) {
      const patches = (imageOf(entry).patches || []).map(([x, y, src]) => ({ x, y, picture: loaded(src, "patch") }));
      Object.assign(state, { zoom: 1, left: 0, top: 0, picture: loaded(imageOf(entry).src, entry.image), patches });
    }
    chooseMaps(entry);
    describe(entry);
    draw();
  }
  function scrollWithin(list, item) {
    const above = item.offsetTop - list.offsetTop, beside = item.offsetLeft - list.offsetLeft;
    if (above < list.scrollTop || above + item.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = above - 40;
    if (beside < list.scrollLeft || beside + item.offsetWidth > list.scrollLeft + list.clientWidth) list.scrollLeft = beside - 40;
  }
  function loaded(src, of) {
    const picture = new Image();
    picture.of = of;
    picture.onload = draw;
    if (src) picture.src = src;
    return picture;
  }
  /** Offer the class maps of this image: that of the chosen class first. */
  function chooseMaps(entry) {
    const maps = entry.maps || { classes: {} }, select = at("b-map"), labels = Object.keys(maps.classes).map(Number);
    const before = Number(select.value), chosen = filters().label;
    const label = labels.includes(chosen) ? chosen : labels.includes(before) ? before : firstLabel(entry, labels);
    select.replaceChildren(...labels.map((k) => option(String(k), mapName(k, maps.classes[k]))));
    if (label !== undefined) select.value = String(label);
    at("b-map-choice").hidden = !labels.length || !layer("map");
    state.map = label === undefined ? null : loaded(maps.classes[label][0], "map");
    state.target = maps.target ? loaded(maps.target, "target") : null;
  }
  function mapName(label, [, low, high]) {
    return `${set().classes[label]} (${plain(low, 2)} to ${plain(high, 2)})`;
  }
  function firstLabel(entry, labels) {
    return imageOf(entry).truth.map((t) => t[4]).find((k) => labels.includes(k)) ?? labels[0];
  }
  function describe(entry) {
    const view = seen(entry), image = imageOf(entry), f = filters();
    const told = [`${image.name} (${image.width} × ${image.height} px): ${summary(entry, view)}`];
    if (view.mean !== null) told.push(`${refines() ? "mean IoU of its boxes" : set().kind === "points" ? "mean closeness over its targets" : "mean IoU over its objects"} ${plain(view.mean, 2)}`);
    if (entry.regret !== null) told.push(`regret ${plain(entry.regret, 2)}`);
    if (entry.displacement !== null) told.push(`displacement ${plain(entry.displacement, 2)}`);
    if (cut(entry)) told.push(`of those that meet no object the ${set().drawn} surest are drawn at most`);
    at("b-caption").textContent = `${told.join("; ")}.`;
    canvas.setAttribute("aria-label", told.join("; "));
    const rows = view.missed.filter((i) => !f.kind && f.bucket < 0 || f.kind === "missed").map((i) => ["missed", image.truth[i][4], "", "", ""]);
    for (const { mark, now } of view.marks) {
      if (wanted(mark, now, f)) rows.push([now.kind, mark[LABEL], plain(mark[SCORE], 4), plain(now.fit, 2), mark[BUCKET] < 0 ? "" : data.buckets[mark[BUCKET]]]);
    }
    at("b-marks").replaceChildren(...rows.map(([kind, label, ...rest]) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = WORDS[kind];
      row.append(head, ...[nameOf(label), ...rest].map((text) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        return cell;
      }));
      return row;
    }));
    at("b-marks-count").textContent = String(rows.length);
  }
  function nameOf(label) {
    return label < 0 ? "—" : set().classes[label];
  }
  /** Pixels of the page for one pixel of the image. */
  function scale() {
    return (canvas.clientWidth / imageOf(shown()).width) * state.zoom;
  }
  function place(x, y) {
    return [(x - state.left) * scale(), (y - state.top) * scale()];
  }
  function draw() {
    if (!state.order.length) return;
    const image = imageOf(shown()), dense = window.devicePixelRatio || 1;
    canvas.style.aspectRatio = `${image.width} / ${image.height}`;
    canvas.style.maxWidth = `${Math.round((0.78 * window.innerHeight * image.width) / image.height)}px`;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.fillStyle = "#30353c";
    pen.fillRect(0, 0, width, height);
    const [x, y] = place(0, 0);
    if (state.picture && state.picture.complete && state.picture.naturalWidth) {
      pen.imageSmoothingEnabled = scale() < 2;
      pen.drawImage(state.picture, x, y, image.width * scale(), image.height * scale());
      for (const patch of state.patches) drawPatch(patch);
    }
    if (layer("map")) drawCells(state.map, [255, 96, 32]);
    if (layer("target")) drawCells(state.target, [64, 220, 140]);
    drawMarks();
  }
  /** A part of the image at its own resolution over the reduced picture. */
  function drawPatch({ x, y, picture }) {
    if (!picture.complete || !picture.naturalWidth) return;
    const [left, top] = place(x, y);
    pen.drawImage(picture, left, top, picture.naturalWidth * scale(), picture.naturalHeight * scale());
  }
  /** A map of cells: the more, the less can be seen through it. */
  function drawCells(picture, colour) {
    const maps = shown().maps;
    if (!picture || !picture.complete || !picture.naturalWidth || !maps) return;
    const columns = picture.naturalWidth, rows = picture.naturalHeight, sheet = document.createElement("canvas");
    sheet.width = columns;
    sheet.height = rows;
    const brush = sheet.getContext("2d", { willReadFrequently: true });
    brush.drawImage(picture, 0, 0);
    const cells = brush.getImageData(0, 0, columns, rows);
    for (let i = 0; i < cells.data.length; i += 4) {
      const value = cells.data[i];
      [cells.data[i], cells.data[i + 1], cells.data[i + 2]] = colour;
      cells.data[i + 3] = Math.round(value * 0.65);
    }
    brush.putImageData(cells, 0, 0);
    const [x, y] = place(0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(sheet, x, y, columns * maps.stride * scale(), rows * maps.stride * scale());
  }
  function drawMarks() {
    const entry = shown(), view = seen(entry), truth = imageOf(entry).truth, f = filters();
    if (layer("found")) {
      const order = ["unassigned", "ignored", "wrong_class", "duplicate", "false_alarm", "kept", "unchanged", "worse", "improved", "hit"];
      const marks = view.marks.filter(({ mark, now }) => wanted(mark, now, f));
      marks.sort((a, b) => order.indexOf(a.now.kind) - order.indexOf(b.now.kind) || a.mark[SCORE] - b.mark[SCORE]);
      for (const { mark, now } of marks) sign(mark, now.kind, `${nameOf(mark[LABEL])} ${plain(mark[SCORE], 2)}`);
    }
    if (layer("refined")) {
      for (const { mark, now } of view.marks) {
        if (now.replaced && wanted(mark, now, f)) sign(mark[MORE], "refined", "");
      }
    }
    if (layer("truth")) {
      truth.forEach((t, i) => sign(t, t[5] ? "dont_care" : view.missed.includes(i) ? "missed" : "truth", nameOf(t[4])));
    }
  }
  /** Draw a box, or the symbol of a point. */
  function sign(box, kind, words) {
    const [x0, y0] = place(box[0], box[1]), [x1, y1] = place(box[2], box[3]), point = set().kind === "points";
    const path = point ? symbol(kind, x0, y0, 8) : outline(x0, y0, x1, y1);
    stroke(pen, path, kind);
    if (!layer("names") || !words || kind === "refined") return;
    pen.font = "600 12px system-ui, sans-serif";
    pen.lineWidth = 3;
    pen.strokeStyle = "rgba(0,0,0,.75)";
    pen.fillStyle = COLOURS[kind];
    const low = ["false_alarm", "wrong_class", "duplicate", "ignored"].includes(kind);
    const [x, y] = point ? [x0 + 10, y0 + (low ? 14 : -6)] : [x0, low ? Math.min(y1 + 13, canvas.clientHeight - 3) : Math.max(y0 - 4, 11)];
    pen.strokeText(words, x, y);
    pen.fillText(words, x, y);
  }
  function outline(x0, y0, x1, y1) {
    const path = new Path2D();
    path.rect(x0, y0, x1 - x0, y1 - y0);
    return path;
  }
  function symbol(kind, x, y, r) {
    const path = new Path2D();
    const line = (...points) => points.forEach(([a, b], i) => (i ? path.lineTo(x + a * r, y + b * r) : path.moveTo(x + a * r, y + b * r)));
    if (kind === "truth" || kind === "dont_care") path.arc(x, y, r, 0, 7);
    else if (kind === "missed") line([0, -1.45], [1.45, 0], [0, 1.45], [-1.45, 0], [0, -1.45]);
    else if (kind === "hit") { line([-0.8, 0], [-0.3, 0]); line([0.3, 0], [0.8, 0]); line([0, -0.8], [0, -0.3]); line([0, 0.3], [0, 0.8]); }
    else if (kind === "duplicate") line([0, -0.9], [0.8, 0.5], [-0.8, 0.5], [0, -0.9]);
    else if (kind === "ignored") line([-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]);
    else { line([-0.9, -0.9], [-0.2, -0.2]); line([0.2, 0.2], [0.9, 0.9]); line([-0.9, 0.9], [-0.2, 0.2]); line([0.2, -0.2], [0.9, -0.9]); }
    return path;
  }
  function stroke(on, path, kind) {
    const wide = kind === "missed" ? 2.6 : 1.8;
    on.setLineDash([]);
    on.lineWidth = wide + 1.8;
    on.strokeStyle = "rgba(0,0,0,.5)";
    on.stroke(path);
    on.setLineDash(DASHES[kind] || []);
    on.lineWidth = wide;
    on.strokeStyle = COLOURS[kind];
    on.stroke(path);
    on.setLineDash([]);
  }

  /* --- the panel of counts --------------------------------------------------------------------------------------- */

  const POSITIONS = 1000;
  function power() {
    return refines() ? 1 : 3;
  }
  function top() {
    return Math.max(1, set().table.score[0] || 0);
  }
  function thresholdAt(position) {
    return top() * (position / POSITIONS) ** power();
  }
  function positionOf(threshold) {
    return POSITIONS * (Math.max(0, threshold) / top()) ** (1 / power());
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
    const label = filters().label, parts = [["", sums(-1)]];
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
      const cell = document.createElement("span"), figure = document.createElement("b");
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
      ["tp", String(c.tp), "hits"], ["fp", String(c.fp), "false alarms"], ["fn", String(c.fn), "missed"],
      ["precision", plain(c.precision), "precision"], ["recall", plain(c.recall), "recall"], ["f1", plain(c.f1), "F1"],
      ["each", plain(each, 2), set().kind === "points" ? "false alarms a frame" : "false alarms an image"],
    ];
  }
  function refinedCells(r) {
    return [
      ["replaced", String(r.replaced), `of ${r.boxes} boxes replaced`], ["improved", String(r.improved), "improved"],
      ["harmed", String(r.harmed), `of ${r.good} above 0.8 made worse`],
      ["before", plain(r.before), "mean IoU before"], ["after", plain(r.after), "mean IoU after"],
    ];
  }
  function showClasses() {
    const heads = refines() ? ["Class", "Boxes", "Replaced", "Improved", "IoU before", "IoU after"]
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
    const table = at("b-class-table"), head = document.createElement("tr");
    head.append(...heads.map((text) => { const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = text; return cell; }));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...row.map((text, i) => { const cell = document.createElement(i ? "td" : "th"); if (!i) cell.scope = "row"; cell.textContent = String(text); return cell; }));
      return line;
    }));
  }
  /** F1 (of a refiner the mean IoU) against the threshold, under the slider. */
  function drawCurve() {
    const { score, steps, totals } = set().table, all = {};
    for (const name in totals) all[name] = totals[name].reduce((a, b) => a + b, 0);
    const sum = {};
    for (const name in steps) sum[name] = 0;
    const points = [];
    let row = 0;
    for (let p = POSITIONS; p >= 0; p -= 4) {
      for (; row < score.length && inPrecision(score[row]) >= inPrecision(thresholdAt(p)); row++) {
        for (const name in steps) sum[name] += steps[name][row];
      }
      const told = { ...all, ...sum }, value = refines() ? refinement(told).after : counts(told).f1;
      if (value !== null) points.push([p / POSITIONS * 400, value]);
    }
    const best = points.reduce((a, [, value]) => Math.max(a, value), 0), low = refines() ? points.reduce((a, [, value]) => Math.min(a, value), 1) : 0;
    const height = (value) => 58 - 54 * (best > low ? (value - low) / (best - low) : 0.5);
    at("b-curve-line").setAttribute("points", points.map(([x, value]) => `${x.toFixed(1)},${height(value).toFixed(1)}`).join(" "));
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

  /* --- controls -------------------------------------------------------------------------------------------------- */

  function option(value, text) {
    const one = document.createElement("option");
    one.value = value;
    one.textContent = text;
    return one;
  }
  function choices(id, rows) {
    const select = at(id), before = select.value;
    select.replaceChildren(...rows.map(([value, text]) => option(value, text)));
    select.value = rows.some(([value]) => value === before) ? before : rows[0][0];
    select.closest("label").hidden = rows.length < 2;
  }
  /** Fit the controls to the set that is looked at, keeping what was chosen where it exists there as well. */
  function useSet(number) {
    state.set = number;
    const one = set(), points = one.kind === "points", fit = points ? "closeness" : "IoU";
    const buckets = new Set(one.shown.flatMap((entry) => entry.marks.map((m) => m[BUCKET])).filter((b) => b >= 0));
    const kinds = refines() ? ["improved", "worse", "unchanged", "kept", "unassigned"] : ["hit", "missed", ...FALSE, "ignored"];
    const present = kinds.filter((k) => k === "missed" || refines() || one.shown.some((entry) => entry.marks.some((m) =>
      data.kinds[m[KIND]] === k || (m[MORE] || []).some((change) => data.kinds[change[1]] === k))));
    choices("b-class", [["-1", "all classes"], ...one.classes.map((name, k) => [String(k), name])]);
    choices("b-kind", [["", "any"], ...present.map((k) => [k, WORDS[k]])]);
    choices("b-bucket", [["-1", "any cell"], ...data.buckets.map((name, k) => [String(k), name]).filter(([k]) => buckets.has(Number(k)))]);
    const orders = [["errors", refines() ? "made worse, most first" : "errors, most first"], ["iou", `${fit}, lowest first`], ["given", "as judged"]];
    if (one.regret) orders.push(["regret", "regret, largest first"]);
    if (one.displacement) orders.push(["displacement", "displacement, largest first"]);
    choices("b-sort", orders);
    const has = {
      map: one.shown.some((entry) => entry.maps && Object.keys(entry.maps.classes).length),
      target: one.shown.some((entry) => entry.maps && entry.maps.target), refined: refines(), truth: true, found: true, names: true,
    };
    for (const name in has) at(`b-layer-${name}`).closest("label").hidden = !has[name];
    at("b-map-name").textContent = points ? "score map" : "class map";
    at("b-found-name").textContent = refines() ? "boxes before" : "detections";
    at("b-stored").textContent = `stored: ${plain(one.threshold)}`;
    at("b-threshold-name").textContent = refines() ? "Confidence from which a box is replaced" : "Score threshold";
    at("b-fit-head").textContent = fit;
    legend(kinds.filter((k) => k === "missed" || present.includes(k)));
    drawCurve();
    setThreshold(one.threshold);
    arrange();
  }
  function legend(kinds) {
    const rows = ["truth", ...kinds, ...(refines() ? ["refined"] : [])];
    at("b-legend").replaceChildren(...rows.map((kind) => {
      const item = document.createElement("li"), sample = document.createElement("canvas"), dense = 2;
      sample.width = sample.height = 22 * dense;
      const brush = sample.getContext("2d");
      brush.scale(dense, dense);
      stroke(brush, set().kind === "points" ? symbol(kind, 11, 11, 6) : outline(4, 4, 18, 18), kind);
      item.append(sample, kind === "refined" ? "box after" : WORDS[kind]);
      return item;
    }));
  }
  let waiting = false;
  /** Arrange at most once a frame: a slider gives many events. */
  function arrangeSoon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; arrange(); });
  }
  function zoomBy(factor, x = 0.5, y = 0.5) {
    if (!state.order.length) return;
    const image = imageOf(shown()), before = state.zoom;
    state.zoom = Math.min(16, Math.max(1, before * factor));
    state.left += (image.width / before - image.width / state.zoom) * x;
    state.top += (image.height / before - image.height / state.zoom) * y;
    within(image);
    draw();
  }
  function within(image) {
    state.left = Math.min(Math.max(0, state.left), image.width - image.width / state.zoom);
    state.top = Math.min(Math.max(0, state.top), image.height - image.height / state.zoom);
  }
  /** The mark nearest to a place on the canvas, in words. */
  function pointedAt(event) {
    if (!state.order.length) return "";
    const [x, y] = [event.offsetX / scale() + state.left, event.offsetY / scale() + state.top], f = filters(), near = [];
    const reach = (set().kind === "points" ? 10 : 4) / scale();
    const add = (box, size, text) => {
      if (x >= box[0] - reach && x <= box[2] + reach && y >= box[1] - reach && y <= box[3] + reach) near.push({ size, text });
    };
    const entry = shown(), view = seen(entry);
    if (layer("found")) {
      for (const { mark, now } of view.marks) {
        if (!wanted(mark, now, f)) continue;
        const bucket = mark[BUCKET] < 0 ? "" : `, ${data.buckets[mark[BUCKET]]} cell`;
        const lost = mark[LOST] > 0 ? `, drove out a box that fits better by ${plain(mark[LOST], 2)}` : "";
        const fit = now.fit === null ? "" : `, ${set().kind === "points" ? "closeness" : "IoU"} ${plain(now.fit, 2)}`;
        add(mark, (mark[X1] - mark[X0]) * (mark[3] - mark[1]), `${WORDS[now.kind]}: ${nameOf(mark[LABEL])}, score ${plain(mark[SCORE], 4)}${fit}${bucket}${lost}`);
      }
    }
    if (layer("truth")) imageOf(entry).truth.forEach((t, i) => add(t, (t[2] - t[0]) * (t[3] - t[1]) + 1e-3, `${t[5] ? WORDS.dont_care : view.missed.includes(i) ? "missed" : "truth"}: ${nameOf(t[4])}`));
    near.sort((a, b) => a.size - b.size);
    return near.slice(0, 3).map((n) => n.text).join(" · ");
  }

  for (const id of ["b-class", "b-kind", "b-bucket", "b-sort"]) at(id).addEventListener("change", () => { showCounts(); arrange(); });
  for (const name of ["truth", "found", "map", "target", "refined", "names"]) at(`b-layer-${name}`).addEventListener("change", () => { at("b-map-choice").hidden = !at("b-map").options.length || !layer("map"); draw(); });
  at("b-map").addEventListener("change", () => { state.map = loaded(shown().maps.classes[at("b-map").value][0], "map"); });
  at("b-set").addEventListener("change", () => useSet(Number(at("b-set").value)));
  at("b-threshold").addEventListener("input", () => { setThreshold(thresholdAt(Number(at("b-threshold").value))); arrangeSoon(); });
  at("b-threshold-value").addEventListener("change", () => {
    const value = Number(at("b-threshold-value").value);
    setThreshold(Number.isFinite(value) ? value : state.threshold);
    arrange();
  });
  at("b-stored").addEventListener("click", () => { setThreshold(set().threshold); arrange(); });
  at("b-clear").addEventListener("click", () => {
    at("b-class").value = "-1"; at("b-kind").value = ""; at("b-bucket").value = "-1"; at("b-sort").value = "errors";
    showCounts();
    arrange();
  });
  at("b-classes").addEventListener("toggle", showClasses);
  at("b-previous").addEventListener("click", () => go(state.position - 1));
  at("b-next").addEventListener("click", () => go(state.position + 1));
  at("b-in").addEventListener("click", () => zoomBy(1.5));
  at("b-out").addEventListener("click", () => zoomBy(1 / 1.5));
  at("b-fit").addEventListener("click", () => zoomBy(0));
  at("b-help").addEventListener("click", () => at("b-keys").showModal());
  at("b-close").addEventListener("click", () => at("b-keys").close());
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && state.zoom > 1) {
      state.left -= (event.clientX - drag[0]) / scale();
      state.top -= (event.clientY - drag[1]) / scale();
      drag = [event.clientX, event.clientY];
      within(imageOf(shown()));
      draw();
    }
    at("b-pointed").textContent = pointedAt(event);
  });
  canvas.addEventListener("pointerleave", () => { at("b-pointed").textContent = ""; });
  canvas.addEventListener("dblclick", (event) => zoomBy(2, event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight));
  let drawnWidth = 0;
  new ResizeObserver(([paper]) => {
    if (paper.contentRect.width !== drawnWidth) requestAnimationFrame(draw);
    drawnWidth = paper.contentRect.width;
  }).observe(canvas.parentElement);

  const LAYERS = ["truth", "found", "map", "target", "refined", "names"];
  const KEYS = {
    ArrowLeft: () => go(state.position - 1), ArrowRight: () => go(state.position + 1), Home: () => go(0), End: () => go(state.order.length - 1),
    "[": () => step(-10), "]": () => step(10), "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0), "?": () => at("b-keys").showModal(),
  };
  function step(by) {
    setThreshold(thresholdAt(Math.min(POSITIONS, Math.max(0, positionOf(state.threshold) + by))));
    arrange();
  }
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest && event.target.closest("input:not([type=checkbox]), select, textarea, .scroll, dialog[open]");
    if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = LAYERS[Number(event.key) - 1];
    if (number) {
      const box = at(`b-layer-${number}`);
      if (!box.closest("label").hidden) box.click();
    } else if (KEYS[event.key] && inReach(event.key)) {
      KEYS[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
  /** Home and End belong to the page unless the browser has the focus. */
  function inReach(key) {
    return !["Home", "End"].includes(key) || at("browser").contains(document.activeElement);
  }

  at("browser").hidden = false;
  choices("b-set", data.sets.map((one, k) => [String(k), one.name]));
  useSet(0);
})();
