"""Systems A and B: the frozen side, the terms of the loss by hand, and what is trained and what is not."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from boresight.core.errors import UserError
from boresight.core.types import DenseOutput, DenseTargets, Scene, View
from boresight.decode.boxes import BoxDecoder
from boresight.decode.fusion import Fusion
from boresight.detectors.frozen_maps import FrozenMaps
from boresight.detectors.gt_class import GtClass
from boresight.detectors.text_query import BoxAssigner, TextCriterion, TextQuery, without_scores
from boresight.features.calibrate import fit_calibration
from boresight.features.class_maps import min_max, similarity
from boresight.features.clip import FrozenClip, Preprocess
from boresight.features.clip_text import AERIAL_TEMPLATES, TextEncoder
from boresight.features.frozen import FrozenFeatures, MemoryStore
from boresight.features.pyramid import SmallPyramid
from boresight.features.rgb import NormalisedRgb
from boresight.heads.learned_queries import LearnedQueries
from boresight.heads.text_query import TextQueryHead
from boresight.losses.classification import bce, focal
from boresight.targets.dense import hard
from boresight.targets.inside import Inside

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
QUERIES = ("ship", "storage tank|oil tank")
MIRROR = torch.tensor([[-1.0, 0.0, 64.0], [0.0, 1.0, 0.0]])


def make_clip(seed: int = 0) -> FrozenClip:
    """A model of our own, made by open_clip, with weights large enough for maps that are not flat."""
    import open_clip
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    model = CLIP(**copy.deepcopy(CONFIG))
    with torch.no_grad():
        for name, value in model.visual.named_parameters():
            if name.endswith(("in_proj_weight", "ln_1.weight", "ln_post.weight")):
                value.add_(torch.randn_like(value) * 0.3)
    own = {"tokenizer": open_clip.tokenize, "preprocess": Preprocess(), "name": "tiny", "activation": "gelu"}
    return FrozenClip(model, config=CONFIG, **own)


@pytest.fixture(scope="module")
def clip() -> FrozenClip:
    return make_clip()


def frozen_maps(clip, queries=QUERIES, *, layers=(1, 2), compare=None, **more) -> FrozenMaps:
    features = FrozenFeatures(clip, MemoryStore(100), method="naclip", layers=layers)
    compare = compare or partial(similarity, method="naclip")
    return FrozenMaps(features, TextEncoder(clip), queries, compare, templates=AERIAL_TEMPLATES, **more)


def scene(seed=0, size=(64, 64), boxes=((4.0, 6.0, 40.0, 30.0),), labels=(0,), **more) -> Scene:
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Scene(image, f"frame {seed}", seed, boxes=truth, labels=torch.tensor(labels, dtype=torch.long), **more)


def empty(seed=0, **more) -> Scene:
    return scene(seed, boxes=(), labels=(), **more)


def mirrored(source: Scene) -> Scene:
    return Scene(source.image.flip(-1), source.name, view=View(source, MIRROR))


# --- the frozen side -------------------------------------------------------------------------------------------------


def test_maps_have_the_grid_that_is_asked_for(clip):
    maps = frozen_maps(clip)
    found = maps([scene(0), scene(1)], 8, 6, 8.0)
    assert found.cam.shape == found.evidence.shape == (2, 2, 8, 6)
    assert found.presence.shape == (2, 2)
    assert found.dense.read().shape == (2, 2 * 32, 8, 6)
    assert frozen_maps(clip, layers=())([scene(0)], 8, 8, 8.0).dense is None
    assert not any(t.requires_grad for t in (found.cam, found.evidence, found.presence, found.dense.read()))


def test_the_evidence_is_the_class_map_through_slope_and_centre(clip):
    """On the encoder's own grid nothing is resampled, and every number can be worked out."""
    maps = frozen_maps(clip)
    maps.calibration.copy_(torch.tensor([3.0, 0.2, 5.0, 0.1]))
    features = clip.encode(scene(0).image[None])
    raw = similarity(features, maps.text, method="naclip")
    found = maps([scene(0)], 4, 4, 16.0)
    assert torch.allclose(found.evidence, 3.0 * (raw - 0.2), atol=1e-5)
    assert torch.allclose(found.cam, found.evidence.sigmoid(), atol=1e-6)
    assert torch.allclose(found.presence, 5.0 * (features.pooled @ maps.text.T - 0.1), atol=1e-5)


