from __future__ import annotations

import json
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml

from boresight.cli import main
from boresight.core.errors import Failure, UserError
from boresight.run import compare, jobs
from boresight.run.compare import run_study, steps_to
from boresight.run.jobs import judged, run_jobs
from boresight.run.parse import nested, read_yaml
from boresight.run.record import RunFolder, read_parquet, write_json, write_parquet, write_yaml
from boresight.run.study import merged, read_study

PLAIN = {
    "name": "labels",
    "seeds": 2,
    "reference": "soft",
    "base": {"train": {"steps": 40}},
    "datasets": {"sky": {"data": {"preset": "easy"}}, "dark": {"data": {"preset": "hard"}, "train": {"batch": 4}}},
    "variants": {"hard": {"target": {"label": "hard"}}, "soft": None, "long": {"train": {"steps": 80}}},
}


@pytest.fixture
def written(tmp_path):
    """``written({...})``: a study with these keys changed (None: taken out), as a file."""

    def write(**changes) -> Path:
        file = tmp_path / "study.yaml"
        content = {k: v for k, v in (PLAIN | changes).items() if v is not None}
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write


def error_of(file, **more) -> str:
    with pytest.raises(UserError) as caught:
        read_study(file, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_settings_are_laid_over_each_other(written):
    study = read_study(written())
    assert (study.name, study.reference, study.seeds) == ("labels", "soft", (0, 1))
    assert study.datasets == ("sky", "dark")
    assert study.variants == ("hard", "soft", "long")
    assert study.settings["sky", "hard"].target.label == "hard"
    assert study.settings["sky", "soft"].target.label == "gaussian"
    assert [study.settings["dark", v].train.steps for v in study.variants] == [40, 40, 80]
    assert {study.settings["dark", v].train.batch for v in study.variants} == {4}
    assert study.settings["dark", "long"].data.preset == "hard"


def test_defaults(tmp_path):
    file = tmp_path / "plain.yaml"
    file.write_text("variants: {a: {}, b: {train: {steps: 5}}}")
    study = read_study(file)
    assert (study.name, study.reference, study.seeds, study.datasets) == ("plain", "a", (0, 1, 2), ("data",))


def test_seeds_and_data_sets_can_be_chosen(written):
    study = read_study(written(), seeds=5, only=["dark"])
    assert study.command.endswith(" --only dark --seeds 5")  # as it was run
    assert study.seeds == (0, 1, 2, 3, 4)
    assert study.datasets == ("dark",)


def test_merging_does_not_touch_its_inputs():
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}}
    assert merged(base, over) == {"a": {"b": 9, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_unknown_keys_name_their_neighbours(written):
    assert "unknown key `varaints`: did you mean `variants`?" in error_of(written(varaints={"a": {}}))
    message = error_of(written(variants={"a": {"train": {"stpes": 4}}, "soft": {}}))
    assert "unknown key `train.stpes`: did you mean `steps`?" in message
    assert "(sky, a)" in message


def test_wrong_values_say_where(written):
    assert "(dark, hard)" in error_of(written(datasets={"dark": {"train": {"steps": 0}}}))
    assert "`train.steps` = many: expected int" in error_of(written(base={"train": {"steps": "many"}}))


def test_a_reference_must_be_a_variant(written):
    assert "`reference` = sotf: no such variant: did you mean `soft`?" in error_of(written(reference="sotf"))
    assert "`reference` = {'a': 1}: no such variant" in error_of(written(reference={"a": 1}))
    assert "`detector` = ['point']: not known" in error_of(written(detector=["point"]))


def test_a_detector_must_be_known(written):
    assert "`detector` = pint" in error_of(written(detector="pint"))


@pytest.mark.parametrize("seeds", [0, -1, "three", [0, 1], 1.5, True, 10**9, 10**90])
def test_seeds_are_a_number(written, seeds):
    assert "`seeds`" in error_of(written(seeds=seeds))


def test_seeds_from_the_command_line(written):
    assert "`seeds` = 0" in error_of(written(), seeds=0)


@pytest.mark.parametrize("variants", [[], {}, None, ["a"], "a", {"a": 5}])
def test_variants_are_a_mapping(written, variants):
    assert "`variants`" in error_of(written(variants=variants))


@pytest.mark.parametrize("base", [5, ["train"]])
def test_a_base_is_a_mapping(written, base):
    assert "`base`" in error_of(written(base=base))


@pytest.mark.parametrize("name", [False, 3, "a/b", "..", ""])
def test_names_must_do_for_folders(written, name):
    """YAML reads `off` as False."""
    assert "`variants`" in error_of(written(variants={name: {}, "soft": {}}))


def test_a_name_of_the_study_must_do_for_a_folder(written):
    assert "`name`" in error_of(written(name="../else"))


def test_a_data_set_that_is_not_there(written):
    assert "--only drak" in (message := error_of(written(), only=["drak"]))
    assert "did you mean `dark`?" in message


def test_a_file_that_is_not_there(tmp_path):
    assert "no such file" in error_of(tmp_path / "none.yaml")


# --- comparing -------------------------------------------------------------------------------------------------------


def test_steps_to_a_share_by_hand():
    judged = [(10, 0.2), (20, 0.6), (30, 0.5), (40, 0.8)]
    assert steps_to(judged, 0.5) == pytest.approx(15.0)  # 0.4 lies half way from 0.2 to 0.6
    assert steps_to(judged, 0.125) == pytest.approx(5.0)  # 0.1 on the way from (0, 0) to (10, 0.2)
    assert steps_to(judged, 0.7) == pytest.approx(19.0)  # the fall that follows does not count
    assert steps_to(judged, 0.9) == pytest.approx(30 + 10 * (0.72 - 0.5) / 0.3)
    assert steps_to(judged, 1.0) == 40
    assert steps_to([(10, 0.9), (20, 0.5)], 0.8) == pytest.approx(10 * 0.4 / 0.9)  # it had been better
    assert steps_to([(10, 0.3), (20, 0.0)], 0.8) is None
    assert steps_to([], 0.8) is None


def test_one_judgement_tells_no_speed():
    assert steps_to([(600, 0.8)], 0.8) is None
    assert steps_to([(600, 0.8)], 1.0) is None


def test_what_does_not_begin_at_zero_is_told_from_the_first_judgement_on():
    judged = [(10, 0.6), (20, 0.7), (30, 0.8)]
    assert steps_to(judged, 0.7, from_zero=False) is None  # somewhere before step 10
    assert steps_to(judged, 0.7) == pytest.approx(10 * 0.56 / 0.6)
    assert steps_to(judged, 0.9, from_zero=False) == pytest.approx(20 + 10 * 0.02 / 0.1)


F1 = {"soft": (0.8, 0.9), "hard": (0.5, 0.7), "long": (0.9, 0.95)}


def finish(root: Path) -> None:
    """What a finished run leaves: made up from its configuration."""
    run, settings = RunFolder(root), read_yaml(root / "config.yaml")
    variant, seed = root.parent.name, settings["train"]["seed"]
    f1 = F1[variant][seed]
    hits = round(10 * f1)
    write_json(
        run.evaluation,
        {
            "split": "test",
            "checkpoint": "last",
            "limit": None,
            "f1": f1,
            "f1_at_half": f1 / 2,
            "pd_at_0.1_false_alarms_per_frame": f1,
            "pd_at_1_false_alarms_per_frame": f1,
            "rmse": None if variant == "hard" else 1 - f1,
            "per_image": {"tp": [hits, hits], "fp": [1, 0], "fn": [10 - hits, 10 - hits]},
        },
    )
    write_parquet(
        run.metrics, [{"step": 10, "val_f1": f1 / 2}, {"step": 15, "val_f1": None}, {"step": 20, "val_f1": f1}]
    )


@pytest.fixture
def at_once(monkeypatch):
    """Runs are finished without training; the list says which."""
    done: list[Path] = []

    def run(roots, **more):
        for root in roots:
            if not judged(RunFolder(root)):
                finish(root)
                done.append(root)

    monkeypatch.setattr(compare, "run_jobs", run)
    return done


def test_a_study_is_compared_in_pairs(written, at_once, tmp_path):
    study = read_study(written())
    comparison = run_study(study, tmp_path / "out")
    assert len(at_once) == 2 * 3 * 2
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {k: v for k, v in kept.items() if k != "schema_version"} == comparison
    sky = comparison["datasets"]["sky"]
    assert sky["soft"]["figures"]["f1"] == {
        "values": [0.8, 0.9], "mean": pytest.approx(0.85), "sd": pytest.approx(0.1 / 2**0.5)
    }  # fmt: skip
    assert sky["soft"]["difference"] is None
    difference = sky["hard"]["difference"]
    assert difference["f1"]["estimate"] == pytest.approx(-0.25)  # variant less reference
    assert difference["f1"]["low"] < -0.25 < difference["f1"]["high"]
    assert difference["f1"]["pairs"] == 2
    assert sky["long"]["difference"]["f1"]["estimate"] == pytest.approx(0.075)
    assert difference["rmse"] is None  # nothing was hit, nothing is known
    assert sky["hard"]["figures"]["rmse"] == {"values": [None, None], "mean": None, "sd": None}
    assert sky["long"]["difference"]["rmse"]["estimate"] == pytest.approx(-0.075)
    assert difference["f1_by_seed_and_image"]["estimate"] < 0
    assert sky["long"]["difference"]["f1_by_seed_and_image"]["estimate"] > 0
    # F1 rises to half at step 10 and to its end at 20: 0.8 of it lies at 16
    assert sky["soft"]["figures"]["steps_to_0.8_of_final_f1"]["values"] == [pytest.approx(16.0)] * 2


def test_one_seed_has_no_interval(written, at_once, tmp_path):
    comparison = run_study(read_study(written(), seeds=1, only=["sky"]), tmp_path / "out")
    hard = comparison["datasets"]["sky"]["hard"]
    assert hard["figures"]["f1"]["sd"] is None
    assert hard["difference"]["f1"]["low"] is None
    assert hard["difference"]["f1"]["clear"] is False


def test_runs_of_a_pair_share_their_seed_and_thread(written, at_once, tmp_path):
    run_study(read_study(written()), tmp_path / "out")
    for variant in ("hard", "soft", "long"):
        for seed in (0, 1):
            train = read_yaml(tmp_path / "out" / "dark" / variant / f"seed-{seed}" / "config.yaml")["train"]
            assert (train["seed"], train["threads"]) == (seed, 1)


def test_a_study_that_was_stopped_continues(written, at_once, tmp_path, monkeypatch):
    study = read_study(written())
    run_study(study, tmp_path / "out")
    first = list(at_once)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("evaluation.json")}
    lost = first[3]
    RunFolder(lost).evaluation.unlink()
    run_study(study, tmp_path / "out")
    assert at_once[len(first) :] == [lost]
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p.parent != lost)
    run_study(read_study(written(), seeds=2), tmp_path / "out")
    assert len(at_once) == len(first) + 1


