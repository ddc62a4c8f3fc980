# python experiments/aerial_clip.py --out src/boresight/assets
#
# Trains the small language-image encoder that ships with the package, on captions of made aerial scenes.
#
# The scenes hold no composition that is held out (`red ship`, say): whoever tests a detector on those asks for
# something that neither the detector nor this encoder has ever seen together. Captions are contrasted with images
# (those that say the same are each other's positives), and the phrase of an object ("a red truck", "a truck", "a red
# object") with the patches it covers and with those it does not: grounded captions, so that the map of a class means
# something. Writes an open_clip configuration and half-precision weights, with the zero-shot accuracy on unseen scenes.
"""Train and judge the small CLIP; see the lines above."""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.data.aerial import Aerial
from boresight.data.aerial_settings import COLOURS, KINDS, AerialSettings, compositions, held_out

SIDE = 64
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": SIDE,
        "patch_size": 8,
        "width": 128,
        "layers": 4,
        "head_width": 32,
        "pool_type": "avg",
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}
# the scenes' own light: middle grey and a typical spread
PREPROCESS = {
    "mean": [0.42, 0.43, 0.38],
    "std": [0.20, 0.19, 0.19],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
TEMPLATES = ("an aerial photo of a {}", "a {} seen from above", "a satellite image of a {}", "a {}")


@dataclass(frozen=True)
class Pool:
    """Scenes with their captions: ``images [N, 3, H, W]`` uint8, ``boxes [N, 4]`` around all objects of each."""

    images: np.ndarray
    boxes: np.ndarray
    words: list[list[str]]
    contents: list[tuple[str, ...]]


def made(first: int, count: int, seed: int, novel: bool, objects: int) -> Pool:
    """Scenes of so many objects; one alone is drawn with more ground around it, to be cut in many ways."""
    side, scale = (96, (12.0, 46.0)) if objects == 1 else (SIDE, (10.0, 30.0))
    settings = AerialSettings(
        height=side,
        width=side,
        objects=(objects, objects),
        scale=scale,
        empty_share=0.0,
        distractors=(0, 2),
        edge_share=0.0,
    )
    scenes = Aerial(settings, count=count, seed=seed, first=first, novel=novel)
    images, boxes, words, contents = [], [], [], []
    for i in range(count):
        scene, things = scenes[i], scenes.objects(i)
        if not things:
            continue
        images.append(scene.image.numpy())
        boxes.append([*scene.boxes[:, :2].amin(0).tolist(), *scene.boxes[:, 2:].amax(0).tolist()])
        words.append([*scenes.captions(i, 4)])
        contents.append(tuple(sorted(f"{o.colour} {o.kind}" for o in things)))
    return Pool(np.stack(images), np.array(boxes), words, contents)


def pool(count: int, seed: int, *, novel: bool = False, objects: int = 1, offset: int = 0, workers: int = 2) -> Pool:
    """:func:`made` in parts, by several processes."""
    step = 500
    starts = range(offset, offset + count, step)
    with ProcessPoolExecutor(workers) as crew:
        parts = list(crew.map(partial(made, count=step, seed=seed, novel=novel, objects=objects), starts))
    return Pool(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.boxes for p in parts]),
        [w for p in parts for w in p.words],
        [c for p in parts for c in p.contents],
    )


def corner(box: np.ndarray, side: int, rng: np.random.Generator | None) -> tuple[int, int]:
    """Where in a larger scene a 64 x 64 window starts that shows most of the objects; else the one centred on them."""
    spare = side - SIDE
    found = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        hidden = 0.2 * (high - low)
        first, last = max(0, math.ceil(high - hidden - SIDE)), min(spare, math.floor(low + hidden))
        middle = min(max(round((low + high - SIDE) / 2), 0), spare)
        found.append(middle if rng is None or last <= first else int(rng.integers(first, last + 1)))
    return found[0], found[1]


