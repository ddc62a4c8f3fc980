"""Beginning from the weights of another run: what is taken, what is left, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.run.begin import begin_from
from boresight.run.checkpoint import load_checkpoint, save_checkpoint
from boresight.run.point import POINT
from boresight.run.text import TEXT
from boresight.run.train import train


def fresh(settings, classes=("target",), seed=1):
    torch.manual_seed(seed)
    return POINT.build(settings, classes)


def test_weights_and_statistics_are_taken(trained, tiny):
    weights = load_checkpoint(trained.checkpoints / "last.safetensors").weights
    detector = fresh(tiny())
    begun = begin_from(str(trained.root), POINT, tiny(), detector, load_checkpoint_classes(trained))
    assert (begun.step, begun.anew) == (6, ())
    state = detector.state_dict()
    assert begun.taken == len(weights) > 10
    assert all(torch.equal(state[k], v) for k, v in weights.items())
    assert any("running_mean" in k for k in weights)


def load_checkpoint_classes(run):
    return load_checkpoint(run.checkpoints / "last.safetensors").classes


def test_what_does_not_fit_begins_from_the_seed(trained, tiny):
    wide = replace(tiny(), encoder=replace(tiny().encoder, channels=8))
    detector, same = fresh(wide), fresh(wide)
    begun = begin_from(str(trained.checkpoints / "last.safetensors"), POINT, wide, detector, ("target",))
    assert 0 < begun.taken < len(detector.state_dict())
    assert begun.anew
    state, untouched = detector.state_dict(), same.state_dict()
    assert all(torch.equal(state[k], untouched[k]) for k in begun.anew)
    assert f"{len(begun.anew)} begin anew ({begun.anew[0]}" in begun.words()


def test_weights_of_classes_are_not_given_to_other_classes(trained, tiny, tmp_path):
    """As many classes with other names: the weights that hang on their number begin anew."""
    old = load_checkpoint(trained.checkpoints / "last.safetensors")
    assert old.classes != ("another",)
    detector, same = fresh(tiny(), ("another",)), fresh(tiny(), ("another",))
    begun = begin_from(str(trained.root), POINT, tiny(), detector, ("another",))
    more = fresh(tiny(), ("another", "more")).state_dict()
    of_classes = {k for k, v in detector.state_dict().items() if v.shape != more[k].shape}
    assert of_classes
    assert set(begun.anew) == of_classes
    assert all(torch.equal(detector.state_dict()[k], same.state_dict()[k]) for k in of_classes)


def test_a_training_begins_there_and_says_so(trained, tiny, tmp_path, capsys):
    """With a rate of nought it ends where the other one ended; a stopped one is not put back to the start."""
    keys = {"train.init": str(trained.root), "train.learning_rate": 1e-30, "train.steps": 3, "train.ema": 0.0}
    train(POINT, tiny(keys), tmp_path / "run")
    assert "weights are those of" in capsys.readouterr().err
    mine = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors").weights
    theirs = load_checkpoint(trained.checkpoints / "last.safetensors").weights
    for name, value in theirs.items():
        if "running" not in name and "tracked" not in name:
            assert torch.allclose(mine[name], value, atol=1e-6), name
    told = json.loads((tmp_path / "run" / "environment.json").read_text())["init"]
    assert (told["step"], told["anew"], told["taken"]) == (6, [], len(theirs))


def test_a_run_that_goes_on_does_not_begin_again(trained, tiny, tmp_path):
    """The state decides, not the checkpoint that it began from, which may be gone by then."""
    source = shutil.copytree(trained.root, tmp_path / "source")
    keys = {"train.init": str(source), "train.steps": 6, "train.checkpoint_every": 2}
    whole = tiny(keys)
    train(POINT, whole, tmp_path / "whole", quiet=True)
    train(POINT, whole, tmp_path / "cut", quiet=True)
    cut = tmp_path / "cut"
    (cut / "done.json").unlink()
    shutil.rmtree(source)
    train(POINT, whole, cut, quiet=True)
    one, two = (load_checkpoint(tmp_path / n / "checkpoints" / "last.safetensors").weights for n in ("whole", "cut"))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"detector": "text"}, "a checkpoint of `text`; give one of `point`"),
        ({"weights": {"a": torch.zeros(1)}}, "no weight has the name and shape"),
    ],
)
def test_what_cannot_be_used_is_refused(trained, tiny, tmp_path, change, said):
    old = load_checkpoint(trained.checkpoints / "last.safetensors")
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, replace(old, **change))
    with pytest.raises(UserError, match=said):
        begin_from(str(path), POINT, tiny(), fresh(tiny()), old.classes)


def test_features_of_another_encoder_are_refused(trained_text, tiny_text, tmp_path):
    old = load_checkpoint(trained_text.checkpoints / "last.safetensors")
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, replace(old, frozen={"clip": "0" * 32}))
    detector = TEXT.build(tiny_text(), old.classes)
    with pytest.raises(UserError, match="learned on features of another `clip` encoder"):
        begin_from(str(path), TEXT, tiny_text(), detector, old.classes)
    begun = begin_from(str(trained_text.root), TEXT, tiny_text(), detector, old.classes)
    assert not begun.anew
    assert "maps.text" not in detector.state_dict() or "maps.text" not in begun.anew


def test_the_command_line_names_what_is_missing(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "point", *arguments({"train.init": "runs/gone"}), "--name", "x", "--quiet"]) == 2
    assert "runs/gone: no such checkpoint" in capsys.readouterr().err
