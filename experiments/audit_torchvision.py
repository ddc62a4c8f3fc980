"""A detector that another library makes, trained here briefly, as a source of the audit: FCOS of torchvision.

    BORESIGHT_DATA=../shared/data python experiments/audit_torchvision.py --out runs/fcos --jobs 8     # on a GPU
    python experiments/audit_torchvision.py made --out runs/made --steps 300 --size 128 --backbone resnet18

Trains `fcos_resnet50_fpn` from random weights on a COCO data set under $BORESIGHT_DATA (`made`: on coloured rectangles
that are written into --out, minutes on a CPU) and keeps it in --out: the same command again only audits. Prints AP50 of
what it returns, where its boxes come from, what suppression and ranking cost, what each repair would gain, and the
verdict; `OUT/fcos.json` holds the whole diagnosis.

Then known faults are planted: into what it emits (`boresight.diagnose.plant`), and into the model itself, as users get
it wrong (`torchvision_fcos.misuse`). Each has a word that was expected of it before it was judged. The table of words
and verdicts is printed and stands in `OUT/faults.json`. A fault that costs less than 0.05 of AP50 deserves no word.

Last, a DETR of the transformers library with random weights: queries have no place, and what cannot be said is said.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import FCOS
from torchvision_fcos.judging import HARM, REPAIRS, Job, Judge, Recorded, judged, starved_below
from torchvision_fcos.made import write_made
from torchvision_fcos.misuse import MISUSES
from torchvision_fcos.training import Labelled, Plan, build, keep, kept, train

from boresight.core.types import Scene
from boresight.data.box_frames import BoxFrames
from boresight.data.boxes import open_boxes
from boresight.detectors.foreign import adapt
from boresight.diagnose.inputs import otherwise
from boresight.diagnose.plant import FAULTS
from boresight.run.record import environment, write_json

MADE = "made"

# ---------------------------------------------------------------- the detector


def trained_fcos(data: BoxFrames, plan: Plan, out: Path, device: torch.device) -> tuple[FCOS, dict[str, Any]]:
    """A trained model on the device, and how it was trained; taken from ``out`` where the same plan was followed."""
    model, file = build(len(data.classes), plan), out / "fcos.safetensors"
    told = kept(file, model, plan)
    model.to(device)
    if told is None:
        began = time.monotonic()
        images = [Labelled.of(data[i], device) for i in range(len(data))]
        print(f"{len(images)} images in {time.monotonic() - began:.0f} s; training on {device}", flush=True)
        told = train(model, images, plan)
        keep(file, model, plan, told)
    print(f"{file}: {told['steps']} steps in {told['seconds']} s, last loss {told['loss']:.3f}", flush=True)
    return model, told


# ---------------------------------------------------------------- what is judged


def planted(base: Recorded) -> Iterator[Job]:
    """The faults of :mod:`boresight.diagnose.plant`; of one class, none can be taken for another."""
    for fault, word in FAULTS.items():
        if fault != "class" or len(base.classes) > 1:
            yield Job(fault, "planted", f"{fault} (planted into the output)", word, base, fault)


def misused(model: FCOS, base: Recorded, scenes: Sequence[Scene]) -> Iterator[Job]:
    """The mistakes of users; where the network emits what it did, it is not asked again."""
    for mistake in MISUSES:
        wrong = mistake.on(model)
        source = adapt(wrong, base.classes)
        emissions = base.emissions if mistake.same_output else {s.name: source.emit(s) for s in scenes}
        made = base.emitting(emissions, source.decoding, otherwise(source, scenes))
        if mistake.emission is not None:
            made = made.changed(lambda e, m=mistake, w=wrong: m.emission(w, e))  # type: ignore[misc]
        yield Job(mistake.name, "misuse", f"{mistake.name}: {mistake.what}", mistake.word, made)


# ---------------------------------------------------------------- what is printed


def say(told: dict[str, Any], name: str) -> None:
    """The audit of one detector, for a person."""
    d = told["diagnosis"]
    c, counts, verdict = told["coco"], d["counts"], d["verdict"]
    print(f"\n## {name}: {d['images']} images, {counts['objects']} objects, {counts['kept']} detections\n")
    print(f"AP50 {_plain(c['ap50'])}, AP75 {_plain(c['ap75'])}, AP {_plain(c['ap'])} (COCO's rules)")
    for k, one in c["per_class"].items():
        print(f"  {k}: AP50 {_plain(one['ap50'])} of {one['objects']} objects")
    for owner, who in (("own", "its own assigner"), ("control", "an assigner that sees no prediction")):
        for when in ("before", "after"):
            for bucket, b in d["buckets"].get(owner, {}).get(when, {}).items():
                fit = f"IoU mean {_plain(b['iou']['mean'])} median {_plain(b['iou']['median'])}"
                print(f"  {when} suppression, by {who}: {bucket} {b['iou']['n']} boxes, {fit}, {b['false_n']} false")
    for side, x in d["displacement"].items():
        said = (
            x if side == "missing" else f"{x['n']} of {x['kept']} kept boxes {_span(x['share'])} drove out a better one"
        )
        more = (
            "" if side == "missing" else f" of a supervised cell, IoU lost {_span(x['lost'])}, {x['reached']} objects"
        )
        print(f"  displacement, {side}: {said}{more}")
    r = d["ranking"]
    print(f"  regret of an object {_span(r['regret'])}, the top-scored cell is the best: {_span(r['top_is_best'])}")
    print("  if one thing were true, AP50 gains (they do not add up):")
    gains = d["attribution"]["gains"]
    for k in sorted(gains, key=lambda k: -(gains[k]["ap50"]["value"] or 0.0)):
        print(f"    {k:<17}{_span(gains[k]['ap50'], '+')}   {gains[k]['says']}")
    for what, reason in d["missing"].items():
        print(f"  MISSING {what}: {reason}")
    print(f"  {verdict['word'].upper()}: {verdict['sentence']}\n  overturned by: {verdict['overturn']}", flush=True)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _span(estimate: dict[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "-"
    low_high = estimate["interval"]
    span = "" if low_high is None else f" [{low_high[0]:{sign}.3f}, {low_high[1]:{sign}.3f}]"
    return f"{estimate['value']:{sign}.3f}{span}"


def answered(told: dict[str, Any], base: dict[str, Any]) -> str:
    """Whether a verdict is the expected word: ``yes``, ``no``, or ``harmless`` where no word is due."""
    return "harmless" if cost(told, base) < HARM else "yes" if told["verdict"] == told["expected"] else "no"


def cost(told: dict[str, Any], base: dict[str, Any]) -> float:
    """AP50 that a fault takes."""
    return float(base["ap50"]["value"] or 0.0) - float(told["ap50"]["value"] or 0.0)


def as_markdown(base: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """The table: each fault, the word that was expected, the verdict, what it costs, and what each repair gains."""
    head = ["fault", "expected", "verdict", "as expected", "AP50", "cost", *REPAIRS]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * 4 + "---:|" * (len(head) - 4), _row(base, base)]
    lines += [_row(told, base) for told in results]
    for kind, said in (("planted", "planted into the output"), ("misuse", "made by users")):
        due = [answered(r, base) for r in results if r["kind"] == kind]
        harmful = [a for a in due if a != "harmless"]
        rest = len(due) - len(harmful)
        lines += ["", f"Faults {said}: {harmful.count('yes')} of {len(harmful)} verdicts as expected, {rest} harmless."]
    said = [f"- {told['name']}: {'; '.join(told['findings'])}" for told in results if told["findings"]]
    return "\n".join([*lines, "", "Findings:", *said] if said else lines)


def _row(told: dict[str, Any], base: dict[str, Any]) -> str:
    gains = [f"{g['value']:+.3f}" if (g := told["gains"].get(k)) and g["value"] is not None else "-" for k in REPAIRS]
    end = [_plain(told["ap50"]["value"]), f"{cost(told, base):+.3f}", *gains]
    verdict = told["verdict"] + ("" if told["clear"] or not told["runner_up"] else f" (or {told['runner_up']})")
    if told is base:
        return f"| {' | '.join(['none', '-', verdict, '-', *end])} |"
    answer = answered(told, base).replace("no", "**no**")
    return f"| {' | '.join([told['what'], told['expected'], verdict, answer, *end])} |"


# ---------------------------------------------------------------- a detector of queries


def tiny_detr(classes: Sequence[str], seed: int) -> tuple[Any, Any]:
    """A DETR of some ten thousand random weights and its image processor; nothing is downloaded."""
    hf: Any = import_module("transformers")
    torch.manual_seed(seed)
    body = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic",
                           out_features=["stage4"])  # fmt: skip
    layers = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 32))}
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    config = hf.DetrConfig(backbone_config=body, use_timm_backbone=False, backbone=None, num_queries=40, d_model=32,
                           num_labels=len(classes), **layers, **heads)  # fmt: skip
    processor = hf.DetrImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    return hf.DetrForObjectDetection(config).eval(), processor


def detr_job(scenes: Sequence[Scene], classes: Sequence[str], seed: int, device: torch.device) -> Job:
    """All that it emits, however low its score: nothing was trained."""
    model, processor = tiny_detr(classes, seed)
    source = adapt(model.to(device), classes, processor=processor, threshold=0.0)
    return Job("DETR", "none", "random weights", "", Recorded.of(source, scenes), whole=True)


# ---------------------------------------------------------------- all of it


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", nargs="?", default="aerial-maritime", help=f"a folder under $BORESIGHT_DATA, or `{MADE}`"
    )
    parser.add_argument("--backbone", default=Plan.backbone, choices=["resnet18", "resnet50"])
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--size", type=int, default=Plan.size, help="shorter side that the network sees, pixels")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="of training at most (default: no limit)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--images", type=int, help="of the test set, the first so many (default: all)")
    parser.add_argument("--replicates", type=int, default=500, help="of the bootstrap by image")
    parser.add_argument("--jobs", type=int, default=1, help="processes that judge")
    parser.add_argument("--audit-only", action="store_true", help="plant nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/audit_torchvision"))
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Train, audit, plant, audit again."""
    args = arguments(given)
    wanted = "cuda" if args.device == "auto" and torch.cuda.is_available() else args.device
    device = torch.device("cpu" if wanted == "auto" else wanted)
    if args.data == MADE:
        root = write_made(args.out / "data", {"train": 200, "test": 80})
    else:
        root = Path(os.environ.get("BORESIGHT_DATA", "../shared/data")) / args.data
    plan = Plan(args.data, args.backbone, args.steps, args.batch, args.size, args.seed, args.lr, args.seconds)
    model, training = trained_fcos(open_boxes(root, "train"), plan, args.out, device)

    test = open_boxes(root, "test")
    scenes = [test[i] for i in range(min(args.images or len(test), len(test)))]
    base = Recorded.of(adapt(model, test.classes), scenes)
    bare = [s.without_pixels() for s in scenes]
    judge = Judge(bare, starved_below(bare), args.replicates)
    about = {"split": "test", "plan": vars(plan), "training": training, "environment": environment()}

    told = judge(Job("none", "none", "none", "", base, whole=True))
    say(told, f"FCOS on {args.data}")
    write_json(
        args.out / "fcos.json", about | {"detector": "torchvision FCOS", "coco": told["coco"]} | told["diagnosis"]
    )

    if args.audit_only:
        return 0
    jobs = [*planted(base)]
    order = [job.name for job in jobs] + [mistake.name for mistake in MISUSES]
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    for result in judged(judge, chain(jobs, misused(model, base, scenes)), args.jobs):
        results = sorted([*results, result], key=lambda r: order.index(r["name"]))
        write_faults(args.out / "faults.json", about, told, results)
        print(f"{time.monotonic() - began:4.0f} s  {result['name']}: {result['verdict']}", flush=True)
    print(
        f"\nObjects under {judge.small:.0f} pixels are those that `starved` silences.\n\n{as_markdown(told, results)}"
    )

    queries = judge(detr_job(scenes, test.classes, args.seed, device))
    say(queries, "DETR with random weights")
    write_json(args.out / "detr.json", about | {"detector": "transformers DETR"} | queries["diagnosis"])
    return 0


def write_faults(path: Path, about: dict[str, Any], base: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """The table as JSON, whole or not at all."""
    as_it_is = {k: v for k, v in base.items() if k not in ("diagnosis", "coco")}
    rows = [{**r, "cost": cost(r, base), "as_expected": answered(r, base)} for r in results]
    write_json(path, about | {"harm": HARM, "as_it_is": as_it_is, "faults": rows})


if __name__ == "__main__":
    raise SystemExit(main())