def test_min_max_stretches_every_class_and_calibrated_does_not(clip):
    stretched, plain = frozen_maps(clip, map_rule="min_max"), frozen_maps(clip)
    one, two = stretched([scene(0)], 4, 4, 16.0), plain([scene(0)], 4, 4, 16.0)
    assert one.cam.amax((-2, -1)).tolist() == [[1.0, 1.0]]
    assert one.cam.amin((-2, -1)).tolist() == [[0.0, 0.0]]
    assert torch.allclose(one.cam, min_max(one.evidence), atol=1e-5)
    assert torch.equal(one.evidence, two.evidence)
    assert torch.equal(one.dense.read(), two.dense.read())
    assert two.cam.amax() < 1


@pytest.mark.parametrize("rule", ["calibrated", "min_max"])
def test_a_view_sees_the_mirrored_maps_of_its_source(clip, rule):
    maps, source = frozen_maps(clip, map_rule=rule), scene(0)
    whole, calls = maps([source], 8, 8, 8.0), clip.calls
    view = maps([mirrored(source)], 8, 8, 8.0)
    assert clip.calls == calls
    assert torch.allclose(view.cam, whole.cam.flip(-1), atol=1e-5)
    assert torch.allclose(view.evidence, whole.evidence.flip(-1), atol=1e-5)
    assert torch.allclose(view.dense.read(), whole.dense.read().flip(-1), atol=1e-5)
    assert torch.equal(view.presence, whole.presence)
    assert not torch.allclose(view.cam, whole.cam, atol=1e-3)


def test_a_crop_sees_its_part_of_the_source(clip):
    maps, source = frozen_maps(clip), scene(0)
    part = View(source, torch.tensor([[1.0, 0.0, 16.0], [0.0, 1.0, 32.0]]))
    cut = maps([Scene(source.image[:, 32:, 16:48], "cut", view=part)], 4, 4, 8.0)
    assert torch.allclose(cut.evidence, maps([source], 8, 8, 8.0).evidence[..., 4:, 2:6], atol=1e-5)


def test_other_queries_can_be_asked(clip):
    maps = frozen_maps(clip)
    before = maps([scene(0)], 8, 8, 8.0)
    maps.ask(["bridge", "storage tank|oil tank", "ship"])
    after = maps([scene(0)], 8, 8, 8.0)
    assert after.evidence.shape == (1, 3, 8, 8)
    assert torch.allclose(after.evidence[:, [2, 1]], before.evidence, atol=1e-5)  # no query knows of the others
    assert not torch.allclose(after.evidence[:, 0], after.evidence[:, 2], atol=1e-3)
    with pytest.raises(UserError, match="no word"):
        maps.ask(["ship", " "])
    assert len(maps.text) == 3


def test_queries_that_are_nearly_one_are_named_closest_first(clip):
    maps = frozen_maps(clip, ("ship", "red ship", "barge", "car"))
    maps.text = F.normalize(torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 1.0, 0.2]]), dim=-1)
    found = maps.alike(0.9)
    assert [(a, b) for a, b, _ in found] == [("ship", "red ship"), ("barge", "car")]
    assert [c for *_, c in found] == pytest.approx([1 / 1.01**0.5, 1 / 1.05**0.5], abs=1e-6)
    assert frozen_maps(clip, ("ship",)).alike(-1.0) == []
    same = frozen_maps(clip, ("ship", "car"))
    same.ask(("dock", "dock"))
    assert same.alike() == [("dock", "dock", pytest.approx(1.0))]


