"""Detectors of torchvision, live: FCOS, RetinaNet, SSD, and the proposals of Faster R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision.ops import box_iou

from boresight.core.emission import Decoding, Missing
from boresight.core.errors import UserError
from boresight.detectors.foreign_anchors import Anchors, AnchorSource, Kind
from boresight.detectors.foreign_model import PROTOCOL, above


def torchvision_source(model: Any, classes: Sequence[str] = (), labels: Sequence[int] | None = None) -> AnchorSource:
    """A detector of torchvision as a source.

    Args:
        model: FCOS, RetinaNet, SSD (SSDlite too), or a Faster, Mask or Keypoint R-CNN, whose *proposals* are judged.
        classes: names, in the order of ``Scene.labels``. Of proposals none: they have the one class "object", and
            truth of any class is an object to them.
        labels: the model's label of each class, where they do not simply follow each other.

    What its labels mean was fixed by whoever trained it. FCOS and RetinaNet score each of ``num_classes`` labels by
    itself and have no background: with as many classes, label ``k`` is class ``k``; with one class fewer, label 0 was
    kept for a background that is never trained, and label ``k`` is class ``k - 1``. SSD's label 0 is the background
    that it is trained to say, and class ``k`` is label ``k + 1``. The published COCO weights have 91 labels, of which
    80 are used: give ``labels``. Labels that are not named are not emitted.

    Raises UserError for another model, and for classes and labels that do not fit it.
    """
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.ssd import SSD

    kinds = ((FCOS, _FCOS), (RetinaNet, _RETINANET), (SSD, _SSD), (GeneralizedRCNN, _RPN))
    for class_, kind in kinds:
        if isinstance(model, class_):
            return AnchorSource(model, kind, classes or (("object",) if kind.agnostic else ()), labels)
    raise UserError(f"{type(model).__name__} is no FCOS, RetinaNet, SSD or Faster R-CNN: {PROTOCOL}")


# ---------------------------------------------------------------- FCOS


def _fcos_read(model: Any, output: dict[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    scores = (output["cls_logits"][0].sigmoid() * output["bbox_ctrness"][0].sigmoid()).sqrt()
    return scores, model.box_coder.decode(output["bbox_regression"][0], anchors)


class _Overheard:
    """Stands for a model in its own ``compute_loss``, whose head is told which anchor has which object: so are we."""

    def __init__(self, model: Any) -> None:
        self.model, self.head = model, self
        self.matched: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def compute_loss(self, targets: Any, output: Any, anchors: Any, matched_idxs: list[Tensor]) -> dict[str, Tensor]:
        """In the head's place."""
        self.matched = matched_idxs[0]
        return {}


def _fcos_match(model: Any, objects: Tensor, anchors: Anchors) -> Tensor | Missing:
    """Centre sampling and ranges of scale stand inside of its ``compute_loss`` and nowhere else."""
    ear = _Overheard(model)
    type(model).compute_loss(ear, [{"boxes": objects}], {}, [anchors.boxes], list(anchors.per_level))
    if ear.matched is None:
        return Missing(f"{type(model).__name__}.compute_loss does not hand its head what it has matched")
    return ear.matched


def _per_level(model: Any) -> Decoding:
    return Decoding(
        threshold=above(model.score_thresh),
        before_nms=model.topk_candidates,
        per="level",
        nms=model.nms_thresh,
        top_k=model.detections_per_img,
        least=None,
    )


# ---------------------------------------------------------------- RetinaNet, SSD


def _retinanet_read(model: Any, output: dict[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    boxes = model.box_coder.decode_single(output["bbox_regression"][0], anchors)
    return output["cls_logits"][0].sigmoid(), boxes


def _ssd_read(model: Any, output: dict[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    boxes = model.box_coder.decode_single(output["bbox_regression"][0], anchors)
    return output["cls_logits"][0].softmax(-1), boxes


def _iou_match(part: Any, objects: Tensor, anchors: Anchors) -> Tensor | Missing:
    if not hasattr(part, "proposal_matcher"):
        return Missing(f"{type(part).__name__} has no `proposal_matcher`")
    return part.proposal_matcher(box_iou(objects, anchors.boxes))


def _per_class(model: Any) -> Decoding:
    return Decoding(
        threshold=above(model.score_thresh),
        before_nms=model.topk_candidates,
        per="class",
        nms=model.nms_thresh,
        top_k=model.detections_per_img,
        least=None,
    )


# ---------------------------------------------------------------- proposals of Faster R-CNN


def _rpn_read(rpn: Any, output: tuple[list[Tensor], list[Tensor]], anchors: Tensor) -> tuple[Tensor, Tensor]:
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    objectness, deltas = concat_box_prediction_layers(*output)
    return objectness.reshape(-1, 1).sigmoid(), rpn.box_coder.decode(deltas, [anchors]).reshape(-1, 4)


def _rpn_decoding(rpn: Any) -> Decoding:
    """Its smallest side is 0.001 px of the input: too little for a pixel of the original to matter."""
    return Decoding(
        threshold=rpn.score_thresh,
        before_nms=rpn.pre_nms_top_n(),
        per="level",
        nms=rpn.nms_thresh,
        by_level=True,
        top_k=rpn.post_nms_top_n(),
    )


def _whole(model: Any) -> Any:
    return model


_FCOS = Kind(
    name="FCOS",
    part=_whole,
    channels=lambda model: model.head.classification_head.num_classes,
    starts=(0, 1),
    agnostic=False,
    read=_fcos_read,
    match=_fcos_match,
    decoding=_per_level,
)
_RETINANET = Kind(
    name="RetinaNet",
    part=_whole,
    channels=lambda model: model.head.classification_head.num_classes,
    starts=(0, 1),
    agnostic=False,
    read=_retinanet_read,
    match=_iou_match,
    decoding=_per_level,
)
_SSD = Kind(
    name="SSD",
    part=_whole,
    channels=lambda model: model.head.classification_head.num_columns,
    starts=(1,),
    agnostic=False,
    read=_ssd_read,
    match=_iou_match,
    decoding=_per_class,
)
_RPN = Kind(
    name="the RPN of a Faster R-CNN",
    part=lambda model: model.rpn,
    channels=lambda rpn: 1,
    starts=(0,),
    agnostic=True,
    read=_rpn_read,
    match=_iou_match,
    decoding=_rpn_decoding,
)
