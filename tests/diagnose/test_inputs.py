"""A detector that was trained on pictures of another form is told from one that boxes or names badly."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boresight.core.emission import Missing
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.inputs import FORMS, IMAGES, OBJECTS, Otherwise, otherwise
from boresight.diagnose.rules_inputs import forms

_spec = importlib.util.spec_from_file_location("diagnose_grid", Path(__file__).with_name("grid.py"))
grid = sys.modules.setdefault("diagnose_grid", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(grid)

BY_NAME = {form.name: form for form in FORMS}


class Seeing(grid.Made):
    """Good on the pictures that it was trained on, and of any other it takes the objects for the next class.

    ``trained`` makes what it was trained on of a scene's image, ``look`` what it is given.
    """

    def __init__(self, trained, look=lambda image: image, wrong=None):
        super().__init__()
        self.trained, self.look, self.wrong, self.asked = trained, look, wrong or next_class, 0

    def through(self, look):
        return type(self)(self.trained, look, self.wrong)

    def emit(self, scene):
        self.asked += 1
        emission = super().emit(scene)
        known = torch.allclose(self.look(scene.image), self.trained(scene.image), atol=1e-2)
        return emission if known else self.wrong(emission)


def next_class(emission):
    return replace(emission, scores=emission.scores.roll(1, 0))


def nowhere(emission):
    """Numbers that are none, as of an overflow."""
    return replace(emission, scores=emission.scores * float("nan"))


@pytest.fixture(scope="module")
def scenes():
    drawn = torch.Generator().manual_seed(0)
    made = grid.made_scenes(80)
    return [replace(s, image=255 * torch.rand(s.image.shape, generator=drawn)) for s in made]


def test_a_picture_of_every_form_is_another(scenes):
    image = scenes[0].image
    shown = [image, *(form.look(image) for form in FORMS)]
    assert all(s.shape == image.shape for s in shown)
    for i, one in enumerate(shown):
        for other in shown[:i]:
            assert float((one - other).abs().mean()) > 0.5
    twice = BY_NAME["not normalised"].look(BY_NAME["normalised"].look(image))
    assert torch.allclose(twice, image, atol=1e-3)
    assert torch.equal(BY_NAME["bgr"].look(image)[0], image[2])
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 2, 2)
    assert torch.allclose(BY_NAME["normalised"].look(255 * mean), torch.zeros(3, 2, 2), atol=1e-4)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_a_detector_of_another_form_is_fed_wrongly(scenes, form):
    told = diagnose(audit(Seeing(form.look), scenes), replicates=60)
    assert told.verdict.word == "data", told.verdict.sentence
    assert f"on images {form.shown}" in told.verdict.sentence
    (finding,) = told.findings
    assert (finding.id, finding.severity) == ("inputs-not-as-trained", "error")
    assert (finding.cause, finding.remedy) == (form.cause, form.remedy)
    gains = told.to_dict()["inputs"]["gains"]
    assert {name for name, gain in gains.items() if gain["value"] > 0.01} == {form.name}


def test_a_detector_that_is_fed_well_is_healthy(scenes):
    told = diagnose(audit(Seeing(lambda image: image), scenes), replicates=60)
    assert told.verdict.word == "healthy", told.verdict.sentence
    assert told.findings == ()
    assert max(gain["value"] for gain in told.figures["inputs"]["gains"].values()) <= 0


class Coloured(Seeing):
    """Its classes are exchanged, and exchanged colours bring two of the three back."""

    def emit(self, scene):
        emission = grid.Made.emit(self, scene)
        known = torch.equal(self.look(scene.image), scene.image.flip(0))
        return replace(emission, scores=emission.scores.roll(1, 0)[[0, 2, 1] if known else [0, 1, 2]])


def test_what_repairs_more_has_the_word(scenes):
    told = diagnose(audit(Coloured(lambda image: image), scenes), replicates=60)
    assert told.figures["inputs"]["gains"]["bgr"]["value"] > 0.2
    assert told.verdict.word == "classification", told.verdict.sentence
    assert told.findings == ()


def test_numbers_that_are_none_are_no_detections(scenes):
    found = otherwise(Seeing(lambda image: image, wrong=nowhere), scenes[:3])
    assert isinstance(found, Otherwise)
    assert all(len(d) for d in found.as_is)
    assert not any(len(d) for shown in found.shown.values() for d in shown)


def test_enough_is_shown_and_no_more(scenes):
    empty = replace(scenes[0], boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    found = otherwise(Seeing(lambda image: image), [empty, *scenes])
    objects = [len(s.boxes) for s in found.scenes]
    assert sum(objects) >= OBJECTS > sum(objects[:-1])
    assert all(len(found.shown[form.name]) == len(objects) == len(found.as_is) for form in FORMS)
    single = [replace(s, boxes=s.boxes[:1], labels=s.labels[:1]) for s in scenes]
    assert len(otherwise(Seeing(lambda image: image), single).scenes) == IMAGES
    seen = audit(Seeing(lambda image: image), iter(scenes)).inputs
    assert [s.name for s in seen.scenes] == [s.name for s in found.scenes]
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(seen.as_is, found.as_is, strict=True))


def test_what_cannot_be_said(scenes):
    plain = diagnose(audit(grid.Made(), scenes), replicates=20)
    assert plain.to_dict()["inputs"] == {"missing": "the source cannot show its model another picture (`through`)"}
    assert "inputs" not in plain.figures["missing"]
    source = Seeing(BY_NAME["bgr"].look)
    unasked = diagnose(audit(source, scenes, inputs=False), replicates=20)
    assert unasked.figures["inputs"] == {"missing": "it was not asked for"}
    assert (unasked.verdict.word, source.asked) == ("classification", len(scenes))
    few = forms(otherwise(source, scenes[:5]), 3)
    assert isinstance(few, Missing)
    assert "are needed" in few.reason

    class Mute(Seeing):
        def through(self, look):
            return Missing("it will not say")

    assert otherwise(Mute(lambda image: image), scenes) == Missing("it will not say")
