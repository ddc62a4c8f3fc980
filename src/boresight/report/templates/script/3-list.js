/* Filters, order and the list of images. */

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
  const f = filters(),
    rank = ORDERS[at("b-sort").value],
    now = state.order.length ? state.order[state.position] : -1;
  const rows = set()
    .shown.map((entry, i) => ({ i, entry, view: seen(entry) }))
    .filter((r) => belongs(r.entry, r.view, f));
  rows.forEach((r) => {
    r.rank = rank(r.entry, r.view);
  });
  rows.sort((a, b) => (a.rank === b.rank ? a.i - b.i : a.rank < b.rank ? -1 : 1));
  state.order = rows.map((r) => r.i);
  state.position = Math.max(0, state.order.indexOf(now));
  fillList(rows);
  look();
}

const watcher =
  "IntersectionObserver" in window
    ? new IntersectionObserver(
        (entries) => {
          for (const one of entries) if (one.isIntersecting) reveal(one.target);
        },
        { root: at("b-list"), rootMargin: "200px" },
      )
    : null;
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
  list.replaceChildren(
    ...rows.map(({ i, entry, view }, position) => {
      const item = document.createElement("div"),
        thumb = document.createElement("img"),
        text = document.createElement("span");
      const name = document.createElement("b"),
        told = document.createElement("small");
      item.id = `b-item-${i}`;
      item.setAttribute("role", "option");
      thumb.alt = "";
      thumb.dataset.image = String(entry.image);
      name.textContent = imageOf(entry).name;
      told.textContent = `${summary(entry, view)}${sortValue(entry, view)}`;
      text.append(name, told);
      item.append(thumb, text);
      item.addEventListener("click", () => go(position));
      if (watcher) watcher.observe(thumb);
      else reveal(thumb);
      return item;
    }),
  );
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
