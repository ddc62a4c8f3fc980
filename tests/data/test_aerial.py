from __future__ import annotations

import colorsys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from boresight.core.errors import UserError
from boresight.data import aerial as module
from boresight.data.aerial import COLOURS, KINDS, Aerial, AerialSettings, compositions, held_out, paint
from boresight.data.aerial_ground import GROUNDS, lay_ground, noise_fields, paint_ground
from boresight.data.aerial_layout import (
    CLEARLY_VISIBLE,
    LEAST_VISIBLE,
    Placed,
    place_cover,
    tight,
    visible_parts,
)
from boresight.data.aerial_paint import blend, shade
from boresight.data.aerial_pen import Light, Patch, Pen, named_colour
from boresight.data.aerial_shapes import draw_object

SMALL = {"height": 128, "width": 160, "scale": (14.0, 40.0)}


def small(**changes: Any) -> AerialSettings:
    return AerialSettings(**{**SMALL, **changes})


@lru_cache(maxsize=2)
def many(novel: bool) -> tuple[Any, ...]:
    """The objects of 300 training scenes or 200 test scenes, without pixels."""
    scenes = Aerial(small(), count=200 if novel else 300, seed=9, novel=novel)
    return tuple(scenes.objects(i) for i in range(len(scenes)))


# A scene is a pure function of (settings, seed, index)


def test_same_seed_and_index_give_the_same_scene() -> None:
    one, two = (Aerial(small(), count=5, seed=3, novel=True) for _ in range(2))
    a, b = [one[i] for i in range(5)], {i: two[i] for i in (4, 1, 3, 0, 2)}  # the order of asking does not matter
    for i in range(5):
        assert torch.equal(a[i].image, b[i].image)
        assert torch.equal(a[i].boxes, b[i].boxes)
        assert one.objects(i) == two.objects(i)
        assert one.captions(i, 3) == two.captions(i, 3)
    assert not torch.equal(a[0].image, a[1].image)
    assert not torch.equal(a[0].image, Aerial(small(), count=1, seed=4, novel=True)[0].image)


def test_first_shifts_the_sequence() -> None:
    whole, tail = (Aerial(small(), count=c, seed=2, first=f, novel=False) for c, f in ((6, 0), (2, 4)))
    assert tail.names == whole.names[4:] == ["aerial_2_000004", "aerial_2_000005"]
    assert [s.image_id for s in tail] == [5, 6]
    assert torch.equal(tail[1].image, whole[5].image)
    assert tail.captions(1, 2) == whole.captions(5, 2)


def test_a_scene_is_well_formed() -> None:
    scenes = Aerial(small(), count=12, novel=True)
    assert len(scenes) == 12
    for i, scene in enumerate(scenes):
        assert scene.image.shape == (3, 128, 160)
        assert scene.image.dtype == torch.uint8
        truth = scenes.objects(i)
        assert scene.boxes.tolist() == [list(map(float, m.box)) for m in truth]
        assert [scenes.classes[k] for k in scene.labels.tolist()] == [f"{m.colour} {m.kind}" for m in truth]
        assert scene.ignore.tolist() == [m.ignore for m in truth]
        assert all(0 <= x0 < x1 <= 160 and 0 <= y0 < y1 <= 128 for x0, y0, x1, y1 in scene.boxes.tolist())
        assert {m.ground for m in truth} <= set(GROUNDS)
    for wrong in (12, -1):
        with pytest.raises(IndexError):
            scenes[wrong]


def test_empty_scenes_have_empty_truth() -> None:
    scenes = Aerial(small(empty_share=1.0), count=2, novel=False)
    assert scenes[0].boxes.shape == (0, 4)
    assert len(scenes[0].labels) == len(scenes[0].ignore) == 0
    assert scenes.masks(0).shape == (0, 128, 160)


def test_captions_keep_when_more_are_asked_for() -> None:
    scenes = Aerial(small(), count=2, novel=False)
    assert scenes.captions(1, 5)[:2] == scenes.captions(1, 2)
    assert scenes.caption(1) == scenes.captions(1, 1)[0]
    assert len(set(scenes.captions(1, 5))) > 1


