"""Detectors are saved, pushed and loaded again as folders, and answer the same afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from boresight.core.errors import UserError
from boresight.run import hub
from boresight.run.hub import Pretrained
from boresight.run.point import POINT
from boresight.run.predict import load_trained
from boresight.run.text import TEXT


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "point"
    Pretrained.of_run(trained).save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "spoilt"))


def test_a_folder_answers_as_the_run_does(saved, trained):
    model = Pretrained.from_pretrained(saved)
    run = load_trained(trained)
    scene = POINT.frames(run.settings, "test").test[0]
    with torch.inference_mode():
        [wanted] = run.detector.decode(run.detector([scene]))
    [found] = model([scene], threshold=0.0)
    assert len(found) > 3
    assert torch.equal(found.scores, wanted.scores)
    assert torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.cell, wanted.cell)
    assert model.checkpoint.threshold == run.checkpoint.threshold
    [few] = model([scene], threshold=float(found.scores[2]))
    assert len(few) == 3
    assert not model.detector.training


def test_what_lies_in_the_folder(saved, trained):
    assert sorted(p.name for p in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    checkpoint = load_trained(trained).checkpoint
    assert config["format"] == "boresight-model-1"
    assert config["detector"] == "point"
    assert config["settings"] == json.loads(json.dumps(checkpoint.settings))
    text = (saved / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: boresight\n")
    assert "finds dim point targets" in text
    assert f"chosen on the validation images: {checkpoint.threshold:.4f}" in text
    for name in checkpoint.figures:
        assert f"| {name} |" in text


def test_the_figures_of_the_last_evaluation_stand_on_the_card(copied, tmp_path):
    copied.evaluation.write_text(json.dumps({"schema_version": 1, "split": "test", "f1": 0.12345, "curve": [1, 2]}))
    Pretrained.of_run(copied.root).save_pretrained(tmp_path / "a")
    Pretrained.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")  # and on that of a copy
    for name in "ab":
        text = (tmp_path / name / "README.md").read_text()
        assert "| f1 | 0.1235 |" in text or "| f1 | 0.1234 |" in text
        assert "curve" not in text


def test_a_text_detector_finds_its_frozen_encoder_again(trained_text, one_clip, tmp_path):
    Pretrained.of_run(trained_text).save_pretrained(tmp_path)
    assert not any("visual" in name for name in Pretrained.from_pretrained(tmp_path).checkpoint.weights)
    run = load_trained(trained_text)
    model = Pretrained.from_pretrained(tmp_path, expect="text", settings={"clip": {"store_mb": 7}})
    assert model.trained.settings.clip.store_mb == 7
    scene = TEXT.frames(run.settings, "test").test[0]
    with torch.inference_mode():
        [wanted] = run.detector.decode(run.detector([scene]))
    [found] = model([scene], threshold=0.0)
    assert torch.equal(found.scores, wanted.scores)


def test_pushing_sends_that_folder(trained, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, **what):
            folder = Path(what["folder_path"])
            sent.update(what, files=sorted(p.name for p in folder.iterdir()))
            sent["loaded"] = Pretrained.from_pretrained(folder).checkpoint.detector
            return "https://hub/commit"

    import huggingface_hub.hub_mixin as mixin

    monkeypatch.setattr(mixin, "HfApi", Api)
    assert Pretrained.of_run(trained).push_to_hub("me/point", private=True, token="t") == "https://hub/commit"
    assert sent["files"] == ["README.md", "config.json", "model.safetensors"]
    assert (sent["repo_id"], sent["loaded"], sent["token"]) == ("me/point", "point", "t")


def test_a_repository_is_fetched_without_what_is_not_needed(saved, monkeypatch):
    import huggingface_hub.hub_mixin as mixin

    asked = {}

    def snapshot(model_id, **more):
        asked.update(more, model_id=model_id)
        return str(saved)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(mixin, "hf_hub_download", lambda **more: str(saved / "config.json"))
    model = Pretrained.from_pretrained("me/point", revision="v1")
    assert model.checkpoint.detector == "point"
    assert (asked["model_id"], asked["revision"]) == ("me/point", "v1")
    assert asked["allow_patterns"] == ["model.safetensors", "config.json"]


def test_what_is_wrong_is_told_in_a_line(saved, spoilt, tmp_path):
    def fails(folder: Path, **more) -> str:
        with pytest.raises(UserError) as told:
            Pretrained.from_pretrained(folder, **more)
        assert "\n" not in str(told.value)
        return str(told.value)

    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in fails(tmp_path / "empty")
    assert "a model of `point`, not of `text`" in fails(saved, expect="text")
    weights, config = spoilt / "model.safetensors", spoilt / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors: damaged" in fails(spoilt)
    weights.unlink()
    assert "model.safetensors: no such file" in fails(spoilt)
    weights.write_bytes(whole)
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"threshold": 0.123}))
    assert "config.json and model.safetensors disagree on `threshold`" in fails(spoilt)
    config.write_text(json.dumps({"model_type": "bert"}))
    assert "not a model of this program" in fails(spoilt)
    config.write_text("{")
    assert "cannot be read as JSON" in fails(spoilt)
    assert "settings" in fails(saved, settings={"heed": {"level": "p2"}}) or "heed" in fails(
        saved, settings={"heed": {"level": "p2"}}
    )


def test_a_name_that_is_neither_folder_nor_repository(tmp_path):
    with pytest.raises(UserError, match="no folder here, and cannot be had from the hub"):
        Pretrained.from_pretrained("me/there is none", local_files_only=True)
    with pytest.raises(UserError, match="cannot be had from the hub"):
        Pretrained.from_pretrained("me/none", local_files_only=True, cache_dir=tmp_path)
