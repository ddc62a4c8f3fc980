/* The image browser. Scores below are in the precision of the evaluation, so that both let the same detections pass. */

const data = JSON.parse(document.getElementById("browser-data").textContent);
const at = (id) => document.getElementById(id);
const X0 = 0,
  X1 = 2,
  SCORE = 4,
  LABEL = 5,
  KIND = 6,
  FIT = 7,
  OBJECT = 8,
  BUCKET = 9,
  LOST = 10,
  MORE = 11,
  REFINED_FIT = 12;
const FALSE = ["duplicate", "wrong_class", "false_alarm"];
const WORDS = {
  hit: "hit",
  duplicate: "duplicate",
  wrong_class: "wrong class",
  false_alarm: "false alarm",
  ignored: "ignored",
  missed: "missed",
  truth: "truth",
  dont_care: "need not be found",
  improved: "improved",
  worse: "made worse",
  unchanged: "moved, as good as before",
  kept: "kept as it was",
  unassigned: "stands for no object",
};
const COLOURS = {
  hit: "#56c8ff",
  duplicate: "#f2a0d0",
  wrong_class: "#c79bff",
  false_alarm: "#ff7a3d",
  ignored: "#b9c0c9",
  missed: "#ffe14d",
  truth: "#ffffff",
  dont_care: "#b9c0c9",
  improved: "#3fdc7c",
  worse: "#ff5c5c",
  unchanged: "#c79bff",
  kept: "#ffb020",
  unassigned: "#b9c0c9",
  refined: "#4db5ff",
};
const DASHES = {
  truth: [4, 3],
  dont_care: [4, 3],
  duplicate: [2, 2],
  wrong_class: [9, 3],
  ignored: [1, 3],
  unassigned: [1, 3],
};
const state = {
  set: 0,
  threshold: 0,
  position: 0,
  order: [],
  zoom: 1,
  left: 0,
  top: 0,
  picture: null,
  patches: [],
  map: null,
  target: null,
};
const set = () => data.sets[state.set];
const refines = () => set().kind === "refined";
const shown = () => set().shown[state.order[state.position]];
const imageOf = (entry) => data.images[entry.image];
