"""Runs of the text-query detector and of its localisation alone: settings, folder, figures, and going on."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from boresight.cli import main
from boresight.core.errors import Stopped, UserError
from boresight.core.types import Scene
from boresight.detectors.gt_class import GtClass
from boresight.detectors.text_query import TextQuery
from boresight.features.cache import FeatureCache
from boresight.features.clip import FrozenClip, Preprocess
from boresight.features.rgb import SqueezePyramid
from boresight.run import train as train_module
from boresight.run.boxes import box_splits
from boresight.run.checkpoint import load_checkpoint, save_checkpoint
from boresight.run.config_text import BASELINE, LocaliseSettings, TextSettings
from boresight.run.evaluate import evaluate_run
from boresight.run.localise import LOCALISE, localise_summary
from boresight.run.parse import flat_keys, flatten, nested, parse_settings, settings_from
from boresight.run.predict import load_trained
from boresight.run.record import RunFolder, read_parquet
from boresight.run.text import TEXT, box_summary, text_detector
from boresight.run.text_parts import image_encoder
from boresight.run.train import train

pytestmark = pytest.mark.usefixtures("one_clip")

RULES = ("radius", "inside", "atss", "tal", "simota")
SCORES = ("hard", "centerness", "qfl", "vfl", "tal", "mal")
CLASSES = ("yellow vehicle", "black storage tank")
NOVEL = ("black vehicle", "yellow storage tank")


def strict(path: Path):
    """JSON without NaN and infinity, which are none."""

    def refuse(word):
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def digits(run: RunFolder) -> list[dict]:
    """Everything in the metrics but times."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("time_", "feature_"))} for row in read_parquet(run.metrics)
    ]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TextSettings, LocaliseSettings])
def test_a_recipe_is_a_set_of_defaults(kind):
    plain, chosen = flatten(kind()), flatten(parse_settings(kind, ["--recipe", "baseline"]))
    values = flat_keys(BASELINE) | {"recipe": "baseline"}
    assert values["assign.rule"] == "radius"
    assert values["decode.threshold"] == 0.3
    assert chosen == plain | values
    assert flatten(parse_settings(kind, ["--recipe=boresight"])) == plain


@pytest.mark.parametrize(
    "words",
    [
        ["--recipe", "baseline", "--assign.rule", "atss", "--decode.threshold=0.1"],
        ["--assign.rule=atss", "--decode.threshold", "0.1", "--recipe=baseline"],
        ["--recipe", "boresight", "--assign.rule=atss", "--decode.threshold=0.1", "--recipe", "baseline"],
    ],
)
def test_what_is_given_by_name_overrides_the_recipe(words):
    settings = parse_settings(TextSettings, words)
    assert (settings.assign.rule, settings.decode.threshold) == ("atss", 0.1)
    rest = flat_keys(BASELINE) | {"assign.rule": "atss", "decode.threshold": 0.1, "recipe": "baseline"}
    assert flatten(settings) == flatten(TextSettings()) | rest