def test_a_copy_shares_the_features_and_keeps_its_own_queries(clip):
    maps = frozen_maps(clip)
    other = copy.deepcopy(maps)
    assert other.features is maps.features
    other.ask(["bridge"])
    assert len(maps.text) == 2
    maps([scene(0)], 8, 8, 8.0)
    calls = clip.calls
    other([scene(0)], 8, 8, 8.0)
    assert clip.calls == calls
    fresh = frozen_maps(clip)
    fresh.share(maps)
    fresh([scene(0)], 8, 8, 8.0)
    assert clip.calls == calls


def test_what_is_stored_holds_no_weight_of_the_encoder(clip):
    maps = frozen_maps(clip)
    assert set(maps.state_dict()) == {"text", "empty", "calibration"}
    assert list(maps.parameters()) == []


def test_the_fingerprint_is_measured():
    own = make_clip()
    maps = frozen_maps(own)
    before = maps.fingerprint
    assert before == own.fingerprint == make_clip().fingerprint
    with torch.no_grad():
        own.model.visual.proj[0, 0] += 1e-3
    assert maps.fingerprint != before


# --- calibration -----------------------------------------------------------------------------------------------------


def painted(features, text, *, empty):
    """Always the same class map: 1 in the left half for the first class, noise for the others."""
    noise = torch.rand(1, len(text), 4, 4, generator=torch.Generator().manual_seed(1))
    noise[:, 0, :, :2] += 1.0
    return noise


def test_calibration_is_the_fit_on_cells_inside_the_boxes(clip):
    """Cells of 16 px: the centres 8 and 24 lie left of 32, and those of the rows 8, 24 and 40 above 41."""
    left = scene(0, boxes=((0.0, 0.0, 32.0, 41.0),))
    maps = frozen_maps(clip, compare=painted)
    maps.calibrate([left, scene(1, boxes=((20.0, 20.0, 30.0, 30.0),), labels=(1,))])
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, :3, :2] = True
    masks[1, 1, 1, 1] = True
    pooled = [clip.encode(scene(i).image[None]).pooled @ maps.text.T for i in range(2)]
    raw = painted(None, maps.text, empty=None)[0]
    want = fit_calibration([raw, raw], list(masks), torch.cat(pooled), torch.eye(2).bool())
    have = maps.calibration.tolist()
    assert have == pytest.approx([want.a, want.b, want.presence_a, want.presence_b], rel=1e-3, abs=1e-5)
    assert have[0] > 0


def test_only_the_first_scenes_with_objects_are_looked_at(clip):
    seen = []

    def watched(features, text, *, empty):
        seen.append(1)
        return painted(features, text, empty=empty)

    maps = frozen_maps(clip, compare=watched, frames=2)
    maps.calibrate([empty(0), scene(1), empty(2), replace(scene(3), boxes=None, labels=None), scene(4), scene(5)])
    assert len(seen) == 2


def test_what_is_not_labelled_everywhere_is_not_counted_as_absent(clip):
    """The second class is not labelled in the second scene: neither its map nor its presence there says anything."""
    partly = scene(1, boxes=((0.0, 0.0, 32.0, 41.0),), exhaustive=torch.tensor([True, False]))
    first, whole = scene(0, boxes=((0.0, 0.0, 32.0, 41.0),)), scene(1, boxes=((0.0, 0.0, 32.0, 41.0),))
    found = []
    for second in (partly, whole):
        maps = frozen_maps(clip, compare=painted)
        maps.calibrate([first, second])
        found.append(maps.calibration.tolist())
    assert found[0] != pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("scenes", [[], [empty(0), empty(1)], [replace(empty(0), boxes=None, labels=None)]])
def test_scenes_without_objects_cannot_calibrate(clip, scenes):
    maps = frozen_maps(clip)
    before = maps.calibration.clone()
    with pytest.raises(UserError, match="hold no object"):
        maps.calibrate(scenes)
    assert torch.equal(maps.calibration, before)


# --- the detector ----------------------------------------------------------------------------------------------------