def test_bad_arguments() -> None:
    for key in ("count", "seed", "first"):
        with pytest.raises(UserError, match=f"aerial {key}: -1 must not be negative"):
            Aerial(small(), **{"count": 1, **{key: -1}}, novel=False)
    with pytest.raises(UserError, match=r"aerial.objects: 90 do not fit into 160x128"):
        Aerial(small(objects=(90, 90), empty_share=0.0), count=1, novel=False)[0]


# What training never sees


def test_training_never_shows_what_is_held_out_and_the_test_shows_all() -> None:
    assert not {f"{m.colour} {m.kind}" for made in many(False) for m in made} & held_out()
    shown = Counter(f"{m.colour} {m.kind}" for made in many(True) for m in made)
    assert set(shown) == set(compositions())
    novel = sum(shown[name] for name in held_out()) / shown.total()
    assert 0.14 < novel < 0.27  # ten of fifty: 0.2 of the draws
    assert max(shown.values()) < 6 * min(shown.values())


def test_split_names() -> None:
    pairs, kinds = (Aerial(small(classes=c), count=1, novel=True) for c in ("compositions", "kinds"))
    assert pairs.classes == compositions()
    assert set(pairs.held_out) == held_out()
    assert set(pairs.base) == set(compositions()) - held_out()
    assert (kinds.classes, kinds.base, kinds.held_out) == (KINDS, KINDS, ())
    free = Aerial(small(hold_out=False), count=1, novel=False)
    assert (free.base, free.held_out) == (compositions(), ())


def test_novel_share_is_kept() -> None:
    scenes = Aerial(small(novel_share=1.0), count=20, novel=True)
    assert {f"{m.colour} {m.kind}" for i in range(20) for m in scenes.objects(i)} <= held_out()
    train = Aerial(small(novel_share=1.0), count=20, novel=False)
    assert not {f"{m.colour} {m.kind}" for i in range(20) for m in train.objects(i)} & held_out()


# Truth follows from the pixels


def test_boxes_are_the_extent_of_what_the_painted_object_covers() -> None:
    """The oracle is matting: painted on white and on black, what does not change is covered."""
    settings = small(objects=(1, 1), empty_share=0.0, shadow=False, occlusion=0.5, edge_share=0.5)
    scenes = Aerial(settings, count=60, seed=1, novel=True)
    for i in range(60):
        plan = scenes.plan(i)
        seen = clear(replace(plan, objects=())) - clear(plan)  # what the object takes away from what cover lets through
        rows, columns = np.flatnonzero((seen > 0.3).any(1)), np.flatnonzero((seen > 0.3).any(0))
        (truth,) = plan.made
        assert truth.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def clear(plan: Any) -> np.ndarray:
    """How much of the ground shows at each pixel, 0..1."""
    white, black = (np.full((3, *plan.ground.region.shape), v, np.float32) for v in (255.0, 0.0))
    for image in (white, black):
        for piece in (*plan.objects, *plan.cover):
            blend(image, piece)
    return (white - black).mean(0) / 255


def test_boxes_are_the_extent_of_the_masks() -> None:
    scenes = Aerial(small(occlusion=0.4), count=20, seed=5, novel=True)
    for i in range(20):
        for mask, truth in zip(scenes.masks(i), scenes.objects(i), strict=True):
            x0, y0, x1, y1 = truth.box
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert mask[y0].any()
            assert mask[y1 - 1].any()
            assert mask[:, x0].any()
            assert mask[:, x1 - 1].any()


def test_visible_share_by_hand() -> None:
    solid = Patch(np.zeros((3, 4, 4), np.float32), np.ones((4, 4), np.float32), -2, -2)
    below, above = Placed.at(solid, 2, 2), Placed.at(solid, 4, 2)  # columns 0-3 and 2-5
    veil = Placed(Patch(np.zeros((3, 2, 8), np.float32), np.full((2, 8), 0.5, np.float32), 0, 0), 0, 0)
    (_, a), (_, b) = visible_parts([below, above], [veil], (8, 8))
    assert a == pytest.approx(0.5 * 0.75)  # the right half is covered; of the rest two rows of four are dimmed by half
    assert b == pytest.approx(0.75)
    ((part, share),) = visible_parts([Placed.at(solid, 0, 7)], [], (8, 8))
    assert share == pytest.approx(2 * 3 / 16)
    assert tight(part.patch.alpha, part.top, part.left) == (0, 5, 2, 8)
    ((_, outside),) = visible_parts([Placed.at(solid, 50, 50)], [], (8, 8))
    assert outside == 0.0