def test_a_file_may_name_the_recipe(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("recipe: baseline\nassign: {radius: 2.5}\n")
    settings = parse_settings(TextSettings, ["--config", str(file), "--loss.giou=3"])
    assert (settings.recipe, settings.assign.rule, settings.assign.radius) == ("baseline", "radius", 2.5)
    assert (settings.loss.l1, settings.loss.giou) == (1.0, 3.0)
    other = parse_settings(TextSettings, [f"--config={file}", "--recipe", "boresight"])
    assert (other.recipe, other.assign.rule, other.assign.radius) == ("boresight", "tal", 2.5)


@pytest.mark.parametrize("kind", [TextSettings, LocaliseSettings])
@pytest.mark.parametrize("words", [[], ["--recipe=baseline", "--loss.l1=0.5", "--clip.layers=[]"]])
def test_settings_that_are_written_are_read_again(kind, words, tmp_path):
    settings = parse_settings(kind, words)
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(nested(settings)))
    assert settings_from(kind, yaml.safe_load(file.read_text()), origin="x") == settings


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "baselin"], "`recipe` = baselin"),
        (["--clip.methdo", "naclip"], "did you mean `clip.method`?"),
        (["--clip.method", "naclp"], "`clip.method` = naclp"),
        (["--assign.rule", "simoto"], "`assign.rule` = simoto"),
        (["--data.queries", "[ship]"], "`data.queries` = ('ship',): must be `class=query`"),
        (["--clip.layers", "[0]"], "`clip.layers` = (0,): must be different numbers from 1"),
        (["--clip.layers", "[1,1]"], "`clip.layers` = (1, 1)"),
        (["--head.prior", "1"], "`head.prior` = 1"),
        (["--head.stride", "6"], "`head.stride` = 6"),
        (["--decode.nms", "1.5"], "`decode.nms` = 1.5: must be between 0 and 1"),
    ],
)
def test_mistakes_in_settings(words, told):
    with pytest.raises(UserError) as caught:
        parse_settings(TextSettings, words)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("recipe: baseline\nasign: {rule: tal}", "unknown key `asign`: did you mean `assign`?"),
        ("assign: {ruel: tal}", "unknown key `assign.ruel`: did you mean `rule`?"),
        ("fusion: product", "unknown key `fusion`: did you mean `decode.fusion`?"),
        ("recipe: best", "recipe"),
    ],
)
def test_mistakes_in_a_file(text, told, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse_settings(TextSettings, ["--config", str(file)])
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


# --- every combination trains ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tiny_text):
    frames = box_splits(tiny_text().data).train
    return [frames[i] for i in range(len(frames)) if len(frames[i].boxes)][:2]


def steps_once(settings, scenes):
    """Build, take one step, and look again; the detector, its first terms and its second ones."""
    torch.manual_seed(0)
    detector = text_detector(settings, CLASSES).train()
    detector.progress = 0.5  # beyond the warm-up
    optimiser = torch.optim.SGD(detector.parameters(), lr=1e-2)
    told = []
    for _ in range(2):
        output = detector(scenes)
        terms = detector.loss(output, detector.assign(output, scenes))
        assert all(t.isfinite() for t in terms.values()), terms
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
        optimiser.step()
        told.append({k: float(v.detach()) for k, v in terms.items()})
    return detector, *told


@pytest.mark.parametrize(("rule", "score"), list(itertools.product(RULES, SCORES)))
def test_every_assigner_and_score_target_train(rule, score, tiny_text, scenes):
    detector, before, after = steps_once(tiny_text({"assign.rule": rule, "assign.score": score}), scenes)
    assert set(before) == {"cls", "l1", "giou"}
    assert before != after
    assert type(detector) is TextQuery


@pytest.mark.parametrize("fusion", ["learned", "product", "geometric", "raw"])
@pytest.mark.parametrize("emitted", [True, False])
def test_every_fusion_trains(fusion, emitted, tiny_text, scenes):
    keys = {"decode.fusion": fusion, "supervise.emitted": emitted}
    detector, before, after = steps_once(tiny_text(keys), scenes)
    assert before != after
    assert (detector.head.score.gate is not None) == (fusion == "learned")
    assert detector.criterion.on == ("emitted" if emitted else "raw")


@pytest.mark.parametrize(
    ("keys", "terms"),
    [
        ({"supervise.objectness": True}, {"cls", "l1", "giou", "objectness"}),
        ({"supervise.quality": 0.5}, {"cls", "l1", "giou", "quality"}),
        ({"supervise.inside_boxes": True, "supervise.trained_reach": 2.0}, {"cls", "l1", "giou"}),
        ({"head.box": "conditioned", "head.stride": 16}, {"cls", "l1", "giou"}),
        ({"head.stride": 4, "clip.map": "min_max", "clip.layers": ()}, {"cls", "l1", "giou"}),
    ],
)
def test_every_remedy_is_a_switch(keys, terms, tiny_text, scenes):
    detector, before, _ = steps_once(tiny_text(keys), scenes)
    assert set(before) == terms
    flat = flatten(tiny_text(keys))
    assert detector.fusion.objectness == flat["supervise.objectness"]
    assert detector.fusion.quality == flat["supervise.quality"]
    assert detector.decoder.trained_reach == flat["supervise.trained_reach"]
    assert detector.assigner.box_cells == ("inside" if flat["supervise.inside_boxes"] else "positive")
    assert detector.head.stride == flat["head.stride"]


@pytest.mark.parametrize("keys", [{}, {"supervise.objectness": True, "supervise.quality": 1.0}])
def test_localisation_learns_boxes_alone(keys, tiny_text, scenes):
    detector, before, _ = steps_once(tiny_text(keys, kind=LocaliseSettings), scenes)
    assert type(detector) is GtClass
    assert set(before) == ({"l1", "giou", "quality"} if keys else {"l1", "giou"})
    assert detector.fusion.name == "raw"
    assert detector.decoder.threshold == 0.0


def test_the_reference_rule_is_what_its_recipe_says(tiny_text):
    settings = parse_settings(TextSettings, ["--recipe=baseline"])
    settings = replace(settings, encoder=tiny_text().encoder)
    detector = text_detector(settings, CLASSES)
    assert detector.maps.map_rule == "min_max"
    assert detector.maps.features.method == "surgery"
    assert (detector.fusion.name, detector.criterion.on) == ("product", "raw")
    assert (detector.decoder.threshold, detector.decoder.nms) == (0.3, 0.5)
    assert (detector.assigner.rule.radius, detector.assigner.rule.threshold) == (1.5, 0.3)
    assert (detector.criterion.l1, detector.criterion.giou, detector.criterion.cls) == (1.0, 1.0, 1.0)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_a_residual_encoder_has_layers_of_different_width(tiny_text, scenes, monkeypatch):
    """RN50 and its kin: the head must be as wide as the stages that it reads, not as the last of them."""
    import open_clip
    from open_clip.model import CLIP

    vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64, "patch_size": None}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    own = {"tokenizer": open_clip.tokenize, "preprocess": Preprocess(), "name": "tiny", "activation": "gelu"}
    clip = FrozenClip(CLIP(**copy.deepcopy(config)), config=config, **own)
    monkeypatch.setattr("boresight.run.text_parts.load_clip", lambda *given, **more: clip)
    steps_once(tiny_text({"clip.layers": (1, 3), "clip.method": "maskclip"}), scenes)
    with pytest.raises(UserError, match=r"layers=\(1, 9\): this encoder has layers 1 \(the last\) to 5"):
        text_detector(tiny_text({"clip.layers": (1, 9)}), CLASSES)