def detector(clip, kind=TextQuery, *, fusion=Fusion(), rule=None, head=None, learned=None, **criterion):  # noqa: B008 (frozen)
    """A tiny detector; ``head`` and ``criterion`` are keywords of theirs."""
    torch.manual_seed(0)
    maps = frozen_maps(clip)
    encoder = NormalisedRgb(SmallPyramid((4, 6, 8, 8), 8, finest=3, inputs=3))
    settings = {"width": 8, "embed": 8, "depth": 1, "learned_fusion": fusion.name == "learned"} | (head or {})
    text_head = TextQueryHead(8, 2 * 32, 24, **settings)
    loss = TextCriterion(focal(), fusion=fusion, **criterion)
    assigner = BoxAssigner(rule or Inside(None), hard)
    return kind(maps, encoder, text_head, assigner, loss, fusion, BoxDecoder(), learned=learned)


BOTH = {"quality": True, "objectness": True}
EVERYTHING = {
    "fusion": Fusion("product", quality=0.5, objectness=True),
    "head": BOTH,
    "quality": 0.5,
    "objectness": 0.5,
}
LOCALISE = {"kind": GtClass, "fusion": Fusion("raw"), "head": {"score": False, "box": "conditioned"}}


def test_what_is_emitted(clip):
    made = detector(clip).eval()
    scenes = [scene(0), scene(1, size=(40, 70))]
    output = made(scenes)
    assert output.logits.shape == (2, 2, 8, 10)
    assert output.boxes.shape == (2, 2, 8, 10, 4)
    assert output.boxes.stride(1) == 0
    assert output.stride == 8.0
    assert output.sizes == ((64, 64), (40, 70))
    assert output.quality is None
    assert output.objectness is None
    assert output.cam.shape == output.logits.shape
    assert ((output.cam >= 0) & (output.cam <= 1)).all()
    frozen = made.maps(scenes, 8, 10, 8.0)
    assert torch.equal(output.cam, frozen.cam)
    assert torch.equal(output.presence, frozen.presence.sigmoid())


def test_quality_and_objectness_are_one_a_cell_and_shown_to_every_class(clip):
    output = detector(clip, **EVERYTHING).eval()([scene(0)])
    assert output.quality.shape == output.objectness.shape == output.logits.shape
    assert torch.equal(output.quality[:, 0], output.quality[:, 1])
    assert torch.equal(output.objectness[:, 0], output.objectness[:, 1])
    assert ((output.quality > 0) & (output.quality < 1)).all()
    assert (output.objectness < 0).any()  # logits, not shares


def test_an_image_that_is_not_rgb_is_named(clip):
    gray = Scene(torch.zeros(1, 32, 32), "a.png")
    with pytest.raises(ValueError, match=r"a\.png: text queries read RGB, got an image of shape \[1, 32, 32\]"):
        detector(clip)([scene(0), gray])


def test_a_detector_asked_for_others_answers_them(clip):
    made = detector(clip).eval()
    before = made([scene(0)])
    made.ask(["bridge", *QUERIES])
    after = made([scene(0)])
    assert torch.allclose(after.logits[:, 1:], before.logits, atol=1e-5)
    assert after.presence.shape == (1, 3)
    assert set(made.decode(after)[0].labels.tolist()) <= {0, 1, 2}


def test_what_is_learned_of_a_query_is_found_by_its_words(clip):
    """Asked for others as well, in another order: the trained ones answer as before, the others from words alone."""
    made = detector(clip, learned=LearnedQueries(len(QUERIES), 24)).eval()
    plain = made([scene(0)]).logits
    with torch.no_grad():
        made.learned.own.copy_(torch.randn(len(QUERIES), 24, generator=torch.Generator().manual_seed(2)) * 3)
    before = made([scene(0)]).logits
    assert (before - plain).abs().amax((0, 2, 3)).min() > 1e-4
    made.ask([QUERIES[1], "bridge", QUERIES[0]])
    after = made([scene(0)]).logits
    assert torch.allclose(after[:, [2, 0]], before, atol=1e-5)
    words = detector(clip).eval()
    words.ask(["bridge"])
    assert torch.allclose(after[:, 1], words([scene(0)]).logits[:, 0], atol=1e-5)


