"""The report of a study: verdicts by hand, the tables, what is missing, and that names are never markup."""

from __future__ import annotations

import copy
import json

import pytest

from boresight.core.errors import UserError
from boresight.report.columns import IMAGES, Columns
from boresight.report.compared_images import best_of
from boresight.report.comparison import (
    difference_rows,
    difference_text,
    markdown,
    sentences,
    spread_text,
    table_rows,
    validation_curves,
    verdict,
    write_comparison,
)
from boresight.run.record import write_json, write_parquet, write_text

EVIL = "<script>alert(1)</script>"
POINTS = Columns.of({})
"""The columns of a comparison from before it named its system."""
FIGURES = POINTS.figures
F1, RMSE, STEPS = FIGURES[0], FIGURES[3], FIGURES[5]


def gap(estimate: float, half: float | None = 0.01) -> dict:
    """A paired difference as ``comparison.json`` holds it."""
    low, high = (None, None) if half is None else (estimate - half, estimate + half)
    clear = half is not None and abs(estimate) > half
    return {"estimate": estimate, "low": low, "high": high, "pairs": 3, "clear": clear}


def variant(mean: float, difference: dict | None) -> dict:
    spread = {"values": [mean] * 3, "mean": mean, "sd": 0.01}
    return {"figures": {f.key: copy.deepcopy(spread) for f in FIGURES}, "difference": difference}


def differences(f1: dict, images: dict, **more: dict) -> dict:
    return {f.key: None for f in FIGURES} | {"f1": f1, IMAGES: images} | more


@pytest.fixture
def comparison() -> dict:
    """A reference and three variants: clearly worse, no difference, and one that never finished learning."""
    return {
        "study": "labels",
        "about": "Do soft labels learn faster?",
        "command": "boresight compare experiments/labels.yaml",
        "reference": "soft",
        "seeds": [0, 1, 2],
        "datasets": {
            "sirst": {
                "soft": variant(0.9, None),
                "hard": variant(0.6, differences(gap(-0.3), gap(-0.28), rmse=gap(-0.2))),
                "near": variant(0.9, differences(gap(0.002), gap(0.001))),
                "dead": variant(0.0, None) | {"difference": {f.key: None for f in FIGURES}},
            }
        },
    }


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "found", "sign"),
    [
        (F1, differences(gap(0.05), gap(0.04)), 1),
        (F1, differences(gap(-0.05), gap(-0.04)), -1),
        (F1, differences(gap(0.005), gap(0.04)), 0),  # not clear over seeds
        (F1, differences(gap(0.05), gap(0.004)), 0),  # not clear over images
        (F1, differences(gap(0.05), gap(-0.04)), 0),  # the two disagree
        (F1, differences(gap(0.05, None), gap(0.04)), 0),  # one seed says nothing of training
        (RMSE, {"rmse": gap(0.2)}, -1),  # lower is better
        (RMSE, {"rmse": gap(-0.2)}, 1),
        (STEPS, {STEPS.key: gap(40.0)}, -1),
        (STEPS, {STEPS.key: None}, 0),
        (F1, None, 0),
    ],
)
def test_a_verdict_by_hand(figure, found, sign):
    assert verdict(found, figure) == sign


def test_the_sentence_says_who_differs(comparison):
    said = sentences("sirst", comparison["datasets"]["sirst"], "soft", POINTS)
    assert said == [
        "sirst, F1 against soft: hard (−0.300 [−0.310, −0.290]) clearly worse; no clear difference for near, dead."
    ]


def test_a_second_sentence_where_speed_differs(comparison):
    variants = comparison["datasets"]["sirst"]
    variants["near"]["difference"][STEPS.key] = gap(-40.0)
    said = sentences("sirst", variants, "soft", POINTS)
    assert len(said) == 2
    assert said[1].startswith("Steps to 0.9 of the final F1: near (−40 [−40, −40]) clearly better;")


def test_one_seed_is_never_called_no_difference(comparison):
    variants = comparison["datasets"]["sirst"]
    for name in ("hard", "near"):
        variants[name]["difference"]["f1"] = gap(-0.3 if name == "hard" else 0.0001, None)
    assert sentences("sirst", variants, "soft", POINTS) == [
        "sirst, F1 against soft: no clear difference for dead; hard −0.300, near +0.000 (one seed each, which does not "
        "tell how sure that is)."
    ]


