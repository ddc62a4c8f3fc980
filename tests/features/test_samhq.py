"""Frozen SAM encoders: tiny checkpoints of the real classes, written and loaded back."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from boresight.core.errors import UserError
from boresight.features.encoders import load_encoder
from boresight.features.samhq import SamGeometry, load_sam

VISION = {
    "hidden_size": 32,
    "output_channels": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
    "mlp_dim": 64,
    "window_size": 2,
    "global_attn_indexes": [1],
    "num_pos_feats": 8,
    "initializer_range": 0.02,  # the default of 1e-10 makes features of all zeros, on which every test passes
}
PROMPT = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
MASK = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def sam2_config(transformers):
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        window_size_per_stage=[4, 2, 2, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompt = transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    mask = transformers.Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    return transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a tiny checkpoint of each kind."""
    import transformers

    made = {}
    for kind, config, model in (
        ("sam", transformers.SamConfig, transformers.SamModel),
        ("sam_hq", transformers.SamHQConfig, transformers.SamHQModel),
    ):
        more = {"vit_dim": 32} if kind == "sam_hq" else {}
        settings_ = config(
            vision_config=dict(VISION), prompt_encoder_config=dict(PROMPT), mask_decoder_config=MASK | more
        )
        made[kind] = (model, settings_)
    made["sam2"] = (transformers.Sam2Model, sam2_config(transformers))
    root = tmp_path_factory.mktemp("sam")
    for kind, (model, config) in made.items():
        torch.manual_seed(0)
        model(config).save_pretrained(root / kind)
    return root


def images(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8) for size in sizes]


@pytest.mark.parametrize(
    ("kind", "channels", "cells"),
    [("sam", (16,), [(4, 4)]), ("sam_hq", (32, 16), [(4, 4)] * 2), ("sam2", (4, 8, 32), [(16, 16), (8, 8), (4, 4)])],
)
def test_every_kind_gives_its_levels(folders, kind, channels, cells):
    encoder = load_sam(str(folders / kind))
    assert encoder.channels == channels
    (one,) = encoder.encode(images((64, 64)))
    assert [tuple(level.shape) for level in one.levels] == [(c, *size) for c, size in zip(channels, cells, strict=True)]
    assert one.levels[0].dtype == torch.float32
    assert_close(one.extents, torch.full((len(channels), 2), 64.0))
    two, three = encoder.encode(images((64, 64), (64, 64), seed=1))
    for a, b in zip(two.levels, three.levels, strict=True):
        assert float((a - b).abs().max()) > 1e-3  # two images differ: they are no zeros
    assert encoder.calls == 3


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2"])
def test_the_features_are_those_of_the_model(folders, kind):
    """Of an image of the model's own size, which is neither resized nor padded."""
    import transformers

    from boresight.features.samhq import KINDS, MEAN, STD

    model = getattr(transformers, KINDS[kind]).from_pretrained(folders / kind).eval()
    (image,) = images((64, 64))
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    with torch.no_grad():
        want = model.get_image_embeddings(((image / 255 - mean) / std)[None])
    (have,) = load_sam(str(folders / kind)).encode([image])
    if kind == "sam":
        assert_close(have.levels[0], want[0])
    elif kind == "sam_hq":
        assert_close(have.levels[1], want[0][0])
        assert_close(have.levels[0], want[1][0][0].permute(2, 0, 1))
    else:
        for a, b in zip(have.levels, want, strict=True):
            assert_close(a, b[0])


def test_hq_without_the_early_layer_is_half(folders):
    encoder = load_sam(str(folders / "sam_hq"), early=False)
    assert encoder.channels == (16,)
    assert encoder.fingerprint != load_sam(str(folders / "sam_hq")).fingerprint


@pytest.mark.parametrize("size", [(48, 64), (64, 30), (100, 130), (33, 47), (7, 64)])
def test_padding_is_cut_off_and_the_extent_says_what_is_seen(folders, size):
    encoder = load_sam(str(folders / "sam"))
    (one,) = encoder.encode(images(size))
    place = encoder.geometry(*size)
    _, rows, columns = one.levels[0].shape
    assert (rows - 1) * 16 < place.shown[0] <= rows * 16
    assert (columns - 1) * 16 < place.shown[1] <= columns * 16
    down, across = place.scales
    assert_close(one.extents[0], torch.tensor([rows * 16 / down, columns * 16 / across]))
    assert one.extents[0, 0] >= size[0] - 1e-3
    assert one.extents[0, 1] >= size[1] - 1e-3


