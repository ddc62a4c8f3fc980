/* Controls: what they offer for a set, and what follows when they are used. */

function option(value, text) {
  const one = document.createElement("option");
  one.value = value;
  one.textContent = text;
  return one;
}
function choices(id, rows) {
  const select = at(id),
    before = select.value;
  select.replaceChildren(...rows.map(([value, text]) => option(value, text)));
  select.value = rows.some(([value]) => value === before) ? before : rows[0][0];
  select.closest("label").hidden = rows.length < 2;
}
/** Fit the controls to the set that is looked at, keeping what was chosen where it exists there as well. */
function useSet(number) {
  state.set = number;
  const one = set(),
    points = one.kind === "points",
    fit = points ? "closeness" : "IoU";
  const buckets = new Set(one.shown.flatMap((entry) => entry.marks.map((m) => m[BUCKET])).filter((b) => b >= 0));
  const kinds = refines()
    ? ["improved", "worse", "unchanged", "kept", "unassigned"]
    : ["hit", "missed", ...FALSE, "ignored"];
  const present = kinds.filter(
    (k) =>
      k === "missed" ||
      refines() ||
      one.shown.some((entry) =>
        entry.marks.some(
          (m) => data.kinds[m[KIND]] === k || (m[MORE] || []).some((change) => data.kinds[change[1]] === k),
        ),
      ),
  );
  choices("b-class", [["-1", "all classes"], ...one.classes.map((name, k) => [String(k), name])]);
  choices("b-kind", [["", "any"], ...present.map((k) => [k, WORDS[k]])]);
  choices("b-bucket", [
    ["-1", "any cell"],
    ...data.buckets.map((name, k) => [String(k), name]).filter(([k]) => buckets.has(Number(k))),
  ]);
  const orders = [
    ["errors", refines() ? "made worse, most first" : "errors, most first"],
    ["iou", `${fit}, lowest first`],
    ["given", "as judged"],
  ];
  if (one.regret) orders.push(["regret", "regret, largest first"]);
  if (one.displacement) orders.push(["displacement", "displacement, largest first"]);
  choices("b-sort", orders);
  const has = {
    map: one.shown.some((entry) => entry.maps && Object.keys(entry.maps.classes).length),
    target: one.shown.some((entry) => entry.maps && entry.maps.target),
    refined: refines(),
    truth: true,
    found: true,
    names: true,
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
  at("b-legend").replaceChildren(
    ...rows.map((kind) => {
      const item = document.createElement("li"),
        sample = document.createElement("canvas"),
        dense = 2;
      sample.width = sample.height = 22 * dense;
      const brush = sample.getContext("2d");
      brush.scale(dense, dense);
      stroke(brush, set().kind === "points" ? symbol(kind, 11, 11, 6) : outline(4, 4, 18, 18), kind);
      item.append(sample, kind === "refined" ? "box after" : WORDS[kind]);
      return item;
    }),
  );
}
let waiting = false;
/** Arrange at most once a frame: a slider gives many events. */
function arrangeSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    arrange();
  });
}
for (const id of ["b-class", "b-kind", "b-bucket", "b-sort"])
  at(id).addEventListener("change", () => {
    showCounts();
    arrange();
  });
for (const name of ["truth", "found", "map", "target", "refined", "names"])
  at(`b-layer-${name}`).addEventListener("change", () => {
    at("b-map-choice").hidden = !at("b-map").options.length || !layer("map");
    draw();
  });
at("b-map").addEventListener("change", () => {
  state.map = loaded(shown().maps.classes[at("b-map").value][0], "map");
});
at("b-set").addEventListener("change", () => useSet(Number(at("b-set").value)));
at("b-threshold").addEventListener("input", () => {
  setThreshold(thresholdAt(Number(at("b-threshold").value)));
  arrangeSoon();
});
at("b-threshold-value").addEventListener("change", () => {
  const value = Number(at("b-threshold-value").value);
  setThreshold(Number.isFinite(value) ? value : state.threshold);
  arrange();
});
at("b-stored").addEventListener("click", () => {
  setThreshold(set().threshold);
  arrange();
});
at("b-clear").addEventListener("click", () => {
  at("b-class").value = "-1";
  at("b-kind").value = "";
  at("b-bucket").value = "-1";
  at("b-sort").value = "errors";
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
