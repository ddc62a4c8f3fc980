"""The page of runs: what it shows, what it says when a part is missing, and that nothing in it is taken for markup."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.errors import UserError
from boresight.core.types import Points
from boresight.report import figures, frames
from boresight.report.figures import Line
from boresight.report.html import write_report
from boresight.report.panels import curve_panel
from boresight.report.reading import FrameStore, read_run, run_names
from boresight.report.tables import differing_settings, given_table, run_figures, shown
from boresight.run.config import DataSettings, PointSettings, TargetSettings, TrainSettings
from boresight.run.frames import skyfield
from boresight.run.parse import nested
from boresight.run.point import COLUMNS as MATCH_COLUMNS
from boresight.run.recipe import Splits
from boresight.run.record import RunFolder, write_json, write_parquet, write_yaml

EVIL = "<script>alert(1)</script>"
DATA = DataSettings(preset="white", height=96, width=128, frames=2, val_frames=2, test_frames=3)


def evaluation(snr: bool = True) -> dict:
    """Figures as ``evaluate`` writes them: two targets, one found."""
    bins = [
        {"rate": rate, "low": 6.0, "high": 7.0, "n": 2, "hits": 1, "pd": 0.5, "interval": [0.1, 0.9]}
        for rate in (0.1, 1.0)
    ]
    return {
        "split": "test",
        "images": 3,
        "threshold": 0.25,
        "f1": 0.5,
        "f1_at_half": 0.4,
        "rmse": 0.7,
        "false_alarms_per_frame": 0.333,
        "pd_at_0.1_false_alarms_per_frame": 0.5,
        "pd_at_1_false_alarms_per_frame": None,
        "intervals": {"f1": [0.2, 0.8], "f1_at_half": None},
        "curve": {
            "threshold": [0.9, 0.5, 0.1],
            "pd": [0.0, 0.5, 0.5],
            "false_alarms_per_frame": [0.0, 0.0, 0.333],
            "precision": [None, 1.0, 0.5],
            "f1": [None, 0.667, 0.5],
        },
        "by_snr": bins if snr else [],
        "compatibility": {
            "threshold": 0.25,
            "stamp": 3,
            "basic_irstd": {"stamp": 3, "pd": 0.5, "fa_e6": 12.5},
            "dnanet_legacy": None,
            "spire_5px": {"tolerance": 5.0, "tp": 1, "fp": 1, "fn": 1, "f1": 0.5},
            "reason": "no mask here",
        },
    }


def match_rows(name: str) -> list[dict]:
    """One row of every kind in one frame."""
    place = {"image": name, "image_id": 1, "cell": 0, "distance": None, "object": -1, "snr": None}
    return [
        place | {"x": 20.0, "y": 20.0, "score": 0.9, "kind": "hit", "snr": 9.0, "object": 0},
        place | {"x": 22.0, "y": 20.0, "score": 0.4, "kind": "duplicate"},
        place | {"x": 60.0, "y": 50.0, "score": 0.8, "kind": "false_alarm"},
        place | {"x": 90.0, "y": 60.0, "score": 0.5, "kind": "ignored"},
        place | {"x": 100.0, "y": 70.0, "score": None, "kind": "missed", "snr": 6.5, "object": 1},
    ]


def make_run(
    root: Path, settings: PointSettings | None = None, *, label: str = "target", snr: bool = True
) -> RunFolder:
    """A whole run folder, written by hand."""
    settings = settings or PointSettings(data=DATA)
    run = RunFolder(root)
    write_yaml(run.config, nested(settings))
    write_json(run.environment, {"seed": 0, "python": "3.12"})
    steps = range(1, 41)
    rows = [
        {
            "step": s,
            "loss_cls": 1.0 if s <= 20 else 0.5,
            "loss_offset": 0.1,
            "gradient_norm": 1.0,
            "learning_rate": 1e-3,
        }
        | {"positive_rate": 0.001 * (1 + s % 2), "val_f1": s / 40 if s % 20 == 0 else None}
        for s in steps
    ]
    write_parquet(run.metrics, rows)
    write_parquet(run.targets, [{"epoch": e, "class": label, "positives_per_object": 1.0} for e in range(3)])
    write_json(run.done, {"parameters": 119237, "seconds": 12.3})
    write_json(run.evaluation, evaluation(snr))
    write_parquet(run.matches, match_rows(skyfield(settings.data, "test").names[1]), MATCH_COLUMNS)
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "soft")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """The page of a run that has everything."""
    folder = tmp_path_factory.mktemp("whole")
    return written([make_run(folder / "soft")], folder / "r.html", title="A title", lead="First.\n\nSecond.")


def written(runs, out: Path, **more) -> str:
    return write_report(runs, out, **more).read_text(encoding="utf-8")


# --- the whole page --------------------------------------------------------------------------------------------------


def test_a_page_is_whole_and_loads_nothing(whole, parsed):
    text = whole
    found = parsed(text)
    assert (found.wrong, found.open) == ([], [])
    assert len(found.ids) == len(set(found.ids))
    assert found.unlabelled == 0
    assert found.strange == []
    assert found.scripts.count({}) == 1
    assert [link for link in found.links if not link.startswith(("#", "data:"))] == []
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert re.findall(r"@import|url\((?!#)", text) == []


def test_a_page_has_every_part(whole):
    text = whole
    for part in (
        "<title>A title</title>",
        "<p>First.</p><p>Second.</p>",
        "0.500 [0.200, 0.800]",
        "Loss: classification",
        "Positive cells per object",
        "F1 against the threshold",
        "Pd by SNR at 0.1 false alarms a frame",
        "ideal observer",
        "white noise",
        "BasicIRSTD",
        "no mask here",
        "Missed targets, brightest first",
        "2 of 2 shown.",
        "soft: configuration",
        "prefers-color-scheme: dark",
    ):
        assert part in text, part
    for kind in ("hit", "duplicate", "false_alarm", "ignored", "missed"):
        assert f'class="mark {kind}" transform' in text


def test_several_runs_share_frames_and_show_what_differs(tmp_path):
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", PointSettings(data=DATA, target=TargetSettings(label="hard")))
    text = written([a, b], tmp_path / "r.html")
    assert text.count('<image id="frame-') == len(set(re.findall(r'<image id="(frame-[^"]+)"', text))) > 0
    assert "Settings in which the runs differ" in text
    assert '<th scope="row">target.label</th><td>gaussian</td><td>hard</td>' in text
    assert "a: 1 hit, 1 missed, 1 false alarm, 1 duplicate" in text


def test_boxes_and_points_do_not_share_a_page(tmp_path, make_text):
    with pytest.raises(UserError, match="dim gives points and words boxes: give each kind a page of its own"):
        write_report([make_run(tmp_path / "dim"), make_text()], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("refine", "point", "first gives refined boxes and second points"),
        ("point", "refine", "first gives points and second refined boxes"),
        ("text", "refine", "first gives boxes and second refined boxes"),
        ("refine", "localise", "first gives refined boxes and second boxes"),
    ],
)
def test_refined_boxes_have_a_page_of_their_own(tmp_path, first, second, said):
    for name, kind in (("first", first), ("second", second)):
        write_yaml(RunFolder(tmp_path / name).config, {"detector": kind})
    runs = [RunFolder(tmp_path / name) for name in ("first", "second")]
    with pytest.raises(UserError, match=f"{said}: give each kind a page of its own"):
        write_report(runs, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    assert "Moves, enlarged" in written(
        [r for r, kind in zip(runs, (first, second), strict=True) if kind == "refine"], tmp_path / "r.html"
    )


def test_no_run_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="at least one run folder"):
        write_report([], tmp_path / "r.html")


def test_what_users_name_is_never_markup(tmp_path, monkeypatch, parsed):
    run = make_run(tmp_path / "x&<b>$y$", label=EVIL)
    source = skyfield(DATA, "test")

    class Renamed:
        names = (EVIL, "b", "c")
        __len__ = lambda self: 3  # noqa: E731
        __getitem__ = lambda self, i: replace(source[i], name=self.names[i])  # noqa: E731

    opened = Splits(Renamed(), Renamed(), Renamed(), range(3), ("target",))
    monkeypatch.setattr("boresight.report.reading.FrameStore._opened", lambda self, data, split: opened)
    write_parquet(run.matches, match_rows(EVIL), MATCH_COLUMNS)
    text = written([run], tmp_path / "r.html", title=EVIL, lead=EVIL, table=[{"run": EVIL, "f1": 0.5}])
    assert EVIL not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8
    assert "x&amp;&lt;b&gt;$y$" in text
    assert parsed(text).wrong == []


# --- parts that are missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("evaluation", "The run is not evaluated yet"),
        ("matches", "no matches are written"),
        ("metrics", "No metrics are written, so there are no curves"),
        ("targets", ""),
        ("environment", "environment.json is missing."),
        ("done", "Training has not finished (40 steps are written)."),
        ("config", "The run has no config.yaml"),
    ],
)
def test_a_missing_part_is_said(run, whole, tmp_path, part, said, parsed):
    getattr(run, part).unlink()
    text = written([run], tmp_path / "r.html")
    assert said in text
    assert not said or said not in whole
    assert parsed(text).wrong == []


def test_nothing_but_a_configuration(tmp_path):
    run = RunFolder(tmp_path / "young")
    write_yaml(run.config, nested(PointSettings(data=DATA)))
    text = written([run], tmp_path / "r.html")
    assert "no step is written yet" in text
    assert "No run is evaluated yet" in text


def test_truth_without_snr_has_no_snr_panel(tmp_path):
    text = written([make_run(tmp_path / "soft", snr=False)], tmp_path / "r.html")
    assert "The truth of these frames has no SNR" in text
    assert "ideal observer in" not in text


def test_frames_that_are_elsewhere(tmp_path, monkeypatch):
    run = make_run(tmp_path / "soft")
    gone = PointSettings(data=replace(DATA, source="sirst", root=str(tmp_path / "gone")))
    write_yaml(run.config, nested(gone))
    text = written([run], tmp_path / "r.html")
    assert "The frames cannot be opened here" in text
    assert "only a bound" not in text  # the ideal observer knows made frames only


def test_the_frames_are_those_of_the_changed_data_settings(run, tmp_path):
    write_json(run.evaluation, evaluation() | {"data": {"seed": 7, "preset": "hard", "oversample": 3}})
    judged = replace(DATA, seed=7, preset="hard")
    data = read_run(run, "soft", 0)
    assert data.data == replace(judged, oversample=3)
    assert data.settings.data == DATA
    found = FrameStore().frames(data)
    there, own = skyfield(judged, "test")[1].image, skyfield(DATA, "test")[1].image
    assert torch.equal(found[1].image, there)
    assert not torch.equal(there, own)
    text = written([run], tmp_path / "r.html")
    assert "not those of its training: data.seed = 7, data.preset = hard, data.oversample = 3." in text
    assert "a Gaussian PSF of the preset&#39;s mean width and white noise alone, so it is only a bound" in text


@pytest.mark.parametrize("changes", [{"prest": "hard"}, {"frames": 0}, 5])
def test_changed_data_settings_that_cannot_be_read_are_said(run, tmp_path, changes):
    write_json(run.evaluation, evaluation() | {"data": changes})
    text = written([run], tmp_path / "r.html")
    assert "The data settings that the run was judged with cannot be read: evaluation.json: " in text
    assert "the frames cannot be opened" in text


def test_frames_of_the_run_itself_where_nothing_was_changed(run):
    data = read_run(run, "soft", 0)
    assert data.data == DATA
    assert not any("judged with" in note for note in data.notes)


def test_errors_in_frames_that_are_no_longer_there(run, tmp_path):
    write_parquet(run.matches, match_rows("another"), MATCH_COLUMNS)
    assert "0 of 1 shown. 1 lie in frames that are not in this data set any more." in written(
        [run], tmp_path / "r.html"
    )


def test_nothing_found_and_nothing_missed(run, tmp_path, parsed):
    write_parquet(run.matches, [], MATCH_COLUMNS)
    empty = evaluation() | {"curve": {k: [] for k in evaluation()["curve"]}, "f1": None}
    write_json(run.evaluation, empty)
    text = written([run], tmp_path / "r.html")
    assert "No run is evaluated yet" not in text.split('id="frames"')[0].split('id="judged"')[0]
    assert parsed(text).wrong == []


@pytest.mark.parametrize("part", ["evaluation", "metrics"])
def test_a_damaged_file_is_named(run, tmp_path, part):
    getattr(run, part).write_bytes(b"{")
    with pytest.raises(UserError, match=rf"{part}.*(cannot be read|damaged)"):
        write_report([run], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_settings_of_another_version(run, tmp_path):
    write_yaml(run.config, {"lernig_rate": 1})
    assert "These settings cannot be read by this version" in written([run], tmp_path / "r.html")


# --- figures and tables ----------------------------------------------------------------------------------------------


def test_figures_of_a_run_by_hand(run):
    found = run_figures(read_run(run, "soft", 0))
    assert found["cls_loss"] == 0.5  # the last 20 of 40 steps; over all it would be 0.75
    assert found["positive_rate"] == pytest.approx(0.0015)
    assert (found["parameters"], found["f1_at_half"]) == (119237, 0.4)
    assert found["pd_at_1_false_alarms_per_frame"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0.0, "0.000"),
        (0.5, "0.500"),
        (0.00264, "0.0026"),
        (2e-5, "2.0e-05"),
        (119237, "119\u202f237"),
        ("a", "a"),
    ],
)
def test_a_figure_for_a_person(value, text):
    assert shown(value) == text


def test_a_callers_table():
    rows = [{"run": "a", "f1_at_half": 0.25}, {"run": "b", "own_key": None}]
    assert given_table(rows) == {
        "heads": ["run", "F1 at 0.5", "own key"],
        "rows": [["a", "0.250", "—"], ["b", "—", "—"]],
    }


def test_names_that_are_alike_get_their_folder(tmp_path):
    roots = ("x/seed-0", "y/seed-0", "z")
    assert run_names([RunFolder(tmp_path / r) for r in roots]) == ["x/seed-0", "y/seed-0", "z"]


def test_one_run_differs_from_nothing(run):
    assert differing_settings([read_run(run, "soft", 0)]) == []


# --- drawings --------------------------------------------------------------------------------------------------------


def test_a_panel_takes_the_colours_of_the_page():
    text = curve_panel([Line("a<b>", [1, 2, 3], [1.0, None, 3.0], 1)], title="T")
    assert "var(--s1)" in text
    assert "var(--s0)" not in text
    assert figures.PALETTE[1] not in text
    assert "a&lt;b&gt; from 1 to 3" in text
    assert "<b>" not in text


def test_long_lines_are_averaged_and_keep_their_mean():
    y = np.arange(1003.0)
    x, short = figures.averaged(y, y)
    assert len(x) == len(short) == figures.POINTS
    assert short[0] == pytest.approx(y[:3].mean())
    assert figures.averaged([1, 2, 3], [1.0, np.nan, 2.0])[0].tolist() == [1, 3]


def test_a_running_mean_is_centred():
    assert figures.smoothed(np.array([0.0, 0, 3, 0, 0]), share=0.5).tolist() == [0, 1, 1, 1, 0]
    line = np.arange(50.0)
    np.testing.assert_allclose(figures.smoothed(line, 0.2), line)


def test_names_at_the_ends_do_not_overlap():
    written_at = []

    class Axes:
        def text(self, x, y, name, **more):
            written_at.append(y)

    with figures.matplotlib.rc_context():
        axes = figures.Figure().subplots()
        axes.text = Axes().text
        figures.label_ends(axes, [(str(i), 1.0, 1.0, "k") for i in range(5)], gap=0.1)
    assert written_at == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01, "0.01"), (1e-5, "1e-5"), (20000, "2e4"), (1000, "1000"), (-0.5, "−0.5")]
)
def test_a_tick(value, text):
    assert figures.plain(value) == text


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_keeps_pixels_and_order():
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    picture = Image.open(io.BytesIO(base64.b64decode(frames.png(grey).split(",")[1]))).convert("L")
    read = np.asarray(picture)
    assert read.shape == (3, 4)
    np.testing.assert_allclose(read / 255, grey, atol=0.5 / (frames.LEVELS - 1) + 1 / 255)


def test_stretching_a_constant_image_gives_black():
    assert frames.stretched(np.full((4, 4), 7.0)).tolist() == np.zeros((4, 4)).tolist()


@pytest.mark.parametrize(
    ("place", "corner"), [((50, 40), (34, 24)), ((1, 1), (0, 0)), ((99, 79), (68, 48)), ((50.9, 40.9), (34, 24))]
)
def test_a_window_lies_inside_the_image(place, corner):
    assert frames.window(*place, 32, 100, 80) == corner


def test_errors_are_sorted_worst_first():
    rows = [{"kind": "missed", "snr": s} for s in (4.0, None, 9.0)]
    rows += [{"kind": k, "score": s} for k, s in (("false_alarm", 0.2), ("duplicate", 0.7), ("hit", 0.9))]
    assert [r["snr"] for r in frames.error_rows(rows, "missed")] == [9.0, 4.0, None]
    assert [r["score"] for r in frames.error_rows(rows, "false_alarm")] == [0.7, 0.2]


def test_marks_of_a_crop_lie_where_the_target_lies():
    scene = skyfield(DATA, "test")[1]
    scene = replace(scene, points=Points.of([[100.0, 70.0]]))
    rows = match_rows(scene.name)
    crop = frames.crop_picture(scene, rows[4], rows)
    assert (crop.width, crop.height) == (64, 64)
    by_kind = {m.kind: (m.x, m.y) for m in crop.marks}
    assert by_kind["truth"] == by_kind["missed"] == (100 - 64, 70 - 32)
    assert "hit" not in by_kind  # it lies outside
    assert crop.caption[1] == "missed, SNR 6.5"


@pytest.mark.parametrize(
    ("target", "count", "largest"),
    [
        (TargetSettings(), 1, 1.0),
        (TargetSettings(schedule="steps"), 3, 1.0),
        (TargetSettings(schedule="linear", breaks=()), 3, 1.0),
        (TargetSettings(label="hard", schedule="steps"), 1, 1.0),
        (TargetSettings(peak="physical"), 1, np.exp(-0.5 * (0.3**2 + 0.2**2))),
    ],
)
def test_labels_are_those_of_the_run(target, count, largest):
    maps = frames.label_maps(target)
    assert len(maps) == count
    for m in maps:
        column, row, value = max(m.cells, key=lambda c: c[2])
        assert (column, row) == (4, 4)
        assert value == pytest.approx(largest)


def test_levels_of_a_real_frame():
    scene = replace(skyfield(DATA, "test")[1], points=Points.of([[50.0, 40.0]]))
    pictures = frames.level_maps(PointSettings(data=DATA, train=TrainSettings()), scene)
    assert [p.caption[0] for p in pictures] == ["frame", "P2, stride 4", "P3, stride 8", "P4, stride 16"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(p.data.split(",")[1]))).size for p in pictures]
    assert sizes == [(96, 96), (24, 24), (12, 12), (6, 6)]