def test_the_ignore_rule() -> None:
    scenes = Aerial(small(occlusion=0.9, edge_share=0.5), count=60, seed=8, novel=True)
    shares = [m for i in range(60) for m in scenes.objects(i)]
    assert all(m.visible >= LEAST_VISIBLE for m in shares)
    assert all(m.ignore == (m.visible < CLEARLY_VISIBLE) for m in shares)
    assert 5 < sum(m.ignore for m in shares) < len(shares) / 2


def test_cover_never_hides_an_object() -> None:
    scenes = Aerial(small(occlusion=0.0), count=20, seed=8, novel=True)
    assert all(not scenes.plan(i).cover for i in range(20))
    covered = Aerial(small(occlusion=1.0), count=20, seed=8, novel=True)
    assert sum(len(covered.plan(i).cover) for i in range(20)) > 40
    assert place_cover(np.random.default_rng(0), small(occlusion=1.0), []) == []


def test_objects_hardly_overlap() -> None:
    for made in many(True):
        for k, one in enumerate(made):
            for two in made[k + 1 :]:
                wide = min(one.box[2], two.box[2]) - max(one.box[0], two.box[0])
                high = min(one.box[3], two.box[3]) - max(one.box[1], two.box[1])
                inter = max(wide, 0) * max(high, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one.box, two.box)]
                assert inter <= 0.2 * (sum(areas) - inter)  # 0.1 for whole objects; cut ones have smaller boxes


def test_ground_does_not_tell_the_kind() -> None:
    lies = {kind: Counter(m.ground for made in many(True) for m in made if m.kind == kind) for kind in KINDS}
    assert lies["ship"]["water"] > 1.5 * lies["vehicle"]["water"]  # typical ground is preferred ...
    assert all(len(grounds) >= 4 for grounds in lies.values())  # ... and never the only one


# Words are true of the pixels


@pytest.mark.parametrize("colour", COLOURS)
def test_the_median_pixel_of_an_object_has_its_colour(colour: str) -> None:
    """The oracle reads photographs and knows nothing of how colours are drawn."""
    scenes = Aerial(
        AerialSettings(colours=(colour,), occlusion=0.0, hold_out=False, shadow=False, empty_share=0.0),
        count=25, seed=3, novel=False,
    )  # fmt: skip
    seen: Counter[str] = Counter()
    for i, scene in enumerate(scenes):
        image = scene.image.numpy()
        for mask, truth in zip(scenes.masks(i), scenes.objects(i), strict=True):
            seen[truth.kind] += 1
            assert word_of(np.median(image[:, mask], axis=1)) == colour, (i, truth)
    assert set(seen) == set(KINDS)


def word_of(rgb: np.ndarray) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255).tolist())
    if value < 0.42 and saturation < 0.42:
        return "black"
    if saturation < 0.25 and value > 0.55:
        return "white"
    if saturation > 0.3:
        for name, low, high in (("blue", 195, 250), ("yellow", 38, 68)):
            if low < 360 * hue < high:
                return name
        if 360 * hue < 20 or 360 * hue > 340:
            return "red"
    return f"none: {360 * hue:.0f} {saturation:.2f} {value:.2f}"


def test_named_colours_stay_apart() -> None:
    rng = np.random.default_rng(0)
    for name in COLOURS:
        for _ in range(50):
            assert word_of(np.array(named_colour(rng, name))) == name


def test_size_words_follow_the_drawn_length() -> None:
    assert {m.size for made in many(True) for m in made} == {"small", "", "large"}
    for made in many(True):
        for m in made:
            assert m.size == small().size_word(m.kind, m.length)


