"""What a person types and what comes back: status, one line, one object of JSON."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from boresight.cli import build_parser, main
from boresight.core.errors import Failure, Stopped, UserError

VERBS = [
    "quickstart",
    "train",
    "evaluate",
    "predict",
    "compare",
    "report",
    "refine",
    "cache",
    "cache fill",
    "cache info",
    "cache verify",
    "cache prune",
    "cache clear",
    "data",
    "data synth",
    "data check",
    "data convert",
]
TINY = [
    "--data.height=64",
    "--data.width=80",
    "--data.frames=4",
    "--data.val_frames=2",
    "--data.test_frames=2",
    "--data.preset=easy",
    "--augment.crop=32",
    "--encoder.widths=[4,4,4,4]",
    "--encoder.channels=4",
    "--train.steps=2",
    "--train.batch=2",
    "--train.threads=1",
]


@pytest.fixture
def run(capsys):
    """``status, out, err = run("train", "point", ...)``."""

    def call(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call


def complaint(result: tuple[int, str, str]) -> str:
    """The one line of a mistake."""
    status, out, err = result
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("boresight: ")
    return line


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: boresight {verb}".rstrip() in out
    if verb and verb not in ("data", "cache"):
        assert "--json" in out


def test_every_verb_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for verb in VERBS:
        assert verb.split()[0] in out


def test_the_version(capsys):
    import boresight

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"boresight {boresight.__version__}\n"


def test_help_settings_and_mistakes_need_no_torch(tmp_path):
    """All of them in one fresh interpreter: the answer to a mistake must come at once."""
    code = f"""
import contextlib, io, sys
from boresight.cli import main
calls = [verb.split() + ["--help"] for verb in {VERBS!r}] + [["train", "point", "--print_config"]]
for words in calls:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as stop:
            assert stop.code == 0, words
mistakes = [[], ["trian"], ["train", "piont"], ["train", "point", "--train.stpes", "4"], ["evaluate", "nowhere"],
            ["train", "point", "--config", "none.yaml"], ["train", "point", "--resume", "nowhere"],
            ["predict", "nowhere", "x.png"], ["compare", "none.yaml"], ["report", "nowhere"],
            ["data", "synth", "x", "--count", "0"], ["evaluate", "nowhere", "--limt", "4"]]
for words in mistakes:
    assert main(words) == 2, words