OTHERWISE = [{"split": "val"}, {"limit": 2}, {"checkpoint": "best"}, {"data": {"root": "elsewhere"}}]


@pytest.mark.parametrize("otherwise", OTHERWISE, ids=lambda about: next(iter(about)))
def test_a_run_that_was_judged_otherwise_is_judged_again(written, at_once, tmp_path, monkeypatch, otherwise):
    """Somebody looked at one run by hand: its figures are not those that the study compares."""
    study = read_study(written(), seeds=1, only=["sky"])
    comparison = run_study(study, tmp_path / "out")
    looked_at = RunFolder(at_once[1])
    figures = json.loads(looked_at.evaluation.read_text()) | {"f1": 0.0} | otherwise
    write_json(looked_at.evaluation, figures)
    assert not judged(looked_at)
    assert run_study(study, tmp_path / "out") == comparison
    assert at_once[3:] == [looked_at.root]
    assert judged(looked_at)


def test_more_seeds_and_variants_can_be_added(written, at_once, tmp_path, monkeypatch):
    monkeypatch.setitem(F1, "new", (0.1, 0.1))
    run_study(read_study(written(), seeds=1), tmp_path / "out")
    count = len(at_once)
    run_study(read_study(written(variants=PLAIN["variants"] | {"new": {}}), seeds=2), tmp_path / "out")
    assert len(at_once) == 2 * 4 * 2
    assert count == 2 * 3


