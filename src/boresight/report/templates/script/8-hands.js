/* Pointer and keys; then the browser opens. */

function zoomBy(factor, x = 0.5, y = 0.5) {
  if (!state.order.length) return;
  const image = imageOf(shown()),
    before = state.zoom;
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
  const [x, y] = [event.offsetX / scale() + state.left, event.offsetY / scale() + state.top],
    f = filters(),
    near = [];
  const reach = (set().kind === "points" ? 10 : 4) / scale();
  const add = (box, size, text) => {
    if (x >= box[0] - reach && x <= box[2] + reach && y >= box[1] - reach && y <= box[3] + reach)
      near.push({ size, text });
  };
  const entry = shown(),
    view = seen(entry);
  if (layer("found")) {
    for (const { mark, now } of view.marks) {
      if (!wanted(mark, now, f)) continue;
      const bucket = mark[BUCKET] < 0 ? "" : `, ${data.buckets[mark[BUCKET]]} cell`;
      const lost = mark[LOST] > 0 ? `, drove out a box that fits better by ${plain(mark[LOST], 2)}` : "";
      const fit = now.fit === null ? "" : `, ${set().kind === "points" ? "closeness" : "IoU"} ${plain(now.fit, 2)}`;
      add(
        mark,
        (mark[X1] - mark[X0]) * (mark[3] - mark[1]),
        `${WORDS[now.kind]}: ${nameOf(mark[LABEL])}, score ${plain(mark[SCORE], 4)}${fit}${bucket}${lost}`,
      );
    }
  }
  if (layer("truth"))
    imageOf(entry).truth.forEach((t, i) =>
      add(
        t,
        (t[2] - t[0]) * (t[3] - t[1]) + 1e-3,
        `${t[5] ? WORDS.dont_care : view.missed.includes(i) ? "missed" : "truth"}: ${nameOf(t[4])}`,
      ),
    );
  near.sort((a, b) => a.size - b.size);
  return near
    .slice(0, 3)
    .map((n) => n.text)
    .join(" · ");
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = [event.clientX, event.clientY];
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", () => {
  drag = null;
});
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
canvas.addEventListener("pointerleave", () => {
  at("b-pointed").textContent = "";
});
canvas.addEventListener("dblclick", (event) =>
  zoomBy(2, event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight),
);
let drawnWidth = 0;
new ResizeObserver(([paper]) => {
  if (paper.contentRect.width !== drawnWidth) requestAnimationFrame(draw);
  drawnWidth = paper.contentRect.width;
}).observe(canvas.parentElement);

const LAYERS = ["truth", "found", "map", "target", "refined", "names"];
const KEYS = {
  ArrowLeft: () => go(state.position - 1),
  ArrowRight: () => go(state.position + 1),
  "[": () => step(-10),
  "]": () => step(10),
  "+": () => zoomBy(1.5),
  "-": () => zoomBy(1 / 1.5),
  0: () => zoomBy(0),
  "?": () => at("b-keys").showModal(),
};
const LIST_KEYS = { ArrowUp: KEYS.ArrowLeft, ArrowDown: KEYS.ArrowRight, Home: () => go(0), End: () => go(Infinity) };
function step(by) {
  setThreshold(thresholdAt(Math.min(POSITIONS, Math.max(0, positionOf(state.threshold) + by))));
  arrange();
}
document.addEventListener("keydown", (event) => {
  const busy =
    event.target.closest && event.target.closest("input:not([type=checkbox]), select, textarea, .scroll, dialog[open]");
  if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = LAYERS[Number(event.key) - 1],
    act = KEYS[event.key] || (document.activeElement === at("b-list") && LIST_KEYS[event.key]);
  if (name) {
    const box = at(`b-layer-${name}`);
    if (!box.closest("label").hidden) box.click();
  } else if (act) {
    act();
  } else {
    return;
  }
  event.preventDefault();
});

at("browser").hidden = false;
choices(
  "b-set",
  data.sets.map((one, k) => [String(k), one.name]),
);
useSet(0);
