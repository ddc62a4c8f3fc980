"""What is said of a trained box refiner: every coarse box of a split, what became of it, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from boresight.core.boxes import aligned_iou
from boresight.core.types import Detections, Scene
from boresight.detectors.detector import Detector
from boresight.evaluate.average_precision import ap_difference
from boresight.evaluate.detection import coco_figures
from boresight.evaluate.refinement import Outcome, per_image_sums, refined, refinement_figures
from boresight.run.config_refine import RefineSettings
from boresight.run.outcomes import Tightened, rescored, tightened
from boresight.run.processes import shared
from boresight.run.progress import Progress
from boresight.run.recipe import Examination, Request
from boresight.run.results import box_results, shown

COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "cell": "int64",
    "class": "string",
    "score": "float64",
    "confidence": "float64",
    "replaced": "bool",
    **{f"{kind}_{side}": "float64" for kind in ("coarse", "moved", "refined") for side in ("x0", "y0", "x1", "y1")},
    "object": "int64",
    **{f"iou_{name}": "float64" for name in ("before", "moved", "after")},
    **{f"expected_{name}": "float64" for name in ("before", "moved")},
}
"""``matches.parquet``: a row a coarse box: where it was, where the refiner would have it (``moved``), and where it
stands in the end (``refined``); ``object`` is -1 where it stands for none, which leaves the IoUs empty."""


def examine_refined(detector: Detector, settings: RefineSettings, request: Request) -> Examination:
    """Refine the coarse boxes of a split and say what became of them."""
    splits = request.splits
    classes = splits.classes + (splits.novel if request.split == "test" else ())
    if settings.decode.operating == "all":
        request = replace(request, threshold=0.0)
    scenes, found = refine_frames(detector, request)
    data = refined(scenes, [f.outcome for f in found])
    figures = {"threshold": request.threshold} | refinement_figures(data, classes, replicates=request.bootstrap)
    figures |= {"frozen": detector.frozen, "per_image": per_image_sums(data)}
    before = [_detections(s, s.proposals.boxes, s.proposals.scores) for s in scenes]  # type: ignore[union-attr]
    after = [_after(s, f.outcome, settings.decode.rescore) for s, f in zip(scenes, found, strict=True)]
    if _from_detector(settings, request.split):
        figures |= precision_figures(scenes, before, after, classes, request.bootstrap)
    predictions = box_results([s.image_id for s in scenes], after, 0.0, range(1, len(classes) + 1))
    return Examination(figures, predictions, refined_rows(classes, scenes, found), COLUMNS)


def _from_detector(settings: RefineSettings, split: str) -> bool:
    c = settings.coarse
    return bool({"train": "", "val": c.val_file or c.train_file, "test": c.test_file}[split])


def refine_frames(detector: Detector, request: Request) -> tuple[list[Scene], list[Tightened]]:
    """Scenes (without their pixels), and what became of their coarse boxes."""
    device = next(detector.parameters()).device
    detector.eval()

    @torch.inference_mode()
    def refine(indices: range) -> list[tuple[Scene, Tightened]]:
        done = []
        with Progress(len(indices), label="refine", quiet=request.quiet) as bar:
            for i in indices:
                scene = request.frames[i]
                output = detector([scene.to(device)])
                assert scene.proposals is not None
                one = detector.decode(output)[0].to("cpu")
                done.append((scene.without_pixels(), tightened(output, one, scene.proposals, request.threshold)))
                bar.step(1)
        return done

    both = shared(request.count, refine)
    return [scene for scene, _ in both], [one for _, one in both]


def _after(scene: Scene, outcome: Outcome, power: float) -> Detections:
    assert scene.proposals is not None
    return _detections(scene, outcome.boxes, rescored(scene.proposals.scores, outcome, power))


def _detections(scene: Scene, boxes: torch.Tensor, scores: torch.Tensor) -> Detections:
    assert scene.proposals is not None
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order].float(), scores[order], scene.proposals.labels[order], order)


def precision_figures(
    scenes: Sequence[Scene],
    before: Sequence[Detections],
    after: Sequence[Detections],
    classes: Sequence[str],
    replicates: int,
) -> dict[str, Any]:
    """AP, AP50 and AP75 of a detector's boxes before and after; how much they gained, with the interval by image."""
    told: dict[str, Any] = {}
    for when, found in (("before", before), ("after", after)):
        coco = coco_figures(scenes, found, classes)
        told |= {f"{name}_{when}": getattr(coco, name) for name in ("ap", "ap50", "ap75")}
    for name, iou in (("ap50", 0.5), ("ap75", 0.75)):
        gain, interval = ap_difference(scenes, before, after, classes, iou=iou, replicates=replicates)
        told |= {f"{name}_gain": gain, f"{name}_gain_interval": interval}
    return told


def refined_rows(classes: Sequence[str], scenes: Sequence[Scene], found: Sequence[Tightened]) -> list[dict[str, Any]]:
    """Rows of ``matches.parquet``: every coarse box, what it became, and for which object it stands."""
    return [_row(classes, scene, one, m) for scene, one in zip(scenes, found, strict=True) for m in range(len(one))]


SIDES = ("x0", "y0", "x1", "y1")


def _row(classes: Sequence[str], scene: Scene, one: Tightened, m: int) -> dict[str, Any]:
    p, out = scene.proposals, one.outcome
    assert p is not None
    assert p.matched is not None
    assert scene.boxes is not None
    owner, label = int(p.matched[m]), int(p.labels[m])
    row: dict[str, Any] = {"image": scene.name, "image_id": scene.image_id, "cell": m, "object": owner}
    row |= {"class": classes[label] if label >= 0 else None, "score": float(p.scores[m])}
    row |= {"confidence": float(one.confidence[m]), "replaced": bool(out.replaced[m])}
    for kind, box in (("coarse", p.boxes[m]), ("moved", out.moved[m]), ("refined", out.boxes[m])):
        row |= {f"{kind}_{side}": v for side, v in zip(SIDES, box.tolist(), strict=True)}
    if owner >= 0:
        truth = scene.boxes[owner]
        boxes = {"before": p.boxes[m], "moved": out.moved[m], "after": out.boxes[m]}
        row |= {f"iou_{name}": float(aligned_iou(box, truth)) for name, box in boxes.items()}
    if out.quality is not None and out.start_quality is not None:
        row["expected_before"], row["expected_moved"] = float(out.start_quality[m]), float(out.quality[m])
    return row


def refine_summary(figures: dict[str, Any]) -> str:
    """The figures that matter, for a person."""
    rows = [
        ("mean IoU before", "iou_before"),
        ("mean IoU after", "iou_after"),
        ("mean IoU if every box were replaced", "iou_all_replaced"),
        ("share improved", "improved_share"),
        ("share of the boxes above 0.8 made worse", "harmed_share"),
        ("AP75 before", "ap75_before"),
        ("AP75 after", "ap75_after"),
    ]
    head = f"{figures['split']}: {figures['images']} images, {figures['boxes']} coarse boxes that stand for an object"
    return "\n".join([head, *(f"  {text:<42} {shown(figures, key)}" for text, key in rows if key in figures)])
