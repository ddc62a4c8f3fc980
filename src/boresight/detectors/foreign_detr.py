"""Detectors of the DETR family in the transformers library, live.

Their cells are queries: they have no place and no stride. Boxes are shares of the image, so that no resizing has to be
undone; what its image processor did to the picture does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import box_convert

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.detectors.foreign_model import PROTOCOL, above, labels_of, untouched
from boresight.detectors.foreign_scene import counted, rgb_bytes, same_image, trained


@dataclass(frozen=True)
class Family:
    """Models that score, select and match alike.

    Attributes:
        models: class names.
        softmax: a query chooses one label or "no object", the last one; else every label is a yes or no.
        returns: the best ``label`` of each query; the best so many ``slots``; as many slots as there are ``queries``.
        matcher: the model's configuration to its own matcher.
    """

    models: tuple[str, ...]
    softmax: bool
    returns: Literal["label", "slots", "queries"]
    matcher: Callable[[Any], Any]


def _costs(config: Any) -> dict[str, float]:
    return {"class_cost": config.class_cost, "bbox_cost": config.bbox_cost, "giou_cost": config.giou_cost}


def _detr_matcher(config: Any) -> Any:
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    return HungarianMatcher(**_costs(config))


def _deformable_matcher(config: Any) -> Any:
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher

    return DeformableDetrHungarianMatcher(**_costs(config))


def _rt_matcher(config: Any) -> Any:
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    return RTDetrHungarianMatcher(config)


FAMILIES = (
    Family(
        ("DetrForObjectDetection", "YolosForObjectDetection", "TableTransformerForObjectDetection"),
        softmax=True,
        returns="label",
        matcher=_detr_matcher,
    ),
    Family(
        ("DeformableDetrForObjectDetection", "ConditionalDetrForObjectDetection", "DabDetrForObjectDetection"),
        softmax=False,
        returns="slots",
        matcher=_deformable_matcher,
    ),
    Family(
        ("RTDetrForObjectDetection", "RTDetrV2ForObjectDetection"),
        softmax=False,
        returns="queries",
        matcher=_rt_matcher,
    ),
)


SAID = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""What an image processor says of itself."""