def test_a_reference_alone():
    assert sentences("d", {"soft": variant(0.9, None)}, "soft", POINTS) == ["d: only the reference soft was trained."]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_texts_by_hand():
    assert spread_text({"mean": 0.9, "sd": 0.0123}, 3) == "0.900 ± 0.012"
    assert spread_text({"mean": 120.4, "sd": None}, 0) == "120"
    assert spread_text({"mean": None, "sd": None}, 3) == spread_text(None, 3) == "—"
    assert difference_text(gap(0.05), 3) == "+0.050 [+0.040, +0.060]"
    assert difference_text(gap(0.05, None), 3) == "+0.050 (one seed)"
    assert difference_text(None, 3) == "—"
    assert difference_text(gap(-0.2, None), 0) == "+0 (one seed)"  # what is rounded to nothing has no sign to show


def test_tables_by_hand(comparison):
    variants = comparison["datasets"]["sirst"]
    rows = table_rows(variants, "soft", POINTS)
    assert [r[0] for r in rows] == ["soft (reference)", "hard", "near", "dead"]
    assert rows[1][1] == "0.600 ± 0.010"
    gaps = difference_rows(variants, "soft", POINTS)
    assert [r[0] for r in gaps] == ["hard", "near", "dead"]
    assert gaps[0][1:3] == ["−0.300 [−0.310, −0.290] clearly worse", "−0.280 [−0.290, −0.270]"]
    assert gaps[0][5] == "−0.200 [−0.210, −0.190] clearly better"
    assert gaps[2][1:] == ["—"] * 7


def test_markdown_tables_are_even(comparison):
    text = markdown(comparison | {"reference": "soft"})
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(t) for t in tables] == [6, 5]
    assert all(len({line.count("|") for line in t}) == 1 for t in tables)
    assert "```\nboresight compare experiments/labels.yaml\n```" in text


def test_markdown_keeps_a_bar_in_a_name_out_of_the_table(comparison):
    variants = comparison["datasets"]["sirst"]
    variants["a|b"] = variants.pop("near")
    assert "| a\\|b |" in markdown(comparison)


# --- the page --------------------------------------------------------------------------------------------------------


def write_runs(folder, name="hard", seeds=(0, 1), f1=(0.2, 0.6)):
    for seed in seeds:
        rows = [{"step": s, "val_f1": v} for s, v in zip((10, 20), f1, strict=True)]
        write_parquet(
            folder / "sirst" / name / f"seed-{seed}" / "metrics.parquet", [{"step": 5, "val_f1": None}, *rows]
        )


def test_the_page_and_the_text(comparison, tmp_path):
    write_runs(tmp_path)
    write_json(tmp_path / "comparison.json", comparison)
    out = write_comparison(tmp_path)
    text = out.read_text(encoding="utf-8")
    assert out == tmp_path / "report.html"
    assert (tmp_path / "comparison.md").read_text(encoding="utf-8").startswith("# labels\n")
    for part in (
        "hard (−0.300 [−0.310, −0.290]) clearly worse",
        "−0.300\n[−0.310, −0.290]\nclearly worse",
        "3 comparisons are made",
        "boresight compare experiments/labels.yaml",
        "Validation F1: hard from 0.2 to 0.6",
        "F1, difference to soft: hard −0.3, clearly worse; near +0.002, no clear difference; dead not known",
    ):
        assert part in text, part
    assert "https://" not in text
    assert text.count("<script>") == text.count("<script") == 1  # light and dark


def test_the_mean_curve_is_over_seeds(tmp_path):
    write_runs(tmp_path, seeds=(0,), f1=(0.2, 0.6))
    write_runs(tmp_path, seeds=(1,), f1=(0.4, 1.0))
    assert "hard from 0.3 to 0.8" in str(
        validation_curves(tmp_path / "sirst", ["hard", "none"], "soft", [0, 1], POINTS)
    )


def test_no_runs_below_and_no_optional_keys(comparison, tmp_path):
    del comparison["command"], comparison["about"]
    write_json(tmp_path / "comparison.json", comparison)
    text = write_comparison(tmp_path).read_text("utf-8")
    assert "No validation figures are written below this folder." in text
    assert "No run lies below this folder, so there are no images." in text


def test_the_best_variant_is_that_of_the_leading_figure(comparison):
    assert best_of(comparison["datasets"]["sirst"], "soft", POINTS) == "near"
    assert best_of({"soft": variant(0.9, None)}, "soft", POINTS) is None