def test_a_detector_says_which_queries_it_cannot_tell_apart(clip):
    made = detector(clip)
    made.maps.ask(("dock", "dock", "dock", "ship"))
    (told,) = made.remarks[len(clip.notes) :]
    assert told.startswith(
        "`dock` and `dock`, and 2 more pairs, are nearly one to the frozen text encoder (cosine 1.00)"
    )
    assert "`head.learn_queries`" in told
    assert "`data.queries`" in told
    made.learned = LearnedQueries(4, 24)
    assert made.remarks == clip.notes


def test_what_is_kept_of_a_detector_is_what_is_trained_and_measured(clip):
    made = detector(clip)
    mine = {name.partition(".")[0] for name in made.state_dict()}
    assert mine == {"maps", "encoder", "head"}
    assert {n for n in made.state_dict() if n.startswith("maps.")} == {"maps.text", "maps.empty", "maps.calibration"}
    assert made.frozen == {"clip": clip.fingerprint}
    average = AveragedModel(made)
    assert average.module.maps.features is made.maps.features


def test_prepare_calibrates(clip):
    made = detector(clip)
    before = made.maps.calibration.clone()
    made.prepare([scene(0), scene(1, labels=(1,))])
    assert not torch.equal(made.maps.calibration, before)


def test_scenes_without_truth_are_refused(clip):
    made = detector(clip)
    scenes = [scene(0), replace(scene(1), boxes=None, labels=None)]
    with pytest.raises(ValueError, match="frame 1 has no box truth"):
        made.assign(made(scenes), scenes)


def test_the_rule_sees_the_score_that_is_emitted(clip):
    seen = []

    class Watching(Inside):
        def __call__(self, output, score, objects, progress):
            seen.append((score, progress))
            return super().__call__(output, score, objects, progress)

    made = detector(clip, fusion=Fusion("product"), rule=Watching(None))
    made.progress = 0.25
    output = made([scene(0)])
    made.assign(output, [scene(0)])
    ((score, progress),) = seen
    assert torch.allclose(score, output.logits.sigmoid() * output.cam, atol=1e-6)
    assert not score.requires_grad
    assert progress == 0.25


@pytest.mark.parametrize(
    "parts",
    [{}, EVERYTHING, LOCALISE, {"learned": LearnedQueries(2, 24)}],
    ids=["learned", "everything", "localise", "learned queries"],
)
@pytest.mark.parametrize("scenes", [[scene(0), scene(1, labels=(1,))], [empty(0)], [empty(0), scene(1)]])
def test_gradients_reach_all_that_is_trained_and_never_the_encoder(clip, parts, scenes):
    made = detector(clip, **parts).train()
    output = made(scenes)
    targets = made.assign(output, scenes)
    terms = made.loss(output, targets)
    assert all(t.isfinite() and t.shape == () for t in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for name, p in made.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    if len(targets.objects):
        for part in (made.encoder, made.head.box_tower, made.head.dense):
            assert any(p.grad.abs().sum() > 0 for p in part.parameters())
    assert not clip.model.training
    held = list(clip.model.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in held)
    mine = {id(p) for p in made.parameters()}
    assert not any(id(p) in mine for p in held)


def test_a_map_that_nobody_resized_decodes_without_sizes(clip):
    made = detector(clip).eval()
    with torch.no_grad():
        output = made([scene(0)])
    (one,), (two,) = made.decode(output), made.decode(replace(output, sizes=()))
    assert len(one)
    assert torch.equal(one.boxes, two.boxes)


# --- the terms, by hand ----------------------------------------------------------------------------------------------


def given(logits, boxes, **more) -> DenseOutput:
    """One image, two classes, one row: ``logits [2, N]`` and a box a cell."""
    logits = torch.tensor(logits, dtype=torch.float32)[None, :, None]
    boxes = torch.tensor(boxes, dtype=torch.float32)[None, None, None].expand(*logits.shape, 4)
    more = {
        k: torch.tensor(v, dtype=torch.float32).expand(*logits.shape[1:2], -1)[None, :, None] for k, v in more.items()
    }
    return DenseOutput(logits, boxes, 8.0, **more)


def wanted(matched, objects, *, positive=None, ignore=None, normaliser=None) -> DenseTargets:
    """``matched [2, N]``; positive where matched unless said otherwise."""
    matched = torch.tensor(matched)[None, :, None]
    positive = matched >= 0 if positive is None else torch.tensor(positive, dtype=torch.bool)[None, :, None]
    ignore = torch.zeros_like(positive) if ignore is None else torch.tensor(ignore, dtype=torch.bool)[None, :, None]
    objects = torch.tensor(objects, dtype=torch.float32).reshape(-1, 4)
    n = len(objects)
    total = torch.tensor(float(n if normaliser is None else normaliser))
    labels, counted = torch.zeros(n, dtype=torch.long), torch.ones(n, dtype=torch.bool)
    return DenseTargets(positive, matched, positive.float(), ignore, objects, labels, counted, total)


SQUARE, TALL = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]  # IoU 0.5


