"""Loading: every accepted form of weights is written and read, every refusal is one line that helps."""

from __future__ import annotations

import json
import urllib.error
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from boresight.core.errors import UserError
from boresight.features import clip_source
from boresight.features.clip_load import load_clip
from boresight.features.clip_weights import read_weights

IMAGE = torch.randint(0, 256, (1, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def architecture(tmp_path, tiny_settings):
    """A JSON file with the architecture of the tiny model ``avg``."""
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(tiny_settings("avg")))
    return str(path)


@pytest.fixture(scope="module")
def weights(tiny_model):
    return tiny_model("avg").state_dict()


@pytest.fixture(scope="module")
def expected(tiny_clip):
    return tiny_clip("avg").encode(IMAGE).aligned


def refused(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        load_clip(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- accepted --------------------------------------------------------------------------------------------------------


def forms(weights):
    module = OrderedDict((f"module.{k}", v) for k, v in weights.items())
    return {
        "plain": weights,
        "state_dict": {"epoch": 3, "name": "x", "state_dict": weights, "optimizer": {"lr": 0.1}},
        "model": {"model": weights, "step": torch.tensor(4)},
        "module": module,
        "state_dict+module": {"epoch": 1, "state_dict": module},
        "compiled": {f"_orig_mod.{k}": v for k, v in weights.items()},
        "numbers of OpenAI": {**weights, "input_resolution": torch.tensor(96), "context_length": torch.tensor(16)},
        "scale as a list": {**weights, "logit_scale": weights["logit_scale"].reshape(1)},
    }


@pytest.mark.parametrize(
    "form",
    ["plain", "state_dict", "model", "module", "state_dict+module", "compiled", "numbers of OpenAI", "scale as a list"],
)
def test_every_form_of_pickle(tmp_path, architecture, weights, expected, form):
    torch.save(forms(weights)[form], tmp_path / "w.pt")
    clip = load_clip(architecture, str(tmp_path / "w.pt"))
    assert torch.equal(clip.encode(IMAGE).aligned, expected)


def test_the_old_form_of_pickle(tmp_path, architecture, weights, expected):
    torch.save(weights, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(load_clip(architecture, str(tmp_path / "w.bin")).encode(IMAGE).aligned, expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(tmp_path, architecture, weights, expected, prefix):
    save_file({prefix + k: v.contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    assert torch.equal(load_clip(architecture, str(tmp_path / "w.safetensors")).encode(IMAGE).aligned, expected)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_half_precision(tmp_path, architecture, weights, expected, suffix):
    half = {k: v.half() for k, v in weights.items()}
    path = tmp_path / f"w.{suffix}"
    save_file(half, path) if suffix == "safetensors" else torch.save(half, path)
    clip = load_clip(architecture, str(path))
    assert {p.dtype for p in clip.model.parameters()} == {torch.float32}
    assert torch.equal(clip.model.visual.conv1.weight, half["visual.conv1.weight"].float())
    assert torch.allclose(clip.encode(IMAGE).aligned, expected, atol=0.02)


def test_a_folder_in_the_hub_layout(tmp_path, weights, tiny_settings, expected):
    config = {
        "model_cfg": tiny_settings("avg"),
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert "no weights" in refused(str(tmp_path))
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "open_clip_model.safetensors")
    clip = load_clip(str(tmp_path))
    assert clip.preprocess.mean == (0.1, 0.2, 0.3)
    assert clip.preprocess.size == 96
    assert clip.preprocess.interpolation == "bilinear"
    assert (clip.activation, clip.notes) == ("gelu", ())  # its configuration says so
    assert not torch.allclose(clip.encode(IMAGE).aligned, expected, atol=1e-3)  # the preprocessing counts


def test_the_shipped_model(tmp_path, monkeypatch, weights, tiny_settings, expected):
    monkeypatch.setattr(clip_source, "ASSETS", tmp_path)
    assert "aerial_clip.json or aerial_clip.safetensors is missing" in refused("boresight-aerial")
    (tmp_path / "aerial_clip.json").write_text(json.dumps({"model_cfg": tiny_settings("avg")}))
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "aerial_clip.safetensors")
    clip = load_clip("boresight-aerial")
    assert torch.equal(clip.encode(IMAGE).aligned, expected)
    assert clip.name == "boresight-aerial"


REMOTE_KEYS = (
    *(
        "positional_embedding",
        "text_projection",
        "logit_scale",
        "token_embedding.weight",
        "ln_final.weight",
        "ln_final.bias",
    ),
    *("visual.class_embedding", "visual.positional_embedding", "visual.proj", "visual.conv1.weight"),
    *(f"visual.{n}.{p}" for n in ("ln_pre", "ln_post") for p in ("weight", "bias")),
    *(
        f"{tower}transformer.resblocks.{i}.{part}"
        for tower, depth in (("", 2), ("visual.", 3))
        for i in range(depth)
        for part in (
            *(
                f"{n}.{p}"
                for n in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
                for p in ("weight", "bias")
            ),
            *("attn.in_proj_weight", "attn.in_proj_bias"),
        )
    ),
)


@pytest.mark.parametrize(
    ("name", "kind"), [("RemoteCLIP-ViT-B-32", "tok"), ("RemoteCLIP-ViT-L-14", "tok"), ("RemoteCLIP-RN50", "resnet")]
)
def test_remote_clip_by_name(tmp_path, monkeypatch, tiny_model, tiny_settings, name, kind):
    """Its checkpoints are open_clip state dicts; the names are checked with small towers in place of the real ones."""
    import open_clip

    real = {"RemoteCLIP-ViT-B-32": "ViT-B-32", "RemoteCLIP-ViT-L-14": "ViT-L-14", "RemoteCLIP-RN50": "RN50"}[name]
    asked = []
    monkeypatch.setattr(open_clip, "get_model_config", lambda n: asked.append(n) or tiny_settings(kind))
    state = tiny_model(kind).state_dict()
    if kind == "tok":
        assert set(state) == set(REMOTE_KEYS)
    torch.save(state, tmp_path / f"{name}.pt")
    clip = load_clip(name, str(tmp_path / f"{name}.pt"))
    assert asked == [real]
    assert clip.name == name
    assert "nothing in a file tells gelu from quickgelu" in clip.notes[0]
    monkeypatch.setattr(clip_source, "_remote_clip", lambda file: str(tmp_path / file))
    assert load_clip(name).fingerprint == clip.fingerprint  # without a file: from the hub
    assert load_clip(name, "hf-hub:chendelong/RemoteCLIP").fingerprint == clip.fingerprint


def test_a_hub_id(tmp_path, monkeypatch, weights, tiny_settings, expected):
    import open_clip.pretrained as pretrained

    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {**tiny_settings("avg"), "quick_gelu": True}})
    )
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "open_clip_model.safetensors")
    seen = []

    def get(repository, filename="open_clip_model.safetensors"):
        seen.append((repository, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", get)
    clip = load_clip("hf-hub:somebody/some-clip")
    assert seen == [
        ("somebody/some-clip", "open_clip_config.json"),
        ("somebody/some-clip", "open_clip_model.safetensors"),
    ]
    assert clip.activation == "quickgelu"


def test_a_pretrained_tag_decides_the_activation(tmp_path, monkeypatch, tiny_model, tiny_settings):
    import open_clip
    import open_clip.pretrained as pretrained

    torch.save(tiny_model("tok", quick=True).state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(open_clip, "get_model_config", lambda n: tiny_settings("tok"))
    monkeypatch.setattr(pretrained, "download_pretrained", lambda known: str(tmp_path / "w.pt"))
    openai = load_clip("ViT-B-32", "openai")
    assert openai.activation == "quickgelu"
    assert (openai.activation, openai.notes) == ("quickgelu", ())  # the tag says so
    assert load_clip("ViT-B-32", "laion2b_s34b_b79k").activation == "gelu"
    other = load_clip("ViT-B-32", "openai", activation="gelu")
    assert other.notes == ("activation=gelu was asked for, but the tag openai says quickgelu",)


def test_real_architectures_are_known():
    """Built without weights: the names, shapes and settings are open_clip's own."""
    clip = load_clip("ViT-B-32", random=True)
    assert (clip.dim, clip.width, clip.patch, clip.depth, clip.preprocess.size) == (512, 768, 32, 12, 224)


# --- activation ------------------------------------------------------------------------------------------------------


def test_the_activation_is_used_and_the_difference_is_measured(tmp_path, architecture, weights, tiny_model, expected):
    torch.save(weights, tmp_path / "w.pt")
    path = str(tmp_path / "w.pt")
    gelu, quick = (load_clip(architecture, path, activation=a) for a in ("gelu", "quickgelu"))
    assert torch.equal(gelu.encode(IMAGE).aligned, expected)
    assert not torch.allclose(quick.encode(IMAGE).aligned, expected, atol=1e-4)
    assert gelu.fingerprint != quick.fingerprint
    with torch.no_grad():
        model = tiny_model("avg", quick=True)
        pixels = quick.preprocess(IMAGE, (96, 96))
        assert torch.allclose(quick.encode(IMAGE).pooled, model.encode_image(pixels, normalize=True), atol=1e-5)
    assert "gelu" in refused(architecture, path, activation="relu")


def test_measuring_leaves_the_model_as_it_was(tiny_clip):
    from boresight.features.clip_activation import activation_difference

    clip = tiny_clip("avg")
    before = clip.encode(IMAGE).aligned
    image, text = activation_difference(clip.model, clip.tokenize(["a ship", "a road"]))
    assert 1e-4 < image < 0.5
    assert 1e-4 < text < 0.5
    assert torch.equal(clip.encode(IMAGE).aligned, before)
    resnet = tiny_clip("resnet")
    assert activation_difference(resnet.model, resnet.tokenize(["a ship"]))[0] == 0


# --- refused ---------------------------------------------------------------------------------------------------------


def test_no_weights(architecture):
    text = refused("ViT-B-32")
    assert "clip=ViT-B-32: no weights, its features would be random; give weights=TAG or FILE (tags: openai, " in text
    assert "no weights" in refused(architecture)
    assert load_clip(architecture, random=True).dim == 24


def test_names_that_are_not_known(tmp_path):
    assert refused("ViT-B-23").endswith(
        "no open_clip architecture, file or folder of that name: did you mean `ViT-B-32`?"
    )
    assert "RemoteCLIP-ViT-B-32" in refused("RemoteCLIP-ViT-B32")
    assert "does not exist" in refused(str(tmp_path / "no.json"))
    assert "open_clip_config.json does not exist" in refused(str(tmp_path))
    (tmp_path / "bad.json").write_text("{")
    assert "not JSON" in refused(str(tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text('{"model_cfg": {"embed_dim": 3, "text_cfg": {}}}')
    assert "no `vision_cfg`" in refused(str(tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text("[]")
    assert "no `embed_dim`" in refused(str(tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text('{"embed_dim": 3, "vision_cfg": {"depth": 3}, "text_cfg": {}}')
    assert "open_clip cannot build this configuration" in refused(str(tmp_path / "bad.json"), random=True)


def test_weights_that_are_not_there(tmp_path, architecture):
    assert refused(architecture, str(tmp_path / "none.pt")).endswith("none.pt: no such file")
    assert "a folder; name the file in it" in refused(architecture, str(tmp_path))
    text = refused("ViT-B-32", "opnai")
    assert "weights=opnai: neither a file nor a pretrained tag of ViT-B-32: did you mean `openai`?" in text


def test_a_torchscript_archive_is_explained(tmp_path, architecture):
    file = torch._C.PyTorchFileWriter(str(tmp_path / "jit.pt"))  # an archive with the entries that torch.jit.save makes
    file.write_record("data.pkl", b"x", 1)
    file.write_record("code/__torch__.py", b"x", 1)
    file.write_record("constants.pkl", b"x", 1)
    file.write_end_of_file()
    text = refused(architecture, str(tmp_path / "jit.pt"))
    assert "a TorchScript archive" in text
    assert "torch.save(torch.jit.load('jit.pt').state_dict(), 'weights.pt')" in text


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_with_code_in_it_does_not_run(tmp_path, architecture, capsys):
    torch.save({"state_dict": Code()}, tmp_path / "bad.pt")
    assert "holds more than tensors" in refused(architecture, str(tmp_path / "bad.pt"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["bad.pt", "bad.safetensors"])
def test_damaged_files(tmp_path, architecture, weights, name):
    path = tmp_path / name
    path.write_bytes(b"not a checkpoint at all")
    assert f"weights={path}" in refused(architecture, str(path))
    path.write_bytes(b"")
    assert f"weights={path}" in refused(architecture, str(path))
    whole = {k: v.contiguous() for k, v in weights.items()}
    save_file(whole, path) if name.endswith("safetensors") else torch.save(whole, path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert f"weights={path}" in refused(architecture, str(path))


def test_files_without_a_state_dict(tmp_path, architecture):
    for held, word in (
        ({"epoch": 3}, "'epoch' is no tensor"),
        ([1, 2], "holds list"),
        ({}, "holds dict"),
        (torch.zeros(3), "holds Tensor"),
    ):
        torch.save(held, tmp_path / "w.pt")
        assert word in refused(architecture, str(tmp_path / "w.pt"))


def test_weights_of_another_architecture(tmp_path, architecture, weights, tiny_model):
    torch.save(tiny_model("tok").state_dict(), tmp_path / "other.pt")
    text = refused(architecture, str(tmp_path / "other.pt"))
    assert "`visual.positional_embedding` is [50, 32] in the file and [10, 32] in the model" in text
    assert "do not fit" in text
    short = dict(weights)
    del short["visual.proj"]
    torch.save(short, tmp_path / "short.pt")
    assert "`visual.proj` is missing in the file (1 missing, 0 too many)" in refused(
        architecture, str(tmp_path / "short.pt")
    )
    torch.save({**weights, "extra.weight": torch.zeros(2)}, tmp_path / "long.pt")
    assert "`extra.weight` in the file is not in the model" in refused(architecture, str(tmp_path / "long.pt"))
    torch.save(tiny_model("resnet").state_dict(), tmp_path / "resnet.pt")
    assert "visual." in refused(architecture, str(tmp_path / "resnet.pt"))
    torch.save({**weights, "visual.proj": weights["visual.proj"] * float("nan")}, tmp_path / "nan.pt")
    assert "`visual.proj` holds values that are not finite" in refused(architecture, str(tmp_path / "nan.pt"))


def test_timm_and_coca_are_refused_before_anything_is_loaded():
    assert "its visual tower is timm's" in refused("convnext_base", random=True)
    assert "CoCa pools by attention" in refused("coca_ViT-B-32", random=True)


def test_without_a_network(monkeypatch):
    import open_clip.pretrained as pretrained

    def fail(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(pretrained, "download_pretrained", fail)
    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", fail)
    monkeypatch.setattr(clip_source, "_remote_clip", fail)
    for name, weights in (("ViT-B-32", "openai"), ("hf-hub:a/b", None), ("RemoteCLIP-RN50", None)):
        assert "offline, give the file with weights=FILE" in refused(name, weights)


def test_read_weights_takes_prefixes_off_only_when_all_have_them(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt")) == {"module.a", "b"}


def test_loading_does_not_move_the_random_numbers_of_a_training(architecture):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_clip(architecture, random=True)
    assert torch.equal(torch.rand(3), expected)