def _seen(processor: Any, look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Prepared pixels ``[1, 3, h, w]`` of the same picture seen through ``look``."""
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    constants = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in constants)
    return ((look((pixels[0] * std + mean) / scale) * scale - mean) / std)[None]


class DetrSource:
    """A :class:`~boresight.core.emission.Source`, made by :func:`detr_source`; what it gives lies on the CPU."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        family: Family,
        classes: Sequence[str],
        labels: Sequence[int],
        decoding: Decoding,
    ) -> None:
        self.model, self.processor, self.family = model, processor, family
        self.classes, self.labels = tuple(classes), list(labels)
        self.decoding: Decoding | None = decoding
        self._look: Callable[[Tensor], Tensor] | None = None

    def emit(self, scene: Scene) -> Emission:
        """See :class:`~boresight.core.emission.Source`. Raises ValueError for an image that is not RGB in 0..255."""
        from PIL import Image

        picture = Image.fromarray(rgb_bytes(scene).permute(1, 2, 0).contiguous().numpy())
        with untouched(self.model):
            weight = next(self.model.parameters())
            given = self.processor(images=picture, return_tensors="pt")
            given = {k: v.to(weight) if v.is_floating_point() else v.to(weight.device) for k, v in given.items()}
            if self._look is not None:
                given["pixel_values"] = _seen(self.processor, self._look, given["pixel_values"])
            output = self.model(**given)
        logits = output.logits[0].float()
        scores = logits.softmax(-1) if self.family.softmax else logits.sigmoid()
        height, width = scene.size
        boxes = box_convert(output.pred_boxes[0].float(), "cxcywh", "xyxy") * scores.new_tensor([width, height] * 2)
        return Emission(boxes[None], scores[:, self.labels].T.contiguous(), scene.size).to("cpu")

    def supervise(self, emission: Emission, scene: Scene) -> Supervision | Missing:
        """See :class:`~boresight.core.emission.Source`: queries that its own Hungarian matcher gives an object to.

        Of the last layer of the decoder, whose output is used; layers before it and the encoder are matched for
        themselves in a training. Raises ValueError as :func:`~boresight.detectors.foreign_scene.counted` does.
        """
        same_image(emission, scene)
        objects, rows = counted(scene, len(self.classes))
        try:
            matcher = self.family.matcher(self.model.config)
        except (ImportError, AttributeError) as problem:
            return Missing(f"this release of transformers does not show its matcher: {problem}")
        size = torch.tensor([emission.size[1], emission.size[0]] * 2)
        shares = [box_convert(b / size, "xyxy", "cxcywh") for b in (emission.boxes[0], objects.boxes)]
        query, object_ = matcher(
            {"logits": self._logits(emission.scores)[None], "pred_boxes": shares[0][None]},
            [{"class_labels": objects.labels, "boxes": shares[1]}],
        )[0]
        matched = torch.full((emission.cells,), -1)
        matched[query] = object_
        return trained(matched, rows, by_prediction=True)

    def through(self, look: Callable[[Tensor], Tensor]) -> DetrSource | Missing:
        """See :class:`~boresight.diagnose.inputs.Through`. Missing where its processor does not say what it does."""
        if not all(hasattr(self.processor, name) for name in SAID):
            return Missing(f"{type(self.processor).__name__} does not say what it does: {', '.join(SAID)}")
        other = copy(self)
        other._look = look
        return other

    def _logits(self, scores: Tensor) -> Tensor:
        """``[N, C]`` (and one for all the rest) that the matcher turns into these ``[C, N]`` scores again."""
        if not self.family.softmax:
            return scores.T.logit()
        rest = (1 - scores.sum(0)).clamp(min=0)
        return torch.cat((scores.T, rest[:, None]), 1).log()


def detr_source(
    model: Any,
    classes: Sequence[str] = (),
    labels: Sequence[int] | None = None,
    *,
    processor: Any = None,
    threshold: float = 0.5,
    top_k: int = 100,
) -> DetrSource:
    """A detector of the DETR family as a source.

    Args:
        model: of a class in :data:`FAMILIES`, from the transformers library.
        classes: names, in the order of ``Scene.labels``; none: all that its configuration has names for.
        labels: the model's label of each class, where they are not 0, 1, 2 and so on (the published COCO weights of
            DETR have 91). The others are not emitted, as if the model did not know them.
        processor: its image processor; a model does not say what its pictures must be turned into.
        threshold, top_k: as its ``post_process_object_detection`` has them (``top_k``: of Deformable DETR and its kin).

    Raises UserError for another model, without a processor, and for an RT-DETR trained without focal loss.
    """
    names = {class_.__name__ for class_ in type(model).__mro__}
    family = next((f for f in FAMILIES if names & set(f.models)), None)
    if family is None:
        known = ", ".join(name for f in FAMILIES for name in f.models)
        raise UserError(f"{type(model).__name__} is none of {known}: {PROTOCOL}")
    if processor is None:
        raise UserError(f"{type(model).__name__}: give its image processor (processor=), which prepares its pictures")
    if family.returns == "queries" and not model.config.use_focal_loss:
        raise UserError(f"{type(model).__name__} with use_focal_loss=False has no adapter: {PROTOCOL}")
    config = model.config
    named = tuple(classes) or tuple(config.id2label[k] for k in range(config.num_labels))
    found = labels_of(named, labels, config.num_labels, starts=(0,), owner=type(model).__name__)
    limits = {"label": 0, "slots": top_k, "queries": getattr(config, "num_queries", 0)}
    decoding = Decoding(
        threshold=above(threshold),
        before_nms=0,
        nms=None,
        single=family.returns == "label",
        top_k=limits[family.returns],
        least=None,
        cut="never",
    )
    return DetrSource(model, processor, family, named, found, decoding)
