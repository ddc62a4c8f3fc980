/* The image that is looked at: its picture, its maps and what is told of it. */

const canvas = at("b-canvas"),
  pen = canvas.getContext("2d");
const layer = (name) => {
  const box = at(`b-layer-${name}`);
  return !box.closest("label").hidden && box.checked;
};

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
  const above = item.offsetTop - list.offsetTop,
    beside = item.offsetLeft - list.offsetLeft;
  if (above < list.scrollTop || above + item.offsetHeight > list.scrollTop + list.clientHeight)
    list.scrollTop = above - 40;
  if (beside < list.scrollLeft || beside + item.offsetWidth > list.scrollLeft + list.clientWidth)
    list.scrollLeft = beside - 40;
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
  const maps = entry.maps || { classes: {} },
    select = at("b-map"),
    labels = Object.keys(maps.classes).map(Number);
  const before = Number(select.value),
    chosen = filters().label;
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
  return (
    imageOf(entry)
      .truth.map((t) => t[4])
      .find((k) => labels.includes(k)) ?? labels[0]
  );
}
function describe(entry) {
  const view = seen(entry),
    image = imageOf(entry),
    f = filters();
  const told = [`${image.name} (${image.width} × ${image.height} px): ${summary(entry, view)}`];
  if (view.mean !== null)
    told.push(
      `${refines() ? "mean IoU of its boxes" : set().kind === "points" ? "mean closeness over its targets" : "mean IoU over its objects"} ${plain(view.mean, 2)}`,
    );
  if (entry.regret !== null) told.push(`regret ${plain(entry.regret, 2)}`);
  if (entry.displacement !== null) told.push(`displacement ${plain(entry.displacement, 2)}`);
  if (cut(entry)) told.push(`of those that meet no object the ${set().drawn} surest are drawn at most`);
  at("b-caption").textContent = `${told.join("; ")}.`;
  canvas.setAttribute("aria-label", told.join("; "));
  const tellsMissed = f.kind === "missed" || (!f.kind && f.bucket < 0);
  const rows = (tellsMissed ? view.missed : [])
    .map((i) => ["missed", image.truth[i][4], "", "", ""])
    .filter(([, label]) => f.label < 0 || label === f.label);
  for (const { mark, now } of view.marks) {
    if (wanted(mark, now, f))
      rows.push([
        now.kind,
        mark[LABEL],
        plain(mark[SCORE], 4),
        plain(now.fit, 2),
        mark[BUCKET] < 0 ? "" : data.buckets[mark[BUCKET]],
      ]);
  }
  at("b-marks").replaceChildren(
    ...rows.map(([kind, label, ...rest]) => {
      const row = document.createElement("tr"),
        head = document.createElement("th");
      head.scope = "row";
      head.textContent = WORDS[kind];
      row.append(
        head,
        ...[nameOf(label), ...rest].map((text) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          return cell;
        }),
      );
      return row;
    }),
  );
  at("b-marks-count").textContent = String(rows.length);
}
function nameOf(label) {
  return label < 0 ? "—" : set().classes[label];
}
