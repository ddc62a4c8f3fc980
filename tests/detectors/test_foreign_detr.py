"""The transformers library is the oracle: its post-processing is replayed, its own loss says who is matched."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.decode.replay import select
from boresight.detectors.foreign import adapt
from boresight.detectors.foreign_detr import detr_source

CLASSES = ("boat", "car", "dock")
SIZES = [(90, 130), (150, 70)]
KINDS = ["detr", "deformable", "rt"]
KIN = ["yolos", "table", "conditional", "dab", "rt2"]
SMALL = {
    "num_queries": 40,
    "num_labels": 3,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}


@pytest.fixture(scope="module")
def build(rescaled):
    """A model of some ten thousand random weights, and an image processor that is told everything."""
    import transformers as hf

    def resnet(kind, *stages):
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "layer_type": "basic"}
        return kind(**sizes, out_features=list(stages))

    def single(name, processor="Detr", **more):
        """Reads one map."""
        body = {"backbone_config": resnet(hf.ResNetConfig, "stage4"), "use_timm_backbone": False, "backbone": None}
        return made(name, processor, **{**SMALL, **body, **more})

    def made(name, processor, **settings):
        config = getattr(hf, f"{name}Config")(**settings)
        return getattr(hf, f"{name}ForObjectDetection")(config), getattr(hf, f"{processor}ImageProcessor")(size=edges)

    def deformable():
        stages = resnet(hf.ResNetConfig, "stage2", "stage3", "stage4")
        return single("DeformableDetr", "DeformableDetr", backbone_config=stages)

    def dab():
        wide = {"hidden_size" if k == "d_model" else k: v for k, v in SMALL.items()}
        body = {"backbone_config": resnet(hf.ResNetConfig, "stage4"), "use_timm_backbone": False, "backbone": None}
        return made("DabDetr", "ConditionalDetr", **wide, **body)

    def yolos():
        layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        return made("Yolos", "Yolos", **layers, image_size=[64, 96], num_detection_tokens=40, num_labels=3)

    def rt(name):
        body = {
            "backbone_config": resnet(hf.RTDetrResNetConfig, "stage2", "stage3", "stage4"),
            "encoder_hidden_dim": 32,
            "encoder_in_channels": [8, 16, 16],
            "decoder_in_channels": [32] * 3,
            "num_denoising": 4,
        }
        model = getattr(hf, f"{name}ForObjectDetection")(getattr(hf, f"{name}Config")(**SMALL, **body))
        return model, hf.RTDetrImageProcessor(size={"height": 96, "width": 96})

    edges = {"shortest_edge": 64, "longest_edge": 96}
    kinds = {
        "detr": lambda: single("Detr"),
        "table": lambda: single("TableTransformer"),
        "conditional": lambda: single("ConditionalDetr", "ConditionalDetr"),
        "deformable": deformable,
        "dab": dab,
        "yolos": yolos,
        "rt": lambda: rt("RTDetr"),
        "rt2": lambda: rt("RTDetrV2"),
    }

    def built(kind, seed=0):
        model, processor = kinds[kind]()
        rescaled(model, seed)
        last = getattr(model, "class_labels_classifier", None)
        if isinstance(last, nn.Linear) and last.out_features == 4:
            last.bias.data[-1] -= 3  # "no object" is what random weights like best
        return model.eval(), processor

    return built


def own_output(model, processor, scene):
    return model(**processor(images=scene.image, return_tensors="pt"))


# ---------------------------------------------------------------- what is emitted


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "seed", "size"),
    [*[(kind, seed, size) for kind in KINDS for seed in (0, 1) for size in SIZES], *[(k, 0, SIZES[0]) for k in KIN]],
)
def test_the_replayed_output_is_its_own_post_processing(kind, seed, size, build, scene_of, same_detections):
    (model, processor), scene = build(kind, seed), scene_of(*size, seed)
    source = adapt(model, CLASSES, processor=processor, threshold=0.3)
    selected = select(source.emit(scene), source.decoding)
    output = own_output(model, processor, scene)
    own = processor.post_process_object_detection(output, threshold=0.3, target_sizes=[scene.size])[0]
    same_detections(selected.found(), own["boxes"], own["scores"], own["labels"], least=5)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "how", "limit"), [("deformable", {"top_k": 17}, 17), ("rt", {}, 40)])
def test_the_limit_of_slots_is_followed(kind, how, limit, build, scene_of, same_detections):
    """Of 120 slots, all over the threshold."""
    (model, processor), scene = build(kind), scene_of()
    source = adapt(model, CLASSES, processor=processor, threshold=0.0, **how)
    output = own_output(model, processor, scene)
    own = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[scene.size], **how)[0]
    found = select(source.emit(scene), source.decoding).found()
    assert len(found) == limit
    same_detections(found, own["boxes"], own["scores"], own["labels"], least=limit)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_have_no_place(kind, build, scene_of):
    model, processor = build(kind)
    emission = adapt(model, processor=processor).emit(scene_of())
    assert (emission.centres, emission.strides, emission.level) == (None, None, None)
    assert (emission.classes, emission.cells) == (3, 40)


def test_no_object_is_no_class(build, scene_of):
    """The probabilities of the classes and of "no object" are one together."""
    model, processor = build("detr")
    total = adapt(model, processor=processor).emit(scene_of()).scores.sum(0)
    assert bool((total < 1).all())
    assert bool((total > 0).all())


# ---------------------------------------------------------------- what was trained


def overheard(original, heard):
    """The method, whose results are kept."""

    def forward(*given):
        heard.append(original(*given))
        return heard[-1]

    return forward


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*KINDS, *KIN])
def test_pairs_are_those_of_its_own_loss(kind, size, build, scene_of, monkeypatch):
    """The model's forward with labels, in inference mode, and its last layer's matching overheard."""
    import transformers.loss.loss_deformable_detr as focal
    import transformers.loss.loss_for_object_detection as plain
    import transformers.loss.loss_rt_detr as rt

    heard = []
    for matcher in (plain.HungarianMatcher, focal.DeformableDetrHungarianMatcher, rt.RTDetrHungarianMatcher):
        original = vars(matcher)["forward"]
        monkeypatch.setattr(matcher, "forward", overheard(original, heard))
    (model, processor), scene = build(kind), scene_of(*size, 5, count=20)
    scene = replace(scene, ignore=torch.arange(20) == 1)
    source = adapt(model, CLASSES, processor=processor)
    pairs = source.supervise(source.emit(scene), scene)

    heard.clear()
    keep, (height, width) = ~scene.ignore, scene.size
    boxes = scene.boxes[keep] / torch.tensor([width, height] * 2)
    shares = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
    given = processor(images=scene.image, return_tensors="pt")
    with torch.no_grad():
        model(**given, labels=[{"class_labels": scene.labels[keep], "boxes": shares}])
    query, which = heard[0][0]

    assert pairs.cell.tolist() == query.tolist()
    assert pairs.object.tolist() == keep.nonzero()[:, 0][which].tolist()
    assert pairs.by_prediction
    assert bool(pairs.positive.all())


def test_pairs_follow_the_emission_that_is_given(build, scene_of):
    """A query that emits an object, box and class, is matched to it."""
    (model, processor), scene = build("detr"), scene_of()
    source = adapt(model, CLASSES, processor=processor)
    emission = source.emit(scene)
    boxes, scores = emission.boxes.clone(), emission.scores * 0.01
    boxes[0, 30:34] = scene.boxes
    scores[scene.labels, torch.arange(30, 34)] = 0.9
    pairs = source.supervise(replace(emission, boxes=boxes, scores=scores), scene)
    assert (pairs.cell.tolist(), pairs.object.tolist()) == ([30, 31, 32, 33], [0, 1, 2, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_no_pair(kind, build):
    model, processor = build(kind)
    scene = Scene(torch.zeros(3, 90, 130), "empty", boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    source = adapt(model, processor=processor)
    assert len(source.supervise(source.emit(scene), scene).cell) == 0


def test_a_matcher_that_is_not_there_is_missing(build, scene_of, monkeypatch):
    (model, processor), scene = build("rt"), scene_of()
    source = adapt(model, CLASSES, processor=processor)
    emission = source.emit(scene)
    monkeypatch.setitem(sys.modules, "transformers.loss.loss_rt_detr", None)
    found = source.supervise(emission, scene)
    assert isinstance(found, Missing)
    assert "this release of transformers does not show its matcher" in found.reason


# ---------------------------------------------------------------- classes, and what is refused


def test_names_come_from_the_model_or_from_the_user(build, scene_of):
    (model, processor), scene = build("detr"), scene_of()
    model.config.id2label = {0: "boat", 1: "car", 2: "dock"}
    whole = adapt(model, processor=processor)
    part = adapt(model, ["pier", "ship"], [2, 0], processor=processor)
    assert (whole.classes, part.classes) == (("boat", "car", "dock"), ("pier", "ship"))
    one, two = whole.emit(scene), part.emit(scene)
    assert torch.equal(two.scores, one.scores[[2, 0]])
    few = replace(scene, labels=torch.tensor([0, 1, 0, 1]))
    same = replace(scene, labels=torch.tensor([2, 0, 2, 0]))
    assert torch.equal(part.supervise(two, few).cell, whole.supervise(one, same).cell)
    with pytest.raises(UserError, match=r"DetrForObjectDetection knows labels 0..2 and 2 classes are named"):
        adapt(model, ["pier", "ship"], processor=processor)


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS, "yolos"])
def test_the_model_is_shown_another_picture(kind, build, scene_of):
    (model, processor), scene = build(kind), scene_of()
    source = adapt(model, processor=processor)
    before = source.emit(scene).scores
    exchanged = source.through(lambda image: image.flip(0)).emit(scene).scores
    torch.testing.assert_close(exchanged, source.emit(replace(scene, image=scene.image.flip(0))).scores)
    assert float((exchanged - before).abs().max()) > 1e-3
    darker = source.through(lambda image: image / 255).emit(scene).scores
    assert torch.equal(source.emit(scene).scores, before)  # the source itself sees what it saw
    processor.rescale_factor /= 255
    torch.testing.assert_close(darker, source.emit(scene).scores)
    undone = source.through(lambda image: image * 255).emit(scene).scores  # 255 times what float32 lost near black
    torch.testing.assert_close(undone, before, atol=255 * 1e-5, rtol=0)


def test_a_processor_that_does_not_say_what_it_does_is_missing(build, scene_of):
    model, processor = build("detr")
    source = adapt(model, processor=lambda **given: processor(**given))
    assert source.emit(scene_of()).cells == 40
    assert source.through(lambda image: image) == Missing(
        "function does not say what it does: do_rescale, rescale_factor, do_normalize, image_mean, image_std"
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stays_as_it_was(kind, training, build, scene_of, left_alone):
    (model, processor), scene = build(kind), scene_of()
    want = adapt(model, processor=processor).emit(scene).scores
    model.train(training)
    with left_alone(model):
        source = adapt(model, processor=processor)
        emission = source.emit(scene)
        source.supervise(emission, scene)
    assert torch.equal(emission.scores, want)
    assert not emission.boxes.requires_grad


def test_what_does_not_fit_is_refused(build, scene_of):
    (model, processor), scene = build("rt"), scene_of()
    source = detr_source(model, processor=processor)
    with pytest.raises(ValueError, match=r"scene 0: a detector of RGB images, got an image \[1, 90, 130\]"):
        source.emit(replace(scene, image=scene.image[:1]))
    with pytest.raises(ValueError, match=r"has a label outside 0..2"):
        source.supervise(source.emit(scene), replace(scene, labels=scene.labels + 3))
    with pytest.raises(UserError, match=r"RTDetrForObjectDetection: give its image processor \(processor=\)"):
        detr_source(model)
    with pytest.raises(UserError, match=r"Linear is none of DetrForObjectDetection, .*docs/diagnose-any-detector.md"):
        detr_source(nn.Linear(1, 1), processor=processor)
    model.config.use_focal_loss = False
    with pytest.raises(UserError, match=r"use_focal_loss=False has no adapter"):
        detr_source(model, processor=processor)