def test_the_score_loss_acts_on_what_is_emitted_or_on_the_raw_part():
    """A raw score of 1/2 and a class map of 1/2 emit 1/4."""
    output = given([[0.0, 0.0], [0.0, 0.0]], [SQUARE, SQUARE], cam=[0.5, 0.5])
    targets = wanted([[0, -1], [-1, -1]], [SQUARE])
    fusion = Fusion("product")
    raw = TextCriterion(bce, on="raw", fusion=fusion)(output, targets)["cls"]
    emitted = TextCriterion(bce, on="emitted", fusion=fusion)(output, targets)["cls"]
    assert float(raw) == pytest.approx(-4 * math.log(0.5), rel=1e-5)
    assert float(emitted) == pytest.approx(-math.log(0.25) - 3 * math.log(0.75), rel=1e-5)


def test_the_score_loss_leaves_out_what_is_unknown_and_is_shared_among_objects():
    output = given([[0.0, 0.0], [0.0, 0.0]], [SQUARE, SQUARE])
    targets = wanted([[0, -1], [-1, -1]], [SQUARE, TALL], ignore=[[0, 0], [0, 1]])
    term = TextCriterion(bce, cls=3.0)(output, targets)["cls"]
    assert float(term) == pytest.approx(3.0 * 3 * math.log(2) / 2, rel=1e-5)


def test_box_terms_by_hand():
    """A box of half the object: GIoU 0.5 (the hull is the object), one edge off by half the height."""
    output = given([[0.0], [0.0]], [SQUARE])
    terms = TextCriterion(bce, cls=0.0, l1=1.0, giou=2.0)(output, wanted([[0], [-1]], [TALL]))
    assert set(terms) == {"l1", "giou"}
    assert float(terms["giou"]) == pytest.approx(2.0 * 0.5, rel=1e-5)
    twice = TextCriterion(bce, cls=0.0, l1=2.0, giou=2.0)(output, wanted([[0], [-1]], [TALL]))
    assert float(twice["l1"]) == pytest.approx(2 * float(terms["l1"]), rel=1e-5)
    assert float(terms["l1"]) > 0


def test_the_quality_is_held_to_the_iou_that_the_box_reaches():
    """Two cells of one object (IoU 1 and 1/2) share its weight; another object has a cell of its own."""
    output = given([[0.0, 0.0], [0.0, 0.0]], [SQUARE, TALL], quality=[0.8, 0.6])
    criterion = TextCriterion(bce, cls=0.0, quality=1.0)
    first = (-math.log(0.8) - (0.5 * math.log(0.6) + 0.5 * math.log(0.4))) / 2
    term = criterion(output, wanted([[0, 0], [-1, -1]], [SQUARE]))["quality"]
    assert float(term) == pytest.approx(first, rel=1e-5)
    term = criterion(output, wanted([[0, 0], [-1, 1]], [SQUARE, TALL]))["quality"]
    assert float(term) == pytest.approx((first - math.log(0.6)) / 2, rel=1e-5)
    one = criterion(output, wanted([[0, 0], [-1, -1]], [SQUARE], ignore=[[0, 1], [0, 0]]))["quality"]
    assert float(one) == pytest.approx(-math.log(0.8), rel=1e-5)


