"""Which images a page shows, by hand."""

from __future__ import annotations

from boresight.report.chosen import by_image, chosen_frames


def test_chosen_frames_are_the_worst_and_then_the_first():
    rows = [{"image": i, "kind": k} for i, k in (("c", "missed"), ("c", "false_alarm"), ("d", "missed"), ("b", "hit"))]
    rows += [{"image": "e", "kind": "hit"}, {"image": "gone", "kind": "missed"}]
    assert chosen_frames([rows], ["a", "b", "c", "d", "e"], 3) == ["c", "b", "d"]


def test_a_wrong_class_is_an_error_too():
    rows = [
        {"image": i, "kind": k} for i, k in (("a", "hit"), ("b", "wrong_class"), ("b", "wrong_class"), ("c", "hit"))
    ]
    assert chosen_frames([rows], ["a", "b", "c"], 2) == ["b", "a"]


def test_rows_by_image_keep_their_order():
    rows = [{"image": i, "kind": k} for i, k in (("b", "1"), ("a", "2"), ("b", "3"))]
    assert {name: [r["kind"] for r in own] for name, own in by_image(rows).items()} == {"b": ["1", "3"], "a": ["2"]}
