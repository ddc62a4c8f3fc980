"""Dense features: surgery against plain loops, every method at two sizes, what each method is said to be."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.core.errors import UserError
from boresight.features.class_maps import similarity
from boresight.features.clip_tower import VitTower, unit
from boresight.features.dense_methods import METHODS, gem, method, multi_layer, neighbourhood, surgery, vanilla

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.randint(0, 256, (3, 3, 448, 448), generator=GENERATOR, dtype=torch.uint8)
TEXT = torch.nn.functional.normalize(torch.randn(20, 24, generator=GENERATOR), dim=-1)
EMPTY = torch.nn.functional.normalize(torch.randn(24, generator=GENERATOR), dim=-1)


# --- CLIP Surgery in plain loops, from the formulas ------------------------------------------------------------------


def head_values(block, h, which):
    """One of q, k, v (0, 1, 2) of a token list ``h [N, D]``, as ``[heads][N, d]``."""
    width = h.shape[1]
    heads = block.attn.num_heads
    weight = block.attn.in_proj_weight[which * width : (which + 1) * width]
    bias = block.attn.in_proj_bias[which * width : (which + 1) * width]
    full = torch.stack([weight @ token + bias for token in h])
    return [full[:, i * width // heads : (i + 1) * width // heads] for i in range(heads)]


def attention_loop(a, b, v):
    """``softmax(a bᵀ / sqrt d) v`` cell by cell."""
    rows = []
    for i in range(len(a)):
        scores = [float(a[i] @ b[j]) / math.sqrt(a.shape[1]) for j in range(len(b))]
        top = max(scores)
        weights = [math.exp(s - top) for s in scores]
        rows.append(sum(w / sum(weights) * v[j] for j, w in enumerate(weights)))
    return torch.stack(rows)


def surgery_loop(visual, pixels):
    """Tokens ``[1 + P, D]`` of one image of the size the model was made for, class token first."""
    x = visual.conv1(pixels[None])[0].flatten(1).T
    x = torch.cat((visual.class_embedding[None], x)) + visual.positional_embedding
    x = visual.ln_pre(x)
    blocks = list(visual.transformer.resblocks)
    first = max(0, len(blocks) - 6)
    y = None
    for number, block in enumerate(blocks):
        if number == first:
            y = x.clone()
        h = block.ln_1(x)
        q, k, v = (head_values(block, h, which) for which in range(3))
        if y is not None:
            mixed = torch.cat([attention_loop(vi, vi, vi) for vi in v], dim=1)
            y = y + block.attn.out_proj(mixed)
        usual = torch.cat([attention_loop(qi, ki, vi) for qi, ki, vi in zip(q, k, v, strict=True)], dim=1)
        x = x + block.attn.out_proj(usual)
        x = x + block.mlp(block.ln_2(x))
    y[0] = x[0]
    out = visual.ln_post(y) @ visual.proj
    return out / out.norm(dim=1, keepdim=True)


def surgery_maps_loop(tokens, text):
    """``[C, P]``: redundancy removal over the queries, number by number."""
    s = [[float(f @ t) for t in text] for f in tokens]
    exp = [math.exp(2 * c) for c in s[0]]
    w = [e / sum(exp) for e in exp]
    w = [wi / (sum(w) / len(w)) for wi in w]
    cells = []
    for row in s[1:]:
        weighted = [wi * si for wi, si in zip(w, row, strict=True)]
        cells.append([v - sum(weighted) / len(weighted) for v in weighted])
    return torch.tensor(cells).T


@pytest.mark.parametrize(("kind", "side"), [("tok", 224), ("avg", 96)])
@torch.no_grad()
def test_surgery_equals_plain_loops(tiny_clip, kind, side):
    clip = tiny_clip(kind)
    image = IMAGES[:2, :, :side, :side]
    features = clip.encode(image, method="surgery")
    for i, pixels in enumerate(clip.preprocess(image, (side, side))):
        tokens = surgery_loop(clip.model.visual, pixels)
        assert torch.allclose(features.aligned[i].flatten(1).T, tokens[1:], atol=1e-5)
        stream, grid = clip.tower.stream(pixels[None])
        assert torch.allclose(surgery(clip.tower, stream, grid)[0], tokens, atol=1e-5)  # the class token as well
        if kind == "tok":  # the class token is what the model pools
            assert torch.allclose(features.pooled[i], tokens[0], atol=1e-5)
            many = similarity(features, TEXT[:5], method="surgery")
            assert torch.allclose(many[i].flatten(1), surgery_maps_loop(tokens, TEXT[:5]), atol=1e-5)
        one = similarity(features, TEXT[:1], method="surgery", empty=EMPTY)
        by_hand = torch.tensor([float(f @ (TEXT[0] - EMPTY)) for f in tokens[1:]])
        assert torch.allclose(one[i, 0].flatten(), by_hand, atol=1e-5)


@torch.no_grad()
def test_reduced_blocks_equal_plain_loops(tiny_clip):
    """The last block only, no residual, no feed-forward part, for each way of mixing."""
    clip = tiny_clip("tok")
    pixels = clip.preprocess(IMAGES[:1, :, :224, :224], (224, 224))
    tower = clip.tower
    stream, grid = tower.stream(pixels)
    block = tower.blocks[-1]
    h = block.ln_1(stream[-2][0])
    q, k, v = (head_values(block, h, which) for which in range(3))
    gaussian = torch.zeros(50, 50)
    for i in range(49):
        for j in range(49):
            far = (i // 7 - j // 7) ** 2 + (i % 7 - j % 7) ** 2
            gaussian[i + 1, j + 1] = math.exp(-far / (2 * 5.0**2))

    def near(i):
        return ((k[i] @ k[i].T / 4) + gaussian).softmax(-1) @ v[i]

    mixes = {
        "maskclip": lambda i: v[i],
        "clearclip": lambda i: attention_loop(q[i], q[i], v[i]),
        "naclip": near,
        "segearth": lambda i: sum(attention_loop(p[i], p[i], v[i]) for p in (q, k, v)),
    }
    for name, mix in mixes.items():
        z = block.attn.out_proj(torch.cat([mix(i) for i in range(2)], dim=1))
        expected = unit(clip.model.visual.ln_post(z) @ clip.model.visual.proj)
        assert torch.allclose(method(name)(tower, stream, grid)[0, 1:], expected[1:], atol=1e-5), name

    x = stream[-2][0]
    both = torch.cat([attention_loop(q[i], q[i], v[i]) + attention_loop(k[i], k[i], v[i]) for i in range(2)], dim=1)
    x = x + block.attn.out_proj(both)
    x = x + block.mlp(block.ln_2(x))
    expected = unit(clip.model.visual.ln_post(x) @ clip.model.visual.proj)
    assert torch.allclose(method("sclip")(tower, stream, grid)[0], expected, atol=1e-5)


@torch.no_grad()
def test_gem_of_one_block_equals_plain_matrices(tiny_clip):
    clip = tiny_clip("tok", layers=1)
    tower = clip.tower
    stream, grid = tower.stream(clip.preprocess(IMAGES[:1, :, :224, :224], (224, 224)))
    block, h = tower.blocks[0], tower.blocks[0].ln_1(stream[0][0])
    t = h.norm(dim=1).mean() / math.sqrt(16)
    heads = []
    for q, k, v in zip(*(head_values(block, h, which) for which in range(3)), strict=True):
        parts = []
        for p in (q, k, v):
            p = unit(p)
            p = unit((t * p @ p.T).softmax(-1) @ p)
            parts.append((t * p @ p.T).softmax(-1) @ v)
        heads.append(sum(parts) / 3)
    expected = unit(
        clip.model.visual.ln_post(stream[0][0] + block.attn.out_proj(torch.cat(heads, 1))) @ tower.visual.proj
    )
    assert torch.allclose(gem(tower, stream, grid)[0], expected, atol=1e-5)


# --- every method ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [224, 448])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_at_every_size_batch_and_number_of_queries(tiny_clip, name, side):
    clip = tiny_clip("tok")
    image = IMAGES[:, :, :side, :side]
    order, queries = torch.tensor([2, 0, 1]), torch.randperm(20, generator=torch.Generator().manual_seed(0))
    whole = clip.encode(image, method=name)
    assert whole.aligned.shape == (3, 24, side // 32, side // 32)
    assert torch.allclose(whole.aligned.norm(dim=1), torch.ones(()), atol=1e-5)
    maps = similarity(whole, TEXT, method=name, empty=EMPTY)
    assert maps.shape == (3, 20, side // 32, side // 32)
    assert maps.isfinite().all()
    assert maps.std() > 1e-3  # no map of zeros passes

    alone = similarity(clip.encode(image[:1], method=name), TEXT, method=name, empty=EMPTY)
    assert torch.allclose(alone, maps[:1], atol=1e-5)
    turned = similarity(clip.encode(image[order], method=name), TEXT, method=name, empty=EMPTY)
    assert torch.allclose(turned, maps[order], atol=1e-5)
    shuffled = similarity(whole, TEXT[queries], method=name, empty=EMPTY)
    assert torch.allclose(shuffled, maps[:, queries], atol=1e-5)

    one = similarity(whole, TEXT[4:5], method=name, redundancy="empty", empty=EMPTY)
    many = similarity(whole, TEXT, method=name, redundancy="empty", empty=EMPTY)
    assert one.isfinite().all()
    assert torch.allclose(one, many[:, 4:5], atol=1e-6)  # nothing depends on the other queries
    repeated = similarity(whole, TEXT[[4, 4, 4]], method=name, redundancy="empty", empty=EMPTY)
    assert torch.allclose(repeated, one.expand(-1, 3, -1, -1), atol=1e-6)
    if name == "surgery":  # in the list form it does, by definition
        assert not torch.allclose(maps[:, 4], similarity(whole, TEXT[:8], method=name)[:, 4], atol=1e-3)
    else:
        assert torch.equal(maps, many)


def test_methods_differ_from_each_other(tiny_clip):
    clip = tiny_clip("avg")
    found = {name: clip.encode(IMAGES[:1], method=name).aligned for name in METHODS}
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(found[a], found[b], atol=1e-3), (a, b)


def test_the_neighbourhood_is_one_at_home_and_zero_for_the_class_token():
    g = neighbourhood((2, 3), torch.device("cpu"))
    assert g.shape == (7, 7)
    assert (g[0] == 0).all()
    assert (g[:, 0] == 0).all()
    assert torch.allclose(g.diagonal()[1:], torch.ones(6))
    assert g[1, 6].item() == pytest.approx(math.exp(-(1**2 + 2**2) / 50))  # one row and two columns away


@torch.no_grad()
def test_several_layers_are_the_mean_of_their_maps(tiny_clip):
    clip = tiny_clip("avg")
    tower = clip.tower
    stream, grid = tower.stream(clip.preprocess(IMAGES[:1, :, :96, :96], (96, 96)))
    by_hand = sum(tower.aligned(stream[i]) for i in (-1, -2, -3)) / 3
    assert torch.allclose(multi_layer(vanilla, 3)(tower, stream, grid), by_hand, atol=1e-6)
    three = similarity(clip.encode(IMAGES[:1], method="naclip", average=3), TEXT, method="naclip")
    one = similarity(clip.encode(IMAGES[:1], method="naclip"), TEXT, method="naclip")
    assert not torch.allclose(three, one, atol=1e-3)
    for bad in (0, 8):
        with pytest.raises(UserError, match=f"average={bad}"):
            clip.encode(IMAGES[:1], average=bad)


def test_a_wrong_name_names_its_neighbour():
    with pytest.raises(UserError, match="did you mean `naclip`"):
        method("naclib")
    with pytest.raises(UserError, match="use one of surgery, vanilla"):
        method("x")


def test_the_tower_protocol_is_what_vit_tower_gives(tiny_clip):
    assert isinstance(tiny_clip("tok").tower, VitTower)