def test_the_quality_teaches_the_quality_and_not_the_box():
    output = given([[0.0], [0.0]], [TALL])
    boxes, quality = output.boxes.clone().requires_grad_(), torch.full((1, 2, 1, 1), 0.9, requires_grad=True)
    output = replace(output, boxes=boxes, quality=quality)
    criterion = TextCriterion(bce, cls=0.0, l1=0.0, giou=0.0, quality=1.0)
    criterion(output, wanted([[0], [-1]], [SQUARE]))["quality"].backward()
    assert boxes.grad is None
    assert float(quality.grad.sum()) > 0  # 0.9 is more than the 0.5 that is reached


def test_objectness_asks_for_an_object_of_any_class():
    """Cell 0 holds the second class, cell 1 nothing; in cell 2 the second class is unknown, and so is the cell."""
    x = [0.3, -0.4, 5.0]
    output = given([[0.0] * 3] * 2, [SQUARE] * 3, objectness=x)
    targets = wanted([[-1] * 3, [0, -1, -1]], [SQUARE], ignore=[[1, 0, 0], [0, 0, 1]])
    term = TextCriterion(bce, cls=0.0, objectness=2.0)(output, targets)["objectness"]
    want = math.log1p(math.exp(-x[0])) + math.log1p(math.exp(x[1]))
    assert float(term) == pytest.approx(2.0 * want, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({}, {"cls", "l1", "giou"}),
        ({"cls": 0.0}, {"l1", "giou"}),
        ({"quality": 0.5}, {"cls", "l1", "giou", "quality"}),
        ({"objectness": 0.5}, {"cls", "l1", "giou", "objectness"}),
        ({"cls": 0.0, "objectness": 0.1, "quality": 0.1}, {"l1", "giou", "objectness", "quality"}),
    ],
)
def test_a_term_of_no_weight_is_not_there(weights, names):
    output = given([[0.0], [0.0]], [SQUARE], quality=[0.5], objectness=[0.0])
    for targets in (wanted([[0], [-1]], [TALL]), wanted([[-1], [-1]], [])):
        terms = TextCriterion(bce, **weights)(output, targets)
        assert set(terms) == names
        assert all(t.isfinite() for t in terms.values())


# --- localisation alone ----------------------------------------------------------------------------------------------


def test_localisation_learns_no_score(clip):
    made = detector(clip, **LOCALISE)
    assert not [n for n, _ in made.named_parameters() if "score" in n or "query" in n or "objectness" in n]
    output = made([scene(0)])
    assert torch.equal(output.logits, made.maps([scene(0)], 8, 8, 8.0).evidence)
    assert not output.logits.requires_grad
    assert output.boxes.requires_grad
    assert set(made.loss(output, made.assign(output, [scene(0)]))) == {"l1", "giou"}


def test_localisation_may_learn_the_quality_of_its_boxes(clip):
    head = LOCALISE["head"] | {"quality": True}
    made = detector(clip, **(LOCALISE | {"head": head, "fusion": Fusion("raw", quality=1.0)}), quality=0.5)
    output = made([scene(0)])
    assert set(made.loss(output, made.assign(output, [scene(0)]))) == {"l1", "giou", "quality"}


def test_boxes_are_trained_on_the_channel_of_the_true_class(clip):
    made = detector(clip, **LOCALISE)
    scenes = [scene(0, labels=(1,))]
    targets = made.assign(made(scenes), scenes)
    assert (targets.matched[:, 1] >= 0).any()
    assert (targets.matched[:, 0] == -1).all()


def test_a_head_that_learns_a_score_cannot_judge_localisation(clip):
    with pytest.raises(ValueError, match="score=False"):
        detector(clip, GtClass)


def test_only_scores_are_taken_out_of_the_criterion():
    whole = TextCriterion(bce, cls=2.0, l1=3.0, giou=4.0, objectness=5.0, quality=6.0)
    assert without_scores(whole) == replace(whole, cls=0.0, objectness=0.0)