def window(image: np.ndarray, box: np.ndarray, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """A 64 x 64 part of a scene, and ``[64, 64]`` whether a pixel lies in the box."""
    x, y = corner(box, image.shape[-1], rng)
    grid = np.arange(SIDE) + 0.5
    inside = np.outer((grid + y > box[1]) & (grid + y < box[3]), (grid + x > box[0]) & (grid + x < box[2]))
    return image[:, y : y + SIDE, x : x + SIDE], inside


def normalised(batch: Tensor) -> Tensor:
    """Grey values in 0..1, less their mean, over their spread."""
    mean, std = (torch.tensor(PREPROCESS[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (batch - mean) / std


def views(scenes: Pool, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Windows in one of eight orientations, a little brighter or darker; and the share of each patch in the box."""
    parts = [window(scenes.images[r], scenes.boxes[r], rng) for r in rows]
    batch = torch.from_numpy(np.stack([p[0] for p in parts])).float() / 255
    inside = torch.from_numpy(np.stack([p[1] for p in parts])).float()[:, None]
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    batch, inside = (torch.rot90(v, turns, (2, 3)) for v in (batch, inside))
    batch, inside = (v.flip(-1) if mirror else v for v in (batch, inside))
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(batch), 1, 1, 1)).astype(np.float32))
    return normalised((batch * gain).clamp(0, 1)), F.avg_pool2d(inside, MODEL["vision_cfg"]["patch_size"]).flatten(1)


def loss(image: Tensor, text: Tensor, scale: Tensor, contents: list[tuple[str, ...]]) -> Tensor:
    """Contrastive, both ways; images with the same contents share the target."""
    number = {c: i for i, c in enumerate(dict.fromkeys(contents))}
    group = torch.tensor([number[c] for c in contents])
    same = (group[:, None] == group[None]).float()
    target = same / same.sum(1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@dataclass(frozen=True)
class Phrases:
    """What can be said of one object: compositions, kinds, colours. ``tokens [P, L]``, ``group [P]`` 0, 1 or 2."""

    names: list[str]
    tokens: Tensor
    group: Tensor

    @classmethod
    def of(cls, tokenizer) -> Phrases:  # type: ignore[no-untyped-def]
        """The phrases that training may show."""
        novel = held_out(KINDS, COLOURS)
        base = [c for c in compositions(KINDS, COLOURS) if c not in novel]
        names = [*base, *KINDS, *(f"{c} object" for c in COLOURS)]
        group = torch.tensor([0] * len(base) + [1] * len(KINDS) + [2] * len(COLOURS))
        return cls(names, torch.stack([tokenizer([t.format(n) for t in TEMPLATES]) for n in names]), group)

    def said(self, contents: list[tuple[str, ...]]) -> Tensor:
        """``[N, P]`` bool: the phrases that are true of the one object of each image."""
        place = {n: i for i, n in enumerate(self.names)}
        out = torch.zeros(len(contents), len(self.names), dtype=torch.bool)
        for row, (name,) in enumerate(contents):
            colour, kind = name.split(" ", 1)
            out[row, [place[name], place[kind], place[f"{colour} object"]]] = True
        return out


def grounded(tokens: Tensor, inside: Tensor, phrases: Tensor, group: Tensor, said: Tensor, scale: Tensor) -> Tensor:
    """Phrases against the patches an object covers, and against the ground around it, both ways.

    ``tokens [N, 64, D]`` in the common space, ``inside [N, 64]`` shares, ``phrases [P, D]``, ``said [N, P]``.
    """
    unit = F.normalize(tokens, dim=-1)
    thing = F.normalize(torch.einsum("npd,np->nd", unit, inside), dim=-1)
    ground = F.normalize(torch.einsum("npd,np->nd", unit, (inside == 0).float()), dim=-1)
    logits = scale * thing @ phrases.T
    named = [F.cross_entropy(logits[:, group == g], said[:, group == g].float().argmax(1)) for g in range(3)]
    # each phrase looks for its objects among all objects and all ground
    among = scale * phrases @ torch.cat((thing, ground)).T
    there = said.T.float()
    spoken = there.sum(1) > 0
    found = -(among.log_softmax(1)[:, : len(thing)] * there).sum(1)[spoken] / there.sum(1)[spoken]
    return torch.stack(named).mean() + found.mean()


@torch.no_grad()
def zero_shot(model, tokenizer, images: np.ndarray, names: list[str], classes: list[str]) -> float:  # type: ignore[no-untyped-def]
    """Share of images whose name is the best of ``classes``."""
    text = []
    for c in classes:
        words = F.normalize(model.encode_text(tokenizer([t.format(c) for t in TEMPLATES])), dim=-1)
        text.append(F.normalize(words.mean(0), dim=-1))
    batch = normalised(torch.from_numpy(images).float() / 255)
    pooled = torch.cat([model.visual(b)[0] for b in batch.split(256)])
    found = F.normalize(pooled, dim=-1) @ torch.stack(text).T
    best = found.argmax(1).tolist()
    return float(np.mean([classes[b] == n for b, n in zip(best, names, strict=True)]))


def judge(model, tokenizer, seed: int, count: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Zero-shot accuracy on unseen single objects: compositions that were trained, held-out ones, and kinds alone."""
    model.eval()
    scenes = pool(count, seed, novel=True, offset=5_000_000)
    images = np.stack([window(i, b, None)[0] for i, b in zip(scenes.images, scenes.boxes, strict=True)])
    names = [c[0] for c in scenes.contents]
    every = list(compositions(KINDS, COLOURS))
    novel = held_out(KINDS, COLOURS)
    base_rows = [i for i, n in enumerate(names) if n not in novel]
    novel_rows = [i for i, n in enumerate(names) if n in novel]
    kinds = [n.split(" ", 1)[1] for n in names]
    return {
        "base_compositions": zero_shot(model, tokenizer, images[base_rows], [names[i] for i in base_rows], every),
        "held_out_compositions": zero_shot(model, tokenizer, images[novel_rows], [names[i] for i in novel_rows], every),
        "kinds": zero_shot(model, tokenizer, images, kinds, list(KINDS)),
        "images": len(names),
        "classes": len(every),
    }


def main() -> None:
    """Train, judge and write."""
    import open_clip
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.monotonic()
    pools = [pool(args.images * 3 // 4, args.seed), pool(args.images // 4, args.seed, objects=2, offset=1_000_000)]
    print(f"{args.images} scenes in {time.monotonic() - began:.0f} s", flush=True)
    torch.manual_seed(args.seed)
    model = open_clip.model.CLIP(**MODEL)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    tokens = [torch.stack([tokenizer(w) for w in p.words]) for p in pools]
    phrases = Phrases.of(tokenizer)
    model.visual.output_tokens = True
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.98),
    )
    rng = np.random.default_rng([args.seed, 7])
    recent = []
    for step in range(args.steps):
        share = step / args.steps
        rate = args.rate * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        pixels, spoken, contents, shares = [], [], [], []
        for scenes, token, part in zip(pools, tokens, (args.batch * 3 // 4, args.batch // 4), strict=True):
            rows = rng.integers(0, len(scenes.images), part)
            batch, inside = views(scenes, rows, rng)
            pixels.append(batch)
            shares.append(inside)
            spoken.append(token[rows, rng.integers(0, token.shape[1], part)])
            contents += [scenes.contents[r] for r in rows]
        model.train()
        pooled, patches = model.visual(torch.cat(pixels))
        said = phrases.tokens[torch.arange(len(phrases.names)), rng.integers(0, len(TEMPLATES), len(phrases.names))]
        text = model.encode_text(torch.cat([*spoken, said]), normalize=True)
        captions, names = text.split([args.batch, len(phrases.names)])
        scale, single = model.logit_scale.exp(), len(shares[0])
        value = loss(F.normalize(pooled, dim=-1), captions, scale, contents) + grounded(
            patches[:single] @ model.visual.proj,
            shares[0],
            names,
            phrases.group,
            phrases.said(contents[:single]),
            scale,
        )
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        recent.append(float(value.detach()))
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: loss {np.mean(recent[-200:]):.3f}, {time.monotonic() - began:.0f} s", flush=True)
        if (step + 1) % 1000 == 0 or step + 1 == args.steps:
            print(json.dumps(judge(model, tokenizer, args.seed, 1000)), flush=True)
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out / "aerial_clip.safetensors", metadata={"format": "pt"})
    about = {
        "made_by": "python experiments/aerial_clip.py --out src/boresight/assets "
        f"--seed {args.seed} --images {args.images} --steps {args.steps} --batch {args.batch} --rate {args.rate:g}",
        "seed": args.seed,
        "zero_shot_accuracy": judge(model, tokenizer, args.seed, 2000),
        "seconds": round(time.monotonic() - began),
    }
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS, "about": about}
    (args.out / "aerial_clip.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