def test_images_of_the_reference_and_the_best_variant(box_run, tmp_path):
    """Both runs of the first seed are there to look through; of the third variant nobody asks."""
    spread = {"reference": 0.3, "better": 0.6, "worse": 0.1}
    figures = {
        name: {"figures": {"ap50": {"values": [v], "mean": v, "sd": 0.0}}, "difference": None}
        for name, v in spread.items()
    }
    for name in ("reference", "better"):
        write_text(box_run(tmp_path / "data" / name / "seed-3").predictions, "[]")
    known = {"study": "s", "detector": "text", "reference": "reference", "seeds": [3], "datasets": {"data": figures}}
    write_json(tmp_path / "comparison.json", known)
    text = write_comparison(tmp_path).read_text("utf-8")
    assert "Seed 3 of reference and better: the reference, and the variant whose AP50 is best in the mean." in text
    shown = json.loads(text.split('id="browser-data">')[1].split("</script>")[0])
    assert len(shown["sets"]) >= 2
    assert {one["name"].split(" · ")[0] for one in shown["sets"]} == {"reference", "better"}


def test_a_study_without_data_sets(comparison, tmp_path):
    write_json(tmp_path / "comparison.json", comparison | {"datasets": {}})
    assert "The comparison holds no data set." in write_comparison(tmp_path).read_text("utf-8")


def test_names_are_never_markup(comparison, tmp_path):
    variants = comparison["datasets"].pop("sirst")
    variants[EVIL] = variants.pop("hard")
    write_json(tmp_path / "comparison.json", comparison | {"study": EVIL, "about": EVIL, "datasets": {EVIL: variants}})
    text = write_comparison(tmp_path).read_text("utf-8")
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6


def test_a_missing_or_damaged_comparison_is_named(comparison, tmp_path):
    with pytest.raises(UserError, match=r"comparison\.json: no comparison here"):
        write_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(UserError, match=r"comparison\.json: cannot be read"):
        write_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps({"study": "x"}))
    with pytest.raises(UserError, match="`reference` is missing"):
        write_comparison(tmp_path)


# --- other systems ---------------------------------------------------------------------------------------------------


def words(mean: float, difference: dict | None) -> dict:
    """A variant of `text`: every figure the same, every difference the same."""
    keys = [f.key for f in Columns.of({"detector": "text"}).figures]
    spread = {"values": [mean] * 3, "mean": mean, "sd": 0.01}
    own = None if difference is None else dict.fromkeys(keys, difference) | {IMAGES: gap(0.0)}
    return {"figures": dict.fromkeys(keys, spread), "difference": own}


def test_a_comparison_of_the_text_detector(comparison, tmp_path):
    variants = {"tal": words(0.5, None), "radius": words(0.3, gap(-0.2))}
    rows = [{"step": s, "val_ap50": s / 40} for s in (10, 20)]
    write_parquet(tmp_path / "aerial" / "radius" / "seed-0" / "metrics.parquet", rows)
    told = {"detector": "text", "reference": "tal", "datasets": {"aerial": variants}}
    write_json(tmp_path / "comparison.json", comparison | told)
    text = write_comparison(tmp_path).read_text("utf-8")
    for part in (
        "aerial, AP50 against tal: radius (−0.200 [−0.210, −0.190]) clearly worse.",
        "Steps to 0.9 of the final AP50: radius (+0 [+0, +0]) clearly better.",
        "<h3>Validation AP50</h3>",
        "Validation AP50: radius from 0.25 to 0.5",
        '<th scope="col">AP50, novel</th>',
        '<th scope="col">F1, over seeds and images</th>',
    ):
        assert part in text, part
    assert "Pd at" not in text
    assert "RMSE" not in text


def test_a_comparison_without_f1_does_not_speak_of_it(comparison, tmp_path):
    keys = [f.key for f in Columns.of({"detector": "localise"}).figures]
    assert keys[0] == "mean_iou"
    assert "f1" not in keys
    spread = {"values": [0.5], "mean": 0.5, "sd": None}
    variants = {v: {"figures": dict.fromkeys(keys, spread), "difference": None} for v in ("soft", "hard")}
    told = {"detector": "localise", "datasets": {"d": variants}}
    write_json(tmp_path / "comparison.json", comparison | told)
    text = write_comparison(tmp_path).read_text("utf-8")
    assert "leaves out zero. " in text
    assert "F1" not in text.partition("<body>")[2]


def test_a_system_that_is_not_known_is_named(comparison, tmp_path):
    write_json(tmp_path / "comparison.json", comparison | {"detector": "pint"})
    with pytest.raises(UserError, match=r"`pint`: not known.*point"):
        write_comparison(tmp_path)
