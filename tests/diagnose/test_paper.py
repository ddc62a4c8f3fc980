"""Three objects on a 4 x 4 grid: buckets, displacement, regret and oracles as they are on paper (`grid.py`)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boresight.core.emission import Decoding, Emission, Missing, Supervision
from boresight.core.types import Detections
from boresight.diagnose.audit import audit
from boresight.diagnose.consistency import by_distance, gap
from boresight.diagnose.control import control
from boresight.diagnose.diagnosis import diagnose, judged
from boresight.diagnose.displacement import displaced, displacement
from boresight.diagnose.emitted import BACKGROUND, INSIDE, NOWHERE, SUPERVISED, UNPLACED
from boresight.diagnose.gains import without_missed
from boresight.diagnose.likeness import BoxIou
from boresight.diagnose.oracles import without_duplicates
from boresight.diagnose.ranking import calibration, correlations, kendall, regret, spearman
from boresight.diagnose.selecting import opened
from boresight.diagnose.truth import Truth
from boresight.evaluate.estimate import Resampler

_spec = importlib.util.spec_from_file_location("diagnose_grid", Path(__file__).with_name("grid.py"))
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)
Paper, paper_scene = grid.Paper, grid.paper_scene


@pytest.fixture
def seen():
    return audit(Paper(), [paper_scene()])


@pytest.fixture
def draw(seen):
    return Resampler(seen.rows.image, 1, 10, 0)


def cells_of(rows) -> list[int]:
    return (rows.slot % 16).tolist()


def test_the_rows_are_the_emitted_boxes_best_first(seen):
    rows = seen.rows
    assert cells_of(rows) == [1, 2, 15, 0, 9, 10]
    assert rows.score.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert rows.label.tolist() == [0, 1, 1, 0, 0, 0]


def test_buckets_on_paper(seen):
    names = dict(zip(cells_of(seen.rows), seen.rows.bucket.tolist(), strict=True))
    assert names == {0: SUPERVISED, 1: INSIDE, 2: SUPERVISED, 9: SUPERVISED, 10: INSIDE, 15: BACKGROUND}


def test_fit_on_paper(seen):
    fit = dict(zip(cells_of(seen.rows), seen.rows.iou.tolist(), strict=True))
    assert fit == pytest.approx({0: 1.0, 1: 0.75, 2: 1.0, 9: 1.0, 10: 0.5, 15: 0.0})
    objects = dict(zip(cells_of(seen.rows), seen.rows.object.tolist(), strict=True))
    assert objects == {0: 0, 1: 0, 2: 1, 9: 2, 10: 2, 15: -1}


def test_a_box_of_the_wrong_class_fits_an_object_but_none_of_its_own(seen):
    scene = replace(paper_scene(), labels=torch.tensor([1, 1, 0]))
    rows = audit(Paper(), [scene]).rows
    place = cells_of(rows).index(0)
    assert rows.iou[place] == 1.0
    assert rows.own[place] < 0.01


def test_what_is_suppressed_and_by_whom(seen):
    rows = seen.rows
    kept = [c for c, k in zip(cells_of(rows), rows.kept, strict=True) if k]
    assert kept == [1, 2, 15, 9, 10]  # an overlap of 0.5 is not more than 0.5
    assert cells_of(rows)[rows.by[cells_of(rows).index(0)]] == 1
    alone = np.delete(np.arange(6), cells_of(rows).index(0))
    assert (rows.by[alone] == alone).all()


def test_rows_of_a_second_image_name_their_own_suppressor(seen):
    two = audit(Paper(), [paper_scene(), replace(paper_scene(), image_id=2)]).rows
    assert two.image.tolist() == [0] * 6 + [1] * 6
    assert (two.by[6:] - 6 == seen.rows.by).all()


def test_displacement_on_paper(seen, draw):
    lost = displaced(seen.rows)
    assert cells_of_rows(seen, lost.row) == [1]
    assert cells_of_rows(seen, lost.better) == [0]
    assert lost.lost.tolist() == pytest.approx([0.25])
    told = displacement(seen.rows, draw)
    assert (told["unsupervised"]["kept"], told["unsupervised"]["n"]) == (3, 1)
    assert told["unsupervised"]["share"]["value"] == pytest.approx(1 / 3)
    assert told["unsupervised"]["lost"]["value"] == pytest.approx(0.25)
    assert (told["supervised"]["kept"], told["supervised"]["n"]) == (2, 0)
    assert told["unsupervised"]["reached"] == 0  # both count as found


def cells_of_rows(seen, rows) -> list[int]:
    return [cells_of(seen.rows)[r] for r in rows]


def test_a_displaced_box_must_be_better_by_the_margin(seen):
    assert not len(displaced(seen.rows, margin=0.3).row)


def test_a_displaced_box_must_be_of_a_supervised_cell():
    rows = audit(Paper(trained=((2, 1), (9, 2))), [paper_scene()]).rows
    assert not len(displaced(rows).row)


def test_regret_on_paper(seen):
    objects = seen.objects
    assert objects.best.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert objects.top.tolist() == pytest.approx([0.75, 1.0, 1.0])
    assert objects.cells.tolist() == [4, 4, 4]
    assert objects.positives.tolist() == [1, 1, 1]
    assert objects.score.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert objects.best_score.tolist() == pytest.approx([0.6, 0.8, 0.5])
    told = regret(objects, Resampler(objects.image, 1, 10, 0))
    assert told["regret"]["value"] == pytest.approx(0.25 / 3)
    assert told["top_is_best"]["value"] == pytest.approx(2 / 3)


def test_an_object_without_a_trained_cell_is_starved():
    objects = audit(Paper(trained=((0, 0), (2, 1))), [paper_scene()]).objects
    assert objects.positives.tolist() == [1, 1, 0]
    assert np.isnan(objects.trained[2])


def test_coco_rule_on_the_kept(seen):
    hit, ignored = judged(seen)
    assert [c for c, h in zip(cells_of(seen.rows), hit, strict=True) if h] == [1, 2, 9]
    assert not ignored.any()


def test_the_control_looks_at_places_alone(seen):
    emission = Paper().emit(paper_scene())
    told = control(emission, paper_scene().boxes)
    assert isinstance(told, Supervision)
    assert not told.by_prediction
    moved = replace(emission, boxes=emission.boxes * 0.5, scores=1 - emission.scores)
    again = control(moved, paper_scene().boxes)
    assert torch.equal(again.cell, told.cell)
    assert torch.equal(again.object, told.object)
    centres = emission.centres[told.cell]
    boxes = paper_scene().boxes[told.object]
    assert ((centres > boxes[:, :2]) & (centres < boxes[:, 2:])).all()
    assert set(told.object.tolist()) == {0, 1, 2}


def test_without_places_there_is_no_control_and_no_inside():
    seen = audit(Paper(places=False), [paper_scene()])
    assert set(seen.rows.bucket.tolist()) == {SUPERVISED, UNPLACED}
    assert (seen.rows.control == NOWHERE).all()
    assert {"places", "control"} <= seen.missing.keys()
    assert isinstance(seen.oracles["inside_cells"], Missing)
    assert seen.objects.cells.tolist() == [2, 1, 2]  # queries whose box has a tenth of the object
    assert np.isnan(seen.rows.distance).all()


def test_without_supervision_it_is_missing_and_nothing_is_guessed():
    class Unknown(Paper):
        def supervise(self, emission, scene):
            return Missing("closed source")

    seen = audit(Unknown(), [paper_scene()])
    assert (seen.rows.bucket == NOWHERE).all()
    assert (seen.objects.positives == -1).all()
    told = diagnose(seen, replicates=10)
    assert told.figures["missing"]["supervision"] == "closed source"
    assert told.figures["displacement"] == {"missing": "closed source"}
    assert "own" not in told.figures["buckets"]
    assert "control" in told.figures["buckets"]
    assert told.figures["attribution"]["missing"]["trained_cells"] == "closed source"


def test_own_detections_stand_where_the_selection_is_not_known():
    class Returned(Paper):
        def emit(self, scene):
            emission = super().emit(scene)
            found = Detections(
                emission.boxes[0, [0, 3]], torch.tensor([0.6, 0.2]), torch.tensor([0, 0]), torch.tensor([0, -1])
            )
            return replace(emission, found=found)

    seen = audit(Returned(decoding=None), [paper_scene()])
    assert seen.rows.kept.all()
    assert seen.rows.bucket.tolist() == [SUPERVISED, NOWHERE]
    assert all(isinstance(v, Missing) for v in seen.oracles.values())
    told = diagnose(seen, replicates=10)
    assert "nothing is suppressed" in told.figures["displacement"]["missing"]


def test_neither_selection_nor_detections_is_an_error():
    with pytest.raises(ValueError, match=r"neither `Source\.decoding` nor `Emission\.found`"):
        audit(Paper(decoding=None), [paper_scene()])


def test_a_label_without_a_channel_is_an_error():
    with pytest.raises(ValueError, match=r"scene `paper` has labels 0\.\.2, the detector 2 classes"):
        audit(Paper(), [replace(paper_scene(), labels=torch.tensor([0, 1, 2]))])


def test_names_and_channels_must_agree():
    with pytest.raises(ValueError, match="2 classes are emitted, the source names 1"):
        audit(Paper(classes=("a",)), [paper_scene()])


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image to audit"):
        audit(Paper(), [])


def test_an_image_without_objects_is_all_background():
    empty = replace(paper_scene(), boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))

    class Idle(Paper):
        def supervise(self, emission, scene):
            none = torch.zeros(0, dtype=torch.long)
            return Supervision(none, none, none.bool(), by_prediction=False)

    seen = audit(Idle(), [empty])
    assert set(seen.rows.bucket.tolist()) == {BACKGROUND}
    assert (seen.rows.iou == 0).all()
    assert not len(seen.objects)
    assert diagnose(seen, replicates=10).verdict.word == "too few to tell"


def test_what_is_trained_for_a_dont_care_is_not_supervised():
    scene = replace(paper_scene(), ignore=torch.tensor([True, False, False]))
    rows = audit(Paper(), [scene]).rows
    assert dict(zip(cells_of(rows), rows.bucket.tolist(), strict=True))[0] == BACKGROUND
    assert sorted(set(rows.object.tolist())) == [-1, 0, 1]  # numbers among the two that count


def test_separation_on_paper():
    """Near objects 0.4, 0.5, 0.6, 0.8 and 0.9 are said, in the background 0.7: up to 0.6 lie three of five and none."""
    loudness = audit(Paper(), [paper_scene()]).loudness
    assert loudness.counts.sum(1).tolist() == [5, 1]
    assert loudness.separation(1) == pytest.approx(0.6)
    assert loudness.separation(2) is None
    twice = audit(Paper(), [paper_scene(), replace(paper_scene(), image_id=2, name="again")]).loudness
    assert twice.separation(2) == pytest.approx(0.6)


def test_what_nobody_hears_is_not_counted():
    class Quiet(Paper):
        def emit(self, scene):
            e = super().emit(scene)
            return replace(e, scores=e.scores + 0.04 * (e.scores == 0))  # under a twentieth of 0.9

    assert audit(Quiet(), [paper_scene()]).loudness.counts.sum(1).tolist() == [5, 1]
    nothing = replace(paper_scene(), ignore=torch.ones(3, dtype=torch.bool))
    assert audit(Paper(), [nothing]).loudness.counts.sum(1).tolist() == [0, 6]


# --- oracles ---


def found_by(seen, name) -> list[tuple[int, int]]:
    """(class, cell) of what an oracle finds, best first."""
    (found,) = seen.oracles[name]
    return [(int(s) // 16, int(s) % 16) for s in found.cell]


def test_only_trained_cells_speak(seen):
    assert found_by(seen, "trained_cells") == [(1, 2), (0, 0), (0, 9)]


def test_only_cells_in_objects_speak(seen):
    assert found_by(seen, "inside_cells") == [(0, 1), (1, 2), (0, 9), (0, 10)]


def test_a_true_score_keeps_the_better_box(seen):
    found = found_by(seen, "near_score")
    assert set(found[:3]) == {(0, 0), (1, 2), (0, 9)}
    assert found[3] == (1, 15)  # the background keeps its 0.7
    assert (0, 1) not in found
    assert found_by(seen, "score_everywhere")[:3] == found[:3]
    assert (1, 15) not in found_by(seen, "score_everywhere")


def test_true_boxes_suppress_their_duplicates(seen):
    assert found_by(seen, "box") == [(0, 1), (1, 2), (1, 15), (0, 9)]
    (found,) = seen.oracles["box"]
    assert found.boxes[0].tolist() == grid.A


def test_a_true_class_moves_the_loudest_score():
    scene = replace(paper_scene(), labels=torch.tensor([1, 1, 0]))
    found = found_by(audit(Paper(), [scene]), "class")
    assert (1, 1) in found
    assert (0, 1) not in found
    assert (1, 15) in found  # no object, no change


def test_the_background_is_silenced(seen):
    assert (1, 15) not in found_by(seen, "background")
    assert (0, 10) in found_by(seen, "background")


def test_a_cell_in_an_object_emits_its_box_however_far_its_own_lies(seen):
    class Far(Paper):
        def emit(self, scene):
            e = super().emit(scene)
            return replace(e, boxes=e.boxes * 0.01)

    (found,) = audit(Far(), [paper_scene()]).oracles["box"]
    best = {(int(s) // 16, int(s) % 16): box.tolist() for s, box in zip(found.cell, found.boxes, strict=True)}
    assert best[0, 1] == grid.A
    assert best[1, 2] == grid.B
    assert best[0, 9] == grid.C


def test_an_object_is_found_once():
    """Cells 0 and 1 both box A; the louder one (1) keeps it. Cell 10 boxes half of C, cell 9 speaks louder for it."""
    seen = audit(Paper(decoding=Decoding(threshold=0.1, nms=None)), [paper_scene()])
    assert found_by(seen, "threshold") == [(0, 1), (1, 2), (1, 15), (0, 0), (0, 9), (0, 10)]
    assert found_by(seen, "duplicates") == [(0, 1), (1, 2), (1, 15), (0, 9)]


def test_a_neighbour_is_no_duplicate():
    """Both boxes fit both objects; each takes one, and a third box is one too many."""
    scene = replace(
        paper_scene(), boxes=torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10]]), labels=torch.zeros(2).long()
    )
    boxes = torch.tensor([[0.5, 0, 10.5, 10], [1.0, 0, 11, 10], [1.5, 0, 11.5, 10]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long(), torch.arange(3))
    assert without_duplicates(found, Truth.of(scene, 1), BoxIou()).cell.tolist() == [0, 1]


def test_missed_objects_are_excused():
    boxes = torch.tensor([grid.A, grid.B, [25.0, 25.0, 31.0, 31.0], [0.0, 28.0, 4.0, 32.0]])
    seen = audit(Paper(), [replace(paper_scene(), boxes=boxes, labels=torch.tensor([0, 1, 0, 0]))])
    (scene,) = without_missed(seen, seen.oracles["threshold"])
    assert scene.ignore.tolist() == [False, False, False, True]  # of the third the class alone is wrong


def test_a_limit_is_lifted_to_what_is_looked_at():
    seen = audit(Paper(decoding=Decoding(threshold=0.1, nms=0.5, top_k=1, before_nms=2)), [paper_scene()])
    assert len(seen.found[0]) == 1
    assert len(seen.oracles["threshold"][0]) == 5
    assert opened(Decoding(before_nms=0, top_k=0)) == Decoding(threshold=0.0, before_nms=0, top_k=0)


def test_the_threshold_is_opened():
    seen = audit(Paper(decoding=Decoding(threshold=0.65, nms=0.5)), [paper_scene()])
    assert len(seen.found[0]) == 3
    assert len(seen.oracles["threshold"][0]) == 5


def test_boxes_of_every_class_are_looked_at_class_by_class():
    class Two(Paper):
        """Class 1 boxes nothing; class 0 as before."""

        def emit(self, scene):
            e = super().emit(scene)
            far = torch.tensor([30.0, 30.0, 32.0, 32.0]).expand(16, 4)
            return replace(e, boxes=torch.stack((e.boxes[0], far)))

    seen = audit(Two(), [paper_scene()])
    place = {(int(s) // 16, int(s) % 16): k for k, s in enumerate(seen.rows.slot)}
    assert seen.rows.iou[place[1, 2]] == 0.0
    assert seen.rows.bucket[place[1, 2]] == SUPERVISED  # B is of class 1, and cell 2 is trained for it
    assert seen.objects.best.tolist() == pytest.approx([1.0, 0.0, 1.0])


# --- figures from rows ---


def test_the_gap_between_supervised_cells_and_others(seen, draw):
    told = gap(seen.rows, seen.rows.bucket, draw)
    assert told["plain"]["value"] == pytest.approx(1.0 - 0.625)


def test_matched_on_score_compares_those_that_score_alike(seen):
    """Supervised boxes fit better only because they score higher: matched on score the difference is gone."""
    rng = np.random.default_rng(0)
    n = 4000
    bucket = np.where(rng.random(n) < 0.5, SUPERVISED, INSIDE)
    score = np.clip(rng.normal(0.5, 0.1, n) + 0.2 * (bucket == SUPERVISED), 0, 1)
    rows = _made(image=rng.integers(0, 50, n), score=score, iou=score.copy(), bucket=bucket)
    told = gap(rows, rows.bucket, Resampler(rows.image, 50, 100, 0))
    assert told["plain"]["value"] == pytest.approx(0.2, abs=0.02)
    assert abs(told["matched"]["value"]) < 0.03
    rows = _made(image=rows.image, score=score, iou=np.where(rows.bucket == SUPERVISED, 0.8, 0.5), bucket=rows.bucket)
    told = gap(rows, rows.bucket, Resampler(rows.image, 50, 100, 0))
    assert told["matched"]["value"] == pytest.approx(0.3)
    assert told["matched"]["interval"] == pytest.approx((0.3, 0.3))


def _made(image, score, iou, bucket):
    n = len(image)
    order = np.argsort(image, kind="stable")
    zero = np.zeros(n, np.int64)
    from boresight.diagnose.emitted import EmittedRows

    return EmittedRows(
        image=image[order],
        slot=zero,
        label=zero,
        level=zero,
        score=score[order],
        box=np.zeros((n, 4)),
        bucket=bucket[order],
        control=bucket[order],
        iou=iou[order],
        own=iou[order],
        object=zero,
        distance=np.zeros(n),
        kept=np.ones(n, bool),
        by=np.arange(n),
    )


def test_no_gap_without_both_sides(seen, draw):
    told = gap(seen.rows, np.full(6, SUPERVISED), draw)
    assert told["matched"] == {"value": None, "n": 0, "interval": None}


def test_distance_in_strides(seen, draw):
    away = dict(zip(cells_of(seen.rows), seen.rows.distance.tolist(), strict=True))
    assert away[0] == pytest.approx(np.hypot(4, 4) / 8)
    assert np.isnan(away[15])
    table = by_distance(seen.rows, draw)
    assert sum((row["supervised"]["n"] or 0) + (row["inside"]["n"] or 0) for row in table) == 5


def test_calibration_on_paper():
    score, fit = np.array([0.95, 0.85, 0.05]), np.array([0.5, 0.9, 0.0])
    told = calibration(score, fit, np.ones(3, bool))
    assert told["error"] == pytest.approx((0.45 + 0.05 + 0.05) / 3)
    assert told["bias"] == pytest.approx((0.45 - 0.05 + 0.05) / 3)
    assert [b["low"] for b in told["bins"]] == [0.0, 0.8, 0.9]
    assert calibration(score, fit, np.zeros(3, bool)) is None


def test_rank_correlations_on_paper():
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert kendall(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 1, 2])) == pytest.approx(1.0)
    for measure in (spearman, kendall):
        assert measure(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
        assert measure(np.array([1.0]), np.array([1.0])) is None


def test_correlation_within_images_and_pooled_can_differ():
    """Each image ranks perfectly, but the scores of one image mean something else than those of the other."""
    image = np.repeat([0, 1], 6)
    fit = np.tile(np.linspace(0.2, 0.9, 6), 2)
    score = np.concatenate((fit[:6] * 0.1, 0.9 + fit[6:] * 0.1))
    rows = _made(image, score, fit, np.full(12, SUPERVISED))
    told = correlations(rows, Resampler(rows.image, 2, 10, 0))
    assert told["spearman"]["within"]["value"] == pytest.approx(1.0)
    assert told["spearman"]["pooled"] < 0.8
    assert told["kendall"]["within"]["n"] == 2


def test_emission_shapes_are_checked():
    with pytest.raises(ValueError, match="1 or 2 boxes a cell, got 3"):
        Emission(torch.zeros(3, 4, 4), torch.zeros(2, 4), (8, 8))