def test_sam2_brings_both_sides_to_the_square(folders):
    (one,) = load_sam(str(folders / "sam2")).encode(images((30, 90)))
    assert [tuple(level.shape[1:]) for level in one.levels] == [(16, 16), (8, 8), (4, 4)]
    assert_close(one.extents, torch.tensor([[30.0, 90.0]] * 3))


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_preprocessing_is_that_of_the_model_s_own_processor(kind):
    """Within a grey value: theirs rounds to whole grey values after resizing, ours does not."""
    import transformers

    from boresight.features.samhq import STD, SamEncoder

    own = transformers.SamImageProcessor() if kind == "sam" else transformers.Sam2ImageProcessor()
    ours = object.__new__(SamEncoder)
    ours.kind, ours.side = kind, 1024
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 16) * 255, (300, 401), mode="bicubic")
    image = smooth.clamp(0, 255).to(torch.uint8)[0]
    want = own(image, return_tensors="pt")["pixel_values"]
    have = ours.pixels(image[None])
    assert have.shape == want.shape
    grey = 1 / 255 / min(STD)
    assert float((have - want).abs().max()) <= 1.001 * grey
    assert float((have - want).abs().mean()) <= 0.3 * grey


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.booleans(), st.integers(0, 2**20))
def test_boxes_go_there_and_back(height, width, keep_shape, seed):
    place = SamGeometry.of(height, width, 1024, keep_shape=keep_shape)
    random = torch.Generator().manual_seed(seed)
    boxes = torch.rand(5, 4, generator=random) * torch.tensor([width, height, width, height])
    there = place.to_input(boxes)
    assert (there <= 1024 + 1e-3).all()
    assert float((place.to_image(there) - boxes).abs().max()) < 1e-3


def test_a_corner_lies_on_a_corner():
    place = SamGeometry.of(600, 800, 1024, keep_shape=True)
    assert place.shown == (768, 1024)
    assert_close(place.to_input(torch.tensor([[0.0, 0.0, 800.0, 600.0]])), torch.tensor([[0.0, 0.0, 1024.0, 768.0]]))


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2"])
def test_an_image_does_not_depend_on_its_neighbours(folders, kind):
    """To 1e-5: sums of another batch are added in another order."""
    several = images((50, 64), (64, 40), (50, 64), (50, 64))
    together = load_sam(str(folders / kind), batch=4).encode(several)
    alone = load_sam(str(folders / kind)).encode(several)
    for a, b in zip(together, alone, strict=True):
        assert_close(a.extents, b.extents)
        for x, y in zip(a.levels, b.levels, strict=True):
            assert_close(x, y, atol=1e-5, rtol=1e-4)


def test_half_precision_is_another_recipe(folders):
    full, half = (load_sam(str(folders / "sam"), precision=p) for p in ("fp32", "bf16"))
    assert full.fingerprint != half.fingerprint
    a, b = (e.encode(images((64, 64)))[0].levels[0] for e in (full, half))
    assert b.dtype == torch.float32
    assert 0 < float((a - b).abs().max()) < 0.2


def test_one_weight_makes_another_encoder(folders, tmp_path):
    encoder = load_sam(str(folders / "sam"))
    before, made = encoder.identity(), encoder.fingerprint
    with torch.no_grad():
        encoder.module.vision_encoder.patch_embed.projection.weight.view(-1)[0] += 1e-4
    assert encoder.identity() != before
    assert load_sam(str(folders / "sam")).fingerprint == made  # the same on every load


def test_it_is_frozen_and_shared(folders):
    encoder = load_sam(str(folders / "sam"))
    assert not any(p.requires_grad for p in encoder.module.parameters())
    assert not encoder.module.training
    assert copy.deepcopy(encoder) is encoder


@pytest.mark.parametrize("name", ["sam:{}", "{}"])
def test_a_folder_is_found_by_name(folders, name):
    encoder = load_encoder(name.format(folders / "sam_hq"))
    assert encoder.about["kind"] == "sam_hq"


# --- what cannot be loaded ---