def test_features_on_disk_need_a_folder(tiny_text, tmp_path):
    with pytest.raises(UserError, match=r"`clip\.store_folder` is empty"):
        text_detector(tiny_text({"clip.store": "disk"}), CLASSES)
    kept = {"clip.store": "disk", "clip.store_folder": str(tmp_path / "kept")}
    detector = text_detector(tiny_text(kept), CLASSES)
    assert isinstance(detector.maps.features.store, FeatureCache)
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize(
    ("stride", "shrink", "names"),
    [
        (4, 1, ("small", "squeezenet", "resnet10t")),
        (16, 1, ("small", "squeezenet")),
        (16, 2, ("small", "squeezenet", "resnet10t")),
        (32, 4, ("small", "squeezenet")),
        (4, 2, ("small",)),
    ],
)
def test_encoders_have_the_stride_that_is_asked_for(stride, shrink, names, tiny_text):
    for name in names:
        settings = tiny_text({"encoder.name": name, "encoder.shrink": shrink}).encoder
        encoder = image_encoder(settings, stride=stride).eval()
        with torch.no_grad():
            found = encoder(torch.rand(1, 3, 64, 96) * 255)[stride.bit_length() - 1]
        assert found.shape == (1, 8, 64 // stride, 96 // stride), name


@pytest.mark.parametrize(
    ("name", "stride", "shrink", "has"), [("small", 32, 1, "2, 4, 8, 16"), ("squeezenet", 4, 2, "8, 16, 32")]
)
def test_a_stride_that_the_encoder_does_not_have(name, stride, shrink, has, tiny_text):
    settings = tiny_text({"encoder.name": name, "encoder.shrink": shrink}).encoder
    with pytest.raises(UserError, match=f"encoder.shrink {shrink} has strides {has}: change head.stride"):
        image_encoder(settings, stride=stride)


def test_learned_queries_are_kept_with_the_run(tiny_text, one_clip, tmp_path):
    assert text_detector(tiny_text(), CLASSES).learned is None
    run = RunFolder(tmp_path / "run")
    train(TEXT, tiny_text({"head.learn_queries": True, "train.steps": 2}), run.root, quiet=True)
    trained = load_trained(run)
    own = trained.detector.learned.own
    assert own.shape == (len(trained.checkpoint.classes), trained.detector.maps.text.shape[1])
    assert bool((own != 0).any())


def test_queries_that_are_one_to_the_encoder_are_told_at_the_start(tiny_text, one_clip, tmp_path, capsys):
    keys = {"data.classes": "kinds", "data.queries": ("vehicle=dock", "storage tank=jet ski"), "train.steps": 1}
    done = train(TEXT, tiny_text(keys), tmp_path / "run")
    (remark,) = done["remarks"]
    assert "`dock` and `jet ski`" in remark or "`jet ski` and `dock`" in remark
    told = capsys.readouterr().err.splitlines()[:2]
    assert told == ["run: looking at training images before the first step", f"run: {remark}"]
    train(TEXT, tiny_text(keys), tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().err == ""


def test_only_where_no_score_is_learned_each_class_has_its_own_limit(tiny_text):
    assert text_detector(tiny_text(kind=LocaliseSettings), CLASSES).decoder.per_class
    assert not text_detector(tiny_text(), CLASSES).decoder.per_class


def test_a_shrunk_detector_boxes_in_raw_pixels(tiny_text):
    """Cells of 16 raw pixels, boxes of the raw frame, on an image that no block divides evenly."""
    detector = text_detector(tiny_text({"encoder.shrink": 2, "head.stride": 16}), CLASSES)
    scene = Scene(torch.zeros(3, 90, 130, dtype=torch.uint8), "odd")
    with torch.no_grad():
        output = detector.eval()([scene])
    assert output.stride == 16
    assert output.logits.shape[-2:] == (6, 10)  # padded to 96 x 160
    centre = (output.boxes[0, 0, 2, 3, :2] + output.boxes[0, 0, 2, 3, 2:]) / 2
    assert torch.allclose(centre, torch.tensor([56.0, 40.0]), atol=2.0)


def test_an_encoder_that_does_not_exist(tiny_text):
    with pytest.raises(UserError, match=r"encoder\.name=resnet18x"):
        image_encoder(tiny_text({"encoder.name": "resnet18x"}).encoder, stride=8)


def test_a_frozen_backbone_stays_as_it_was(tiny_text):
    encoder = image_encoder(tiny_text({"encoder.name": "resnet10t", "encoder.frozen": True}).encoder, stride=8)
    assert not any(p.requires_grad for p in encoder.body.body.parameters())
    assert all(p.requires_grad for p in encoder.body.top_down.parameters())


def test_a_trained_run_needs_no_file_of_encoder_weights(tiny_text, one_clip, tmp_path):
    """The checkpoint holds them, frozen ones too: a run can be taken to a machine that has only the run."""
    file = tmp_path / "squeeze.safetensors"
    torch.manual_seed(5)
    held = SqueezePyramid(None, 4).features.state_dict()
    save_file({f"features.{k}": torch.randn_like(v) * 0.1 for k, v in held.items()}, file)
    keys = {"encoder.name": "squeezenet", "encoder.weights": str(file), "encoder.frozen": True, "train.steps": 1}
    run = RunFolder(tmp_path / "run")
    train(TEXT, tiny_text(keys), run.root, quiet=True)
    given = load_file(file)
    file.unlink()
    detector = load_trained(run).detector
    for name, value in detector.encoder.body.features.state_dict().items():
        assert torch.equal(value, given[f"features.{name}"]), name


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["text", "localise"])
def finished(request) -> RunFolder:
    return request.getfixturevalue(f"trained_{request.param}")


def test_a_run_folder_is_complete(finished, leftovers, one_clip):
    for path in (finished.config, finished.environment, finished.metrics, finished.targets, finished.done):
        assert path.is_file(), path
    assert leftovers(finished.root) == []
    assert [p.name for p in finished.states()] == ["state-6"]
    rows = digits(finished)
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert [r["epoch"] for r in rows] == [0, 0, 0, 1, 1, 1]
    assert all(math.isfinite(r["loss"]) for r in rows)
    done = strict(finished.done)
    assert done["steps"] == 6
    assert done["frozen"] == {"before": {"clip": one_clip.fingerprint}, "after": {"clip": one_clip.fingerprint}}
    assert one_clip.measured_fingerprint() == one_clip.fingerprint
    for name in ("last", "best"):
        kept = load_checkpoint(finished.checkpoints / f"{name}.safetensors")
        assert kept.classes == CLASSES
        assert kept.frozen == {"clip": one_clip.fingerprint}
        assert kept.detector == finished.root.name
        assert sum(v.numel() for v in kept.weights.values()) < 50_000  # nothing of the encoder


def test_terms_of_the_loss_are_recorded(trained_text, trained_localise):
    assert {k for k in digits(trained_text)[0] if k.startswith("loss_")} == {"loss_cls", "loss_l1", "loss_giou"}
    assert {k for k in digits(trained_localise)[0] if k.startswith("loss_")} == {"loss_l1", "loss_giou"}
    judged = strict(trained_localise.done)["validation"]
    assert set(judged) == {"mean_iou"}
    assert 0 <= judged["mean_iou"] <= 1


@pytest.fixture(scope="module")
def copies(trained_text, trained_localise, tmp_path_factory) -> dict[str, RunFolder]:
    """Runs that may be judged and spoilt."""
    folder = tmp_path_factory.mktemp("copies")
    return {
        r.root.name: RunFolder(shutil.copytree(r.root, folder / r.root.name)) for r in (trained_text, trained_localise)
    }


def test_the_test_is_asked_for_classes_that_were_never_trained(copies):
    run = copies["text"]
    figures = evaluate_run(run, bootstrap=20)
    kept = strict(run.evaluation)
    assert kept["frames"] == 4
    for key in ("ap50", "ap50_base", "ap50_novel", "ap_base", "ap_novel", "ar_100", "f1", "presence_auc"):
        assert key in figures
        assert figures[key] == kept[key]
    assert {"ap50_harmonic", "classification_accuracy", "classification_objects", "intervals", "frozen"} <= set(kept)
    assert kept["ap50_novel"] is not None
    assert len(kept["per_image"]["tp"]) == 4
    hits = sum(kept["per_image"]["tp"]) + sum(kept["per_image"]["fn"])
    rows = read_parquet(run.matches)
    assert {r["class"] for r in rows} <= {*CLASSES, *NOVEL}
    assert sum(r["kind"] in ("hit", "missed") for r in rows) == hits
    results = strict(run.predictions)
    assert {r["category_id"] for r in results} <= {1, 2, 3, 4}
    assert {r["image_id"] for r in results} <= {2_000_001, 2_000_002, 2_000_003, 2_000_004}
    assert max(r["category_id"] for r in results) > 2  # novel classes were asked for
    text = box_summary(figures)
    assert text.startswith("test: 4 images")
    assert "AP50 of classes never trained" in text


def test_the_validation_knows_the_trained_classes_alone(copies):
    figures = evaluate_run(copies["text"], split="val", limit=1, which="best", bootstrap=0)
    assert figures["frames"] == 1
    assert figures["ap50_novel"] is None
    assert figures["intervals"] == {"ap50": None}
    assert {r["category_id"] for r in strict(copies["text"].predictions)} <= {1, 2}
    assert "undefined" in box_summary(figures)


def test_localisation_has_its_own_report(copies, one_clip):
    run = copies["localise"]
    figures = evaluate_run(run, bootstrap=20, limit=3)
    kept = strict(run.evaluation)
    said = kept["localisation"]
    assert said["verdict"]["word"] in ("classification", "localisation", "ranking", "undecided")
    assert said["images"] == 3
    assert 0 <= kept["mean_iou"] <= 1
    assert kept["frozen"] == {"clip": one_clip.fingerprint}
    assert said["verdict"]["sentence"] in localise_summary(figures)
    assert len(localise_summary(figures).splitlines()) == 2


def test_other_scenes_can_be_judged(copies):
    figures = evaluate_run(copies["text"], data={"test_frames": "2", "seed": "5"}, bootstrap=0)
    assert figures["frames"] == 2
    assert figures["data"] == {"test_frames": "2", "seed": "5"}


# --- the frozen side -------------------------------------------------------------------------------------------------


def test_an_epoch_after_the_first_does_not_run_the_encoder(tiny_text, one_clip, tmp_path, monkeypatch):
    """Views are cut anew in every epoch; features are those of the whole scenes."""
    seen, real = [], train_module.Trainer._step

    def step(self, batches):
        real(self, batches)
        seen.append(one_clip.calls)

    monkeypatch.setattr(train_module.Trainer, "_step", step)
    before = one_clip.calls
    keys = {
        "train.steps": 12,
        "train.validate_every": 0,
        "augment.crop": 48,
        "augment.whole": 0,
        "train.checkpoint_every": 50,
    }
    train(TEXT, tiny_text(keys), tmp_path, quiet=True)
    assert len(seen) == 12  # an epoch is three steps
    assert len(set(seen[2:])) == 1
    assert seen[2] > before
    frames = 6 + 2  # of training and validation; of windows of 64 in 80 px there are several
    windows = (one_clip.calls - seen[2]) // 2
    assert one_clip.calls - before == frames * windows
    assert windows > 1


def test_a_checkpoint_of_another_encoder_is_refused(trained_text, tmp_path, capsys):
    run = RunFolder(shutil.copytree(trained_text.root, tmp_path / "run"))
    path = run.checkpoints / "last.safetensors"
    save_checkpoint(path, replace(load_checkpoint(path), frozen={"clip": "0" * 32}))
    assert main(["evaluate", str(run.root), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: trained on the frozen encoder `clip` with hash 000000000000" in line
    assert "set clip.name and clip.weights" in line


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "at"), [("text", 1), ("text", 4), ("localise", 4)])
def test_a_run_that_was_stopped_continues_to_the_same_digits(
    kind, at, tiny_text, trained_text, trained_localise, tmp_path, monkeypatch
):
    recipe, settings, whole = {
        "text": (TEXT, tiny_text(), trained_text),
        "localise": (LOCALISE, tiny_text(kind=LocaliseSettings), trained_localise),
    }[kind]
    real, calls = train_module.Trainer._step, []

    def step(self, batches):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return real(self, batches)

    monkeypatch.setattr(train_module.Trainer, "_step", step)
    with pytest.raises(Stopped, match=f"stopped after step {at}; continue with: boresight train {kind} --resume"):
        train(recipe, settings, tmp_path, quiet=True)
    monkeypatch.undo()
    done = train(recipe, settings, tmp_path, quiet=True)
    run = RunFolder(tmp_path)
    assert done["steps"] == 6
    assert digits(run) == digits(whole)
    assert read_parquet(run.targets) == read_parquet(whole.targets)
    for name in ("last.safetensors", "best.safetensors"):
        mine, theirs = (load_checkpoint(r.checkpoints / name) for r in (run, whole))
        assert (mine.step, mine.threshold, mine.figures) == (theirs.step, theirs.threshold, theirs.figures)
        assert all(torch.equal(mine.weights[k], v) for k, v in theirs.weights.items())