def test_changed_settings_are_refused(written, at_once, tmp_path):
    run_study(read_study(written()), tmp_path / "out")
    with pytest.raises(UserError, match="seed-0: trained with other settings; choose another --runs"):
        run_study(read_study(written(base={"train": {"steps": 41}})), tmp_path / "out")


def test_a_run_from_before_a_key_was_known_is_taken_as_it_is(written, at_once, tmp_path):
    """Keys come with defaults that leave older runs what they were."""
    first = run_study(read_study(written()), tmp_path / "out")
    for config in (tmp_path / "out").rglob("config.yaml"):
        lines = config.read_text().splitlines(keepends=True)
        assert any("init:" in line for line in lines)
        config.write_text("".join(line for line in lines if "init:" not in line))
    assert run_study(read_study(written()), tmp_path / "out") == first


def test_the_command(written, at_once, tmp_path, capsys):
    words = ["compare", str(written()), "--runs", str(tmp_path / "runs"), "--quiet"]
    assert main([*words, "--json", "--seeds", "2"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["study"] == "labels"
    assert line["datasets"]["sky"]["hard"]["difference"]["f1"]["estimate"] == pytest.approx(-0.25)
    assert Path(line["report"]).is_file()
    assert (tmp_path / "runs" / "labels" / "comparison.json").is_file()
    assert main([*words, "--only", "dark"]) == 0
    assert "hard" in capsys.readouterr().out


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_run_is_trained_and_judged_in_a_process_of_its_own(tiny, tmp_path, capsys):
    root = tmp_path / "variant" / "seed-0"
    write_yaml(root / "config.yaml", nested(tiny({"train.steps": 2, "data.test_frames": 2})))
    run_jobs([root], jobs=1, threads=1, label="study", total=2)
    run = RunFolder(root)
    assert json.loads(run.evaluation.read_text())["frames"] == 2
    assert [r["step"] for r in read_parquet(run.metrics)] == [1, 2]
    assert run.environment.is_file()
    assert "2/2" in (root / "log.txt").read_text()
    err = capsys.readouterr().err
    assert "study 2/2 · variant/seed-0 loss" in err
    before = run.evaluation.stat().st_mtime_ns
    run_jobs([root], jobs=1, threads=1, label="study", total=0, quiet=True)
    assert run.evaluation.stat().st_mtime_ns == before
    weights = (run.checkpoints / "last.safetensors").stat().st_mtime_ns
    assert main(["evaluate", str(root), "--limit", "1", "--quiet"]) == 0
    assert not judged(run)
    run_jobs([root], jobs=1, threads=1, label="study", total=0, quiet=True)
    assert judged(run)
    assert json.loads(run.evaluation.read_text())["frames"] == 2
    assert (run.checkpoints / "last.safetensors").stat().st_mtime_ns == weights  # judged again, not trained again


def test_a_run_that_fails_is_named(tmp_path):
    root = tmp_path / "variant" / "seed-0"
    (root).mkdir(parents=True)
    (root / "config.yaml").write_text("train: {stpes: 4}")
    with pytest.raises(Failure, match=r"seed-0: boresight: .*unknown key `train.stpes`.*log\.txt.*continue"):
        run_jobs([root], jobs=2, threads=1, label="study", total=4, quiet=True)
    assert "stpes" in (root / "log.txt").read_text()


class Late:
    """A process that ends when it is told to, or at once with a failure."""

    started: ClassVar[list[Late]] = []

    def __init__(self, command, **more):
        import io
        import threading

        self.fails, self.ended = command[-1].endswith("bad"), threading.Event()
        self.stderr = io.StringIO("the last line\n")
        Late.started.append(self)

    def wait(self):
        if self.fails:
            return 1
        assert self.ended.wait(20)
        return 130

    def terminate(self):
        self.ended.set()


def test_a_failure_ends_the_others_at_once(tmp_path, monkeypatch):
    """The one that fails is the last of those under way; nobody waits for the first to come to its end."""
    monkeypatch.setattr(jobs.subprocess, "Popen", Late)
    Late.started.clear()
    roots = [tmp_path / name for name in ("a", "b", "bad", "never")]
    for root in roots:
        root.mkdir()
    with pytest.raises(Failure, match="bad: the last line"):
        run_jobs(roots, jobs=3, threads=1, label="study", total=4, quiet=True)
    assert all(p.ended.is_set() for p in Late.started)


def test_ctrl_c_ends_them_all(tmp_path, monkeypatch):
    """The processes are asked to save and end; those that were not started never are."""
    monkeypatch.setattr(jobs.subprocess, "Popen", Late)
    monkeypatch.setattr(jobs, "as_completed", interrupted)
    Late.started.clear()
    roots = [tmp_path / name for name in ("a", "b", "c")]
    for root in roots:
        root.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(roots, jobs=2, threads=1, label="study", total=4, quiet=True)
    assert len(Late.started) == 2
    assert all(p.ended.is_set() for p in Late.started)


def interrupted(futures):
    while len(Late.started) < 2:
        time.sleep(0.001)
    raise KeyboardInterrupt


def test_numbers_of_a_study_are_plain(written, at_once, tmp_path):
    comparison = run_study(read_study(written()), tmp_path / "out")
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert np.isfinite(comparison["datasets"]["sky"]["soft"]["figures"]["f1"]["mean"])
