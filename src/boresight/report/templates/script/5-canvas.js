/* Drawing: the picture, maps of cells, and marks in the pixel frame of the image. */

/** Pixels of the page for one pixel of the image. */
function scale() {
  return (canvas.clientWidth / imageOf(shown()).width) * state.zoom;
}
function place(x, y) {
  return [(x - state.left) * scale(), (y - state.top) * scale()];
}
function draw() {
  if (!state.order.length) return;
  const image = imageOf(shown()),
    dense = window.devicePixelRatio || 1;
  canvas.style.aspectRatio = `${image.width} / ${image.height}`;
  canvas.style.maxWidth = `${Math.round((0.78 * window.innerHeight * image.width) / image.height)}px`;
  const width = canvas.clientWidth,
    height = canvas.clientHeight;
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
  const columns = picture.naturalWidth,
    rows = picture.naturalHeight,
    sheet = document.createElement("canvas");
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
  const entry = shown(),
    view = seen(entry),
    truth = imageOf(entry).truth,
    f = filters();
  if (layer("found")) {
    const order = [
      "unassigned",
      "ignored",
      "wrong_class",
      "duplicate",
      "false_alarm",
      "kept",
      "unchanged",
      "worse",
      "improved",
      "hit",
    ];
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
  const [x0, y0] = place(box[0], box[1]),
    [x1, y1] = place(box[2], box[3]),
    point = set().kind === "points";
  const path = point ? symbol(kind, x0, y0, 8) : outline(x0, y0, x1, y1);
  stroke(pen, path, kind);
  if (!layer("names") || !words || kind === "refined") return;
  pen.font = "600 12px system-ui, sans-serif";
  pen.lineWidth = 3;
  pen.strokeStyle = "rgba(0,0,0,.75)";
  pen.fillStyle = COLOURS[kind];
  const low = ["false_alarm", "wrong_class", "duplicate", "ignored"].includes(kind);
  const [x, y] = point
    ? [x0 + 10, y0 + (low ? 14 : -6)]
    : [x0, low ? Math.min(y1 + 13, canvas.clientHeight - 3) : Math.max(y0 - 4, 11)];
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
  const line = (...points) =>
    points.forEach(([a, b], i) => (i ? path.lineTo(x + a * r, y + b * r) : path.moveTo(x + a * r, y + b * r)));
  if (kind === "truth" || kind === "dont_care") path.arc(x, y, r, 0, 7);
  else if (kind === "missed") line([0, -1.45], [1.45, 0], [0, 1.45], [-1.45, 0], [0, -1.45]);
  else if (kind === "hit") {
    line([-0.8, 0], [-0.3, 0]);
    line([0.3, 0], [0.8, 0]);
    line([0, -0.8], [0, -0.3]);
    line([0, 0.3], [0, 0.8]);
  } else if (kind === "duplicate") line([0, -0.9], [0.8, 0.5], [-0.8, 0.5], [0, -0.9]);
  else if (kind === "ignored") line([-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]);
  else {
    line([-0.9, -0.9], [-0.2, -0.2]);
    line([0.2, 0.2], [0.9, 0.9]);
    line([-0.9, 0.9], [-0.2, 0.2]);
    line([0.2, -0.2], [0.9, -0.9]);
  }
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