heavy = {{"torch", "numpy", "accelerate", "pyarrow", "scipy", "matplotlib", "PIL"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == []


def test_python_m_boresight(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "boresight", "trian"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean `train`?" in done.stderr


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_unknown_words_name_their_neighbours(run):
    assert "`trian`: did you mean `train`?" in complaint(run("trian"))
    assert "`piont`: did you mean `point`?" in complaint(run("train", "piont"))
    assert "`chekc`: did you mean `check`?" in complaint(run("data", "chekc", "x"))
    assert "`tets`: did you mean `test`?" in complaint(run("evaluate", "x", "--split", "tets"))
    assert "`--limt`: did you mean `--limit`?" in complaint(run("evaluate", "x", "--limt", "4"))
    assert "`--conut`: did you mean `--count`?" in complaint(run("data", "synth", "x", "--conut", "4"))
    assert "did you mean `train.steps`?" in complaint(run("train", "point", "--train.stpes", "4"))


def test_changed_data_of_a_judgement(run, tmp_path):
    words = ["evaluate", tmp_path / "x"]
    assert "`--data.rot`: did you mean `--data.root`?" in complaint(run(*words, "--data.rot", "y"))
    assert "`--data.rooot`: did you mean `--data.root`?" in complaint(run(*words, "--data.rooot", "y"))
    assert "unknown argument `--train.steps`" in complaint(run(*words, "--train.steps", "4"))
    assert "unknown argument `stray`" in complaint(run(*words, "stray"))
    assert "`--data.root` needs a value" in complaint(run(*words, "--data.root"))


def test_an_option_that_is_near_nothing_says_where_to_look(run):
    assert "see `boresight data synth --help`" in complaint(run("data", "synth", "x", "--zzz"))


def test_missing_words(run):
    assert "VERB" in complaint(run())
    assert "RUN" in complaint(run("evaluate"))
    assert "IMAGES" in complaint(run("predict", "run"))
    assert "ACTION" in complaint(run("data"))


def test_values_of_a_wrong_type(run):
    assert "--limit: invalid int value: 'few'" in complaint(run("evaluate", "x", "--limit", "few"))
    assert "`train.steps` = few: expected int" in complaint(run("train", "point", "--train.steps", "few"))


def test_a_mistake_leaves_no_folder(run, tmp_path):
    words = ["train", "point", "--runs", tmp_path / "runs"]
    complaint(run(*words, "--train.steps", "0"))
    complaint(run(*words, "--data.source=csv", "--data.root", tmp_path / "nowhere"))
    complaint(run(*words, *TINY, "--data.preset=hrad"))
    complaint(run(*words, *TINY, "--train.accumulate=3"))
    complaint(run(*words, *TINY, "--train.trackers=[wandbb]"))
    assert list((tmp_path / "runs").glob("*")) == []


def test_an_empty_split_and_a_missing_folder(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "points.csv").write_text("image,x,y\n")
    words = ["train", "point", "--runs", tmp_path / "runs", "--data.source=csv"]
    line = complaint(run(*words, f"--data.root={tmp_path}"))
    assert str(tmp_path) in line
    assert "no frames" in line
    assert "nowhere" in complaint(run(*words, f"--data.root={tmp_path / 'nowhere'}"))


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("x: wrong; mend it"), 2, "boresight: x: wrong; mend it\n"),
        (Failure("step 3: loss_cls is nan"), 1, "boresight: step 3: loss_cls is nan\n"),
        (Stopped("stopped after step 3"), 130, "boresight: stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "boresight: stopped\n"),
    ],
)
def test_what_happens_decides_the_status(run, monkeypatch, tmp_path, error, status, line):
    import boresight.run.synth as synth

    def broken(*args, **more):
        raise error

    monkeypatch.setattr(synth, "write_skyfield", broken)
    assert run("data", "synth", tmp_path / "x", "--json") == (status, "", line)


def test_a_bug_is_not_hidden(monkeypatch, tmp_path):
    import boresight.run.synth as synth

    monkeypatch.setattr(synth, "write_skyfield", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["data", "synth", str(tmp_path / "x")])


# --- settings --------------------------------------------------------------------------------------------------------


def test_the_printed_settings_can_be_read_again(capsys, tmp_path):
    from boresight.run.config import PointSettings
    from boresight.run.parse import nested, parse_settings

    file = tmp_path / "a.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["train", "point", "--train.steps", "7", "--print_config"])
    assert stop.value.code in (0, None)
    file.write_text(capsys.readouterr().out)
    settings = parse_settings(PointSettings, ["--config", str(file)])
    assert settings.train.steps == 7
    assert nested(settings) == yaml.safe_load(file.read_text()) | {"detector": "point"}


def test_a_mistake_beside_print_config(run):
    assert "did you mean `train.steps`?" in complaint(run("train", "point", "--print_config", "--train.stpes", "4"))


@pytest.mark.parametrize("form", ["--config FILE", "--config=FILE"])
def test_a_run_is_named_after_its_file(run, tmp_path, form, monkeypatch):
    file = tmp_path / "my study.yaml"
    file.write_text("train: {steps: 5}")
    import boresight.run.train as train

    monkeypatch.setattr(
        train, "train", lambda recipe, settings, root, quiet: {"run": str(root), "steps": settings.train.steps}
    )
    words = [word.replace("FILE", str(file)) for word in form.split()]
    for name in ("my study", "my study-2"):
        status, out, _ = run("train", "point", *words, "--runs", tmp_path / "runs", "--json")
        assert status == 0
        assert json.loads(out) == {"run": str(tmp_path / "runs" / name), "steps": 5}
    status, out, _ = run("train", "point", *words, "--runs", tmp_path / "runs", "--json", "--name", "other")
    assert json.loads(out)["run"] == str(tmp_path / "runs" / "other")


# --- from made frames to a judged run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "sky"
    assert main(["data", "synth", str(folder), "--preset", "easy", "--count", "5", "--seed", "3", "--quiet"]) == 0
    return folder


def test_made_frames_are_those_of_the_generator(made):
    import numpy as np

    from boresight.data.sky_settings import preset
    from boresight.data.skyfield import Skyfield

    sky = Skyfield(preset("easy"), count=5, seed=3)
    with open(made / "points.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for i, name in enumerate(sky.names):
        scene = sky[i]
        with Image.open(made / "images" / f"{name}.png") as picture:
            assert (np.asarray(picture) == scene.image[0].numpy()).all()
        mine = [(float(r["x"]), float(r["y"])) for r in rows if r["image"] == f"{name}.png"]
        assert np.array(mine).reshape(-1, 2) == pytest.approx(scene.points.xy.numpy(), abs=1e-4)
    assert sum(1 for _ in (made / "images").iterdir()) == 5


def test_made_frames_are_not_made_twice(made, run):
    before = (made / "points.csv").stat().st_mtime_ns
    assert "exists already" in complaint(run("data", "synth", made, "--count", "2"))
    assert (made / "points.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "named"), [(["--preset=hrad"], "hard"), (["--count=0"], "--count"), (["--seed=-1"], "seed")]
)
def test_frames_that_cannot_be_made(run, tmp_path, words, named):
    assert named in complaint(run("data", "synth", tmp_path / "x", *words))
    assert not (tmp_path / "x").exists()


def test_a_good_folder_passes_the_audit(made, run):
    status, out, _ = run("data", "check", made)
    assert status == 0
    assert out.splitlines()[-1].startswith("0 errors")
    status, out, _ = run("data", "check", made, "--json")
    assert status == 0
    assert json.loads(out)["errors"] == 0


def test_a_broken_folder_does_not(made, run, tmp_path):
    broken = Path(shutil.copytree(made, tmp_path / "broken"))
    first, second, *_ = sorted((broken / "images").iterdir())
    first.write_bytes(b"no image")
    with open(broken / "points.csv", "a", encoding="utf-8") as file:
        file.write(f"{second.name},9999,5,9,100,0\n")
    status, out, _ = run("data", "check", broken)
    assert status == 2
    assert any(line.startswith(f"{first}: ") for line in out.splitlines())
    assert any("9999" in line and second.name in line for line in out.splitlines())
    assert out.splitlines()[-1].startswith("2 errors")
    status, out, err = run("data", "check", broken, "--json")
    assert (status, err) == (2, "")
    found = json.loads(out)
    assert found["errors"] == 2
    assert {p["kind"] for p in found["problems"] if p["severity"] == "error"} == {"corrupt_image", "point_outside"}
    assert "boresight data check" in complaint(
        run("train", "point", "--runs", tmp_path / "runs", "--data.source=csv", f"--data.root={broken}", *TINY)
    )


def test_of_several_processes_one_speaks(made, run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run("data", "check", made, "--json") == (0, "", "")


def test_an_audit_of_nothing(run, tmp_path):
    assert "nowhere" in complaint(run("data", "check", tmp_path / "nowhere"))
    assert str(tmp_path) in complaint(run("data", "check", tmp_path))


def test_from_frames_to_figures(made, run, tmp_path, monkeypatch):
    """``data synth``, ``train``, ``evaluate``, ``predict``, as the README says it."""
    words = ["--data.source=csv", f"--data.root={made}", "--data.val_share=0.4"]
    runs = ["--runs", tmp_path / "runs", "--name", "first"]
    status, out, err = run("train", "point", *runs, *TINY, *words, "--json")
    assert status == 0, err
    done = json.loads(out.splitlines()[-1])
    assert done["run"] == str(tmp_path / "runs" / "first")
    assert done["steps"] == 2
    assert "2/2" in err

    status, out, err = run("evaluate", done["run"], "--split", "test", "--json", "--quiet")
    assert status == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert {"f1", "pd_at_0.1_false_alarms_per_frame", "intervals", "threshold"} <= set(figures)
    assert figures["frames"] == 2
    assert json.loads((tmp_path / "runs" / "first" / "evaluation.json").read_text())["schema_version"] == 1

    elsewhere = Path(shutil.copytree(made, tmp_path / "2024"))
    elsewhere.rename(tmp_path / "[2024")  # a name that YAML cannot read
    monkeypatch.chdir(tmp_path)
    status, out, err = run("evaluate", done["run"], "--data.root=[2024", "--data.val_share", "0.6", "--json", "--quiet")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["frames"] == 3
    kept = json.loads((tmp_path / "runs" / "first" / "evaluation.json").read_text())
    assert kept["data"] == {"root": "[2024", "val_share": "0.6"}
    assert "`data.val_share` = few" in complaint(run("evaluate", done["run"], "--data.val_share", "few", "--quiet"))

    status, out, err = run("evaluate", done["run"], "--split", "train", "--limit", "1", "--quiet")
    assert status == 0, err
    assert out.startswith("train: 1 frames")
    assert "F1 at the validated threshold" in out
    assert "Pd at 0.1 false alarms a frame" in out

    found = tmp_path / "found.json"
    status, out, err = run("predict", done["run"], made / "images", "--out", found, "--json", "--quiet")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["images"] == 5
    assert isinstance(json.loads(found.read_text()), list)
    assert found.with_suffix(".csv").is_file()

    assert "--limit 0" in complaint(run("evaluate", done["run"], "--limit", "0", "--quiet"))
    (tmp_path / "runs" / "first" / "checkpoints" / "last.safetensors").write_bytes(b"")
    assert "last.safetensors" in complaint(run("evaluate", done["run"], "--quiet"))


def test_training_ends_with_one_line(run, tmp_path):
    """Which run, how good, and what to type next."""
    status, out, err = run("train", "point", "--runs", tmp_path / "runs", "--name", "first", *TINY, "--quiet")
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    root = tmp_path / "runs" / "first"
    done = json.loads((root / "done.json").read_text())
    assert line.startswith(f"{root}: ")
    assert f"at threshold {done['threshold']:.3f} on the validation frames" in line
    assert line.endswith(f"next: boresight evaluate {root}")


def test_the_last_line_when_there_was_nothing_to_find(run, tmp_path, monkeypatch):
    import boresight.run.train as train

    monkeypatch.setattr(train, "train", lambda *args, **more: {"validation": {"f1": None}, "threshold": 0.5})
    status, out, err = run("train", "point", "--runs", tmp_path, "--name", "a", *TINY)
    assert (status, err) == (0, "")
    root = tmp_path / "a"
    assert out == f"{root}: no target found on the validation frames; next: boresight evaluate {root}\n"


def test_every_option_of_a_verb_is_its_own():
    """The loop's options must not hide a key of the settings (``--name`` is the folder's, not a group's)."""
    from boresight.run.config import PointSettings
    from boresight.run.parse import flatten

    parser = build_parser()
    args, rest = parser.parse_known_args(["train", "point", *(f"--{key}=1" for key in flatten(PointSettings()))])
    assert [word.removeprefix("--").removesuffix("=1") for word in rest] == list(flatten(PointSettings()))
    assert args.verb == "train"


def test_train_without_further_arguments_trains_the_defaults(run, tmp_path, monkeypatch):
    given = []

    def train(recipe, settings, root, **more):
        given.append((recipe.name, settings, root.name))
        return {"validation": {"f1": 0.5}, "threshold": 0.4}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("boresight.run.train.train", train)
    run("train", "point")
    from boresight.run.config import PointSettings

    assert given == [("point", PointSettings(), "point")]


# --- boxes -----------------------------------------------------------------------------------------------------------

TINY_BOXES = [
    "--data.kinds=[vehicle,storage tank]",
    "--data.colours=[yellow,black]",
    "--data.height=80",
    "--data.width=80",
    "--data.frames=4",
    "--data.val_frames=2",
    "--data.test_frames=2",
    "--clip.window=64",
    "--encoder.widths=[4,6,8,8]",
    "--encoder.channels=8",
    "--head.width=8",
    "--head.embed=8",
    "--head.depth=1",
    "--train.steps=2",
    "--train.batch=2",
    "--train.threads=1",
]
FOLDER = ["--data.source=coco", "--data.root=BOXES", "--data.val_share=0.5", "--data.test="]


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> Path:
    """Two made aerial scenes as a COCO folder."""
    folder = tmp_path_factory.mktemp("made") / "aerial"
    words = ["--kind", "aerial", "--count", "2", "--size", "128", "--seed", "3", "--quiet"]
    assert main(["data", "synth", str(folder), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def text_run(tmp_path_factory) -> Path:
    """A trained run of `text`."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "text", "--runs", str(folder), "--name", "a", "--quiet", *TINY_BOXES]) == 0
    return folder / "a"


def test_made_scenes_are_those_of_the_generator(boxes):
    from boresight.data.aerial import Aerial, AerialSettings
    from boresight.data.boxes import open_boxes

    made, read = Aerial(AerialSettings(height=128, width=128), count=2, seed=3, novel=False), open_boxes(boxes)
    assert read.classes == made.classes
    for i in range(2):
        assert (read[i].image == made[i].image).all()
        assert read[i].boxes.tolist() == [pytest.approx(box, abs=1e-3) for box in made[i].boxes.tolist()]
        assert read[i].labels.tolist() == made[i].labels.tolist()


def test_what_synth_says(run, tmp_path):
    words = ["data", "synth", tmp_path / "x", "--kind", "aerial", "--count", "1", "--size", "128", "--to", "yolo"]
    status, out, err = run(*words, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["images"], told["to"], told["out"]) == (1, "yolo", str(tmp_path / "x"))
    assert (tmp_path / "x" / "data.yaml").is_file()
    assert str(tmp_path / "x") in complaint(run(*words))  # not written over


def test_boxes_are_checked_as_boxes(boxes, run, tmp_path):
    for words in (["--detector", "text"], ["--detector", "localise", "--kind", "coco"]):
        status, out, err = run("data", "check", boxes, *words)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1].startswith("0 errors")
    broken = Path(shutil.copytree(boxes, tmp_path / "broken"))
    (table,) = broken.rglob("*.json")
    content = json.loads(table.read_text())
    content["annotations"][0]["bbox"] = [500, 5, 10, 10]
    table.write_text(json.dumps(content))
    status, out, err = run("data", "check", broken, "--detector", "text", "--json")
    assert (status, err) == (2, "")
    found = json.loads(out)
    assert found["errors"] == 1
    assert [p["kind"] for p in found["problems"] if p["severity"] == "error"] == ["box_outside"]
    assert str(table) in next(p["file"] for p in found["problems"] if p["severity"] == "error")


def test_boxes_are_converted_there_and_back(boxes, run, tmp_path):
    from boresight.data.boxes import open_boxes

    status, out, err = run("data", "convert", boxes, tmp_path / "voc", "--to", "voc")
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'voc'}: 2 images, ")
    status, out, err = run("data", "convert", tmp_path / "voc", tmp_path / "coco", "--to", "coco", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["images"] == 2
    first, last = open_boxes(boxes), open_boxes(tmp_path / "coco")
    for i in range(2):
        mine = sorted(
            (last.classes[k], *b) for k, b in zip(last[i].labels.tolist(), last[i].boxes.tolist(), strict=True)
        )
        want = sorted(
            (first.classes[k], *b) for k, b in zip(first[i].labels.tolist(), first[i].boxes.tolist(), strict=True)
        )
        assert [m[0] for m in mine] == [w[0] for w in want]
        assert [m[1:] for m in mine] == [pytest.approx(w[1:], abs=1e-3) for w in want]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "synth", "OUT", "--kind", "aerial", "--size", "64"], "too long for 64x64"),
        (["data", "synth", "OUT", "--kind", "aerial", "--to", "coc"], "did you mean `coco`?"),
        (["data", "synth", "OUT", "--kind", "aerail"], "did you mean `aerial`?"),
        (["data", "convert", "BOXES", "OUT", "--to", "vco"], "did you mean `voc`?"),
        (["data", "convert", "BOXES", "OUT", "--to", "voc", "--splits", "tarin"], "no split `tarin`"),
        (["data", "convert", "nowhere", "OUT", "--to", "voc"], "nowhere"),
        (["data", "convert", "BOXES", "BOXES", "--to", "voc"], "BOXES"),
        (["data", "check", "BOXES", "--detector", "txet"], "did you mean `text`?"),
        (["data", "check", "BOXES", "--detector", "point", "--kind", "voc"], "--kind voc: not read by `point`"),
        (["data", "check", "BOXES", "--detector", "text", "--kind", "csv"], "--kind csv: not read by `text`"),
        (["train", "text", "--recipe", "baselin"], "`recipe` = baselin"),
        (["train", "localise", "--clip.methdo", "gem"], "did you mean `clip.method`?"),
        (["train", "text", "--data.novel=[red shp]", *FOLDER], "did you mean `red ship`?"),
        (["train", "text", "--data.queries=[ship=boat]", *FOLDER], "`data.queries` names `ship`: no class of the data"),
        (["train", "text", "--clip.name=RemoteCLIP-ViT-B-23", "--clip.weights=none.pt"], "RemoteCLIP-ViT-B-32"),
    ],
)
def test_mistakes_with_boxes(words, told, boxes, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"OUT": str(tmp_path / "out"), "BOXES": str(boxes)}
    filled = [names.get(w, w.replace("BOXES", str(boxes))) for w in words]
    line = complaint(run(*filled))
    assert names.get(told, told) in line
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob("runs/*")) == []


def test_mistakes_with_boxes_need_no_torch(tmp_path):
    code = """
import contextlib, io, sys
from boresight.cli import main
for words in (["train", "text", "--print_config"], ["train", "localise", "--recipe=baseline", "--print_config"]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main(words)
        except SystemExit as stop:
            assert not stop.code, words
    assert "clip:" in out.getvalue()
mistakes = [["train", "text", "--assign.rule", "tall"], ["train", "text", "--config", "none.yaml"],
            ["train", "localise", "--head.side", "-1"], ["predict", "nowhere", "x.png", "--queries", "ship"],
            ["predict", "nowhere", "x.png", "--window", "10"], ["train", "text", "--resume", "nowhere"]]
for words in mistakes:
    assert main(words) == 2, words
heavy = {"torch", "numpy", "open_clip", "timm", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_printed_settings_of_a_recipe_can_be_read_again(capsys, tmp_path):
    from boresight.run.config_text import TextSettings
    from boresight.run.parse import parse_settings

    with pytest.raises(SystemExit) as stop:
        main(["train", "text", "--recipe", "baseline", "--loss.giou", "3", "--print_config"])
    assert stop.value.code in (0, None)
    file = tmp_path / "a.yaml"
    file.write_text(capsys.readouterr().out)
    settings = parse_settings(TextSettings, ["--config", str(file)])
    assert (settings.recipe, settings.assign.rule, settings.loss.giou) == ("baseline", "radius", 3.0)
    assert settings == parse_settings(TextSettings, ["--recipe", "baseline", "--loss.giou", "3"])


def test_from_scenes_to_answers(text_run, boxes, run, tmp_path):
    """``train text``, ``evaluate``, ``predict --queries``, as the README says it."""
    status, out, err = run("evaluate", text_run, "--quiet", "--limit", "1")
    assert (status, err) == (0, "")
    assert out.startswith("test: 1 images")
    assert "AP50 of classes never trained" in out

    found, drawn = tmp_path / "found.json", tmp_path / "drawn"
    words = [boxes / "images" / "train", "--out", found, "--overlays", drawn, "--threshold", "0", "--window", "64"]
    status, out, err = run(
        "predict", text_run, *words, "--queries", "ship, red aircraft|red plane", "--json", "--quiet"
    )
    assert (status, err) == (0, "")
    told = json.loads(out.splitlines()[-1])
    assert told["queries"] == ["ship", "red aircraft|red plane"]
    assert told["images"] == 2
    assert told["detections"] == len(json.loads(found.read_text())) > 0
    with open(found.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        assert {row["query"] for row in csv.DictReader(file)} <= {"ship", "red aircraft|red plane"}
    assert len(list(drawn.iterdir())) == 2


def test_mistakes_with_a_trained_run(text_run, boxes, made, run, tmp_path):
    words = ["predict", text_run, boxes / "images" / "train", "--out", tmp_path / "a.json"]
    assert "--queries `ship,,`: an empty query" in complaint(run(*words, "--queries", "ship,,"))
    assert "no word in it" in complaint(run(*words, "--queries", "ship| "))
    assert "--window 32: must be 64 pixels or more" in complaint(run(*words, "--window", "32"))
    assert "--threshold 2.0: must be between 0 and 1" in complaint(run(*words, "--threshold", "2"))
    assert "8 bits" in complaint(run("predict", text_run, made / "images", "--out", tmp_path / "a.json", "--quiet"))
    assert "did you mean `--queries`?" in complaint(run(*words, "--querys", "ship"))
    assert not (tmp_path / "a.json").exists()
    line = complaint(run("train", "localise", "--resume", text_run))
    assert "a run of `text`: boresight train text --resume" in line