# Drawing


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_has_its_length_and_differs_from_the_others(kind: str) -> None:
    rng = np.random.default_rng(1)
    patch = draw_object(rng, kind, (200.0, 40.0, 40.0), 60.0, 0.0, (0.0, 0.0))
    x0, y0, x1, y1 = tight(patch.alpha, patch.top, patch.left) or (0, 0, 0, 0)
    assert 48 <= max(x1 - x0, y1 - y0) <= 64
    assert 0 <= patch.alpha.min() <= patch.alpha.max() == 1
    turned = draw_object(np.random.default_rng(1), kind, (200.0, 40.0, 40.0), 60.0, np.pi / 2, (0.0, 0.0))
    assert turned.alpha.sum() == pytest.approx(patch.alpha.sum(), rel=0.05)  # turning keeps the area


def test_the_pen_draws_where_it_is_told() -> None:
    pen = Pen((10.0, 20.0, 30.0), 20.0, 0.0)
    pen.box(-0.5, -0.25, 0.5, 0.25, pen.main)
    patch = pen.finish(0.5)
    assert tight(patch.alpha, patch.top, patch.left) == (-10, -5, 11, 6)  # half a pixel over on each side
    assert patch.alpha.sum() == pytest.approx(200, rel=0.06)
    assert patch.height == 10.0
    assert patch.rgb[:, patch.alpha > 0].T.tolist() == [[10.0, 20.0, 30.0]] * int((patch.alpha > 0).sum())


def test_a_shadow_falls_along_the_light_and_not_deeper_than_it_says() -> None:
    post = Placed(Patch(np.zeros((3, 2, 2), np.float32), np.ones((2, 2), np.float32), 0, 0, height=6.0), 10, 10)
    image = np.full((3, 24, 24), 100.0, np.float32)
    shade(image, [post, post], Light(1.0, 0.0, 1.0, 0.4))
    dark = np.argwhere(image[0] < 99)
    assert dark.min(0).tolist() == [10, 12]
    assert dark.max(0).tolist() == [11, 17]
    assert image.min() == pytest.approx(60)
    flat = Placed(replace(post.patch, height=0.0), 10, 10)
    clean = np.full((3, 24, 24), 100.0, np.float32)
    shade(clean, [flat], Light(1.0, 0.0, 1.0, 0.4))
    assert (clean == 100).all()


def test_shadow_can_be_switched_off_and_moves_no_box() -> None:
    lit, flat = (Aerial(small(shadow=s), count=3, seed=6, novel=True) for s in (True, False))
    for i in range(3):
        assert lit.objects(i) == flat.objects(i)
    assert any(not torch.equal(lit[i].image, flat[i].image) for i in range(3))


# Ground


@pytest.mark.parametrize(("coarse", "tiles"), [(1, 1), (4, 1), (1, 2)])
def test_noise_has_mean_zero_and_rms_one(coarse: int, tiles: int) -> None:
    rng = np.random.default_rng(0)
    fields = [f for _ in range(6) for f in noise_fields(rng, (60, 90), 1.0, 6.0, coarse, tiles)]
    assert {f.shape for f in fields} == {(60, 90)}
    assert {f.dtype for f in fields} == {np.dtype(np.float32)}
    assert abs(np.mean([f.mean() for f in fields])) < 0.05
    assert np.sqrt(np.mean([f**2 for f in fields])) == pytest.approx(1, abs=0.2)


def test_regions_share_every_pixel() -> None:
    for seed in range(20):
        ground = lay_ground(np.random.default_rng(seed), (64, 96))
        assert np.allclose(sum(ground.weights), 1, atol=1e-5)
        assert ground.region.max() < len(ground.names) == len(set(ground.names))
        image = paint_ground(np.random.default_rng(seed), ground, Light(1.0, 0.0, 1.0, 0.4))
        assert image.shape == (3, 64, 96)
        assert np.isfinite(image).all()


def test_a_frame_of_any_shape_can_be_painted() -> None:
    for shape in ((64, 256), (101, 67), (300, 512)):
        settings = AerialSettings(height=shape[0], width=shape[1], scale=(10.0, 24.0))
        scenes = Aerial(settings, count=1, novel=False)
        assert scenes[0].image.shape == (3, *shape)
        again = paint(np.random.default_rng(0), np.random.default_rng(1), scenes.plan(0))
        assert 20 < again.mean() < 235
    assert set(module.__all__) <= set(dir(module))