def spoilt(folders, tmp_path, change) -> str:
    import shutil

    folder = tmp_path / "spoilt"
    shutil.copytree(folders / "sam", folder)
    change(folder)
    return str(folder)


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["vision_encoder.layers.0.attn.qkv.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["mlp_dim"] = 48
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_a_weight, r"1 weights are missing or of another shape, first `vision_encoder\.layers\.0"),
        (of_another_shape, "cannot be loaded|weights are missing or of another shape"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "a model of type `bert`; use one of sam"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json there"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(folders, tmp_path, change, words):
    folder = spoilt(folders, tmp_path, change)
    with pytest.raises(UserError, match=words) as error:
        load_sam(folder)
    assert folder in str(error.value)
    assert "\n" not in str(error.value)


def test_a_hub_id_without_a_network_says_what_to_do(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="download it first and give its folder"):
        load_sam("nobody/no-such-model")


def test_a_broken_torchvision_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def broken(name, *args, **more):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(UserError, match="torchvision::nms does not exist"):
        load_sam("x")


# --- published checkpoints, and what a fingerprint holds ---


@pytest.fixture(scope="module")
def more_folders(folders):
    """Tiny checkpoints of SAM 2 as it is published (a video model) and of EdgeTAM."""
    import transformers

    image = sam2_config(transformers)
    small = {"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    mask = small | {"iou_head_hidden_dim": 16}
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    video = transformers.Sam2VideoConfig(
        vision_config=image.vision_config,
        prompt_encoder_config=dict(prompt),
        mask_decoder_config=dict(mask),
        image_size=64,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_num_layers=1,
        memory_fuser_intermediate_dim=32,
    )
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "num_classes": 0,
        "num_labels": 2,
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=32
    )
    edge = transformers.EdgeTamConfig(
        vision_config=vision, prompt_encoder_config=dict(prompt), mask_decoder_config=dict(mask)
    )
    root = folders.parent / (folders.name + "_more")
    for kind, model, config in (
        ("sam2_video", transformers.Sam2VideoModel, video),
        ("edgetam", transformers.EdgeTamModel, edge),
    ):
        torch.manual_seed(0)
        made = model(config)
        with torch.no_grad():
            for weight in made.parameters():  # EdgeTAM's first values shrink every image to 1e-9 and less
                if weight.ndim > 1:
                    weight.copy_(torch.randn(weight.shape) * (0.5 / weight[0].numel()) ** 0.5)
        made.save_pretrained(root / kind)
    return root


def test_sam2_as_it_is_published_is_read(more_folders):
    """Its configuration calls it a video model; the image model in it gives the features."""
    import transformers

    from boresight.features.samhq import MEAN, STD

    folder = more_folders / "sam2_video"
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sam2_video"
    encoder = load_encoder(str(folder))
    assert (encoder.about["kind"], encoder.channels) == ("sam2", (4, 8, 32))
    (image,) = images((64, 64))
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.Sam2Model.from_pretrained(folder, config=config).eval()
    with torch.no_grad():
        want = model.get_image_embeddings(((image / 255 - mean) / std)[None])
    (have,) = encoder.encode([image])
    for a, b in zip(have.levels, want, strict=True):
        assert_close(a, b[0])


def test_edgetam_gives_three_levels(more_folders):
    encoder = load_encoder(f"sam:{more_folders / 'edgetam'}")
    one, two = encoder.encode(images((64, 64), (30, 90)))
    assert [tuple(level.shape) for level in one.levels] == [(4, 16, 16), (8, 8, 8), (32, 4, 4)]
    assert encoder.strides == (4.0, 8.0, 16.0)
    assert_close(two.extents, torch.tensor([[30.0, 90.0]] * 3))
    for a, b in zip(one.levels, two.levels, strict=True):
        assert float(a.std()) > 1e-2
        assert float((a - b).abs().max()) > 0.1 * float(a.std())


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2"])
def test_autocast_around_it_changes_nothing(folders, kind):
    """A training in bf16 asks for features inside autocast; they are kept under the same fingerprint."""
    encoder = load_sam(str(folders / kind))
    several = images((64, 64))
    (plain,) = encoder.encode(several)
    with torch.autocast("cpu", torch.bfloat16):
        (within,) = encoder.encode(several)
    assert all(torch.equal(a, b) for a, b in zip(plain.levels, within.levels, strict=True))


@pytest.mark.parametrize(("key", "value"), [("layer_norm_eps", 1e-2), ("hidden_act", "relu")])
def test_a_setting_that_no_weight_shows_is_another_recipe(folders, tmp_path, key, value):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"][key] = value
        (folder / "config.json").write_text(json.dumps(config))

    plain, other = load_sam(str(folders / "sam")), load_sam(spoilt(folders, tmp_path, change))
    assert plain.about["weights"] == other.about["weights"]
    several = images((64, 64))
    assert not torch.equal(plain.encode(several)[0].levels[0], other.encode(several)[0].levels[0])
    assert plain.fingerprint != other.fingerprint


def test_a_copy_of_a_folder_is_the_same_recipe(folders, tmp_path):
    assert load_sam(spoilt(folders, tmp_path, lambda f: None)).fingerprint == load_sam(str(folders / "sam")).fingerprint


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2"])
def test_parts_that_no_feature_needs_are_not_kept(folders, kind):
    names = {name.split(".")[0] for name, _ in load_sam(str(folders / kind)).module.named_parameters()}
    assert names == (
        {"vision_encoder", "mask_decoder", "no_memory_embedding"} if kind == "sam2" else {"vision_encoder"}
    )


def test_the_mask_decoder_is_not_in_the_fingerprint(folders, tmp_path):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        weights["mask_decoder.iou_token.weight"] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert load_sam(spoilt(folders, tmp_path, change)).fingerprint == load_sam(str(folders / "sam")).fingerprint


def test_fp16_is_computed_in_fp16(folders):
    full, half = (load_sam(str(folders / "sam"), precision=p) for p in ("fp32", "fp16"))
    a, b = (e.encode(images((64, 64)))[0].levels[0] for e in (full, half))
    assert next(half.module.parameters()).dtype == torch.float16
    assert 0 < float((a - b).abs().max()) < 0.03
