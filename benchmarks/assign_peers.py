"""Our assigners beside those of Ultralytics and torchvision: `python benchmarks/assign_peers.py [--rounds 9]`.

One box a cell for all classes, as both have it; the same maps, objects and memory as in `assign.py`. Interleaved
rounds of five calls in one process on one thread. Ultralytics' TaskAlignedAssigner is given plain IoU in the place of
CIoU, since ours ranks by that (TOOD); of cells with equal metrics either may be chosen, all others must be the same.
torchvision's FCOS is given one level without limits of size and without centre sampling: "the smallest object that
holds the cell".
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import torch
from assign import STRIDE, batch, owners
from rounds import Row, interleaved, row, shown
from torch import Tensor
from torchvision.models.detection.fcos import FCOS

from boresight.core.boxes import aligned_iou
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Scene
from boresight.run.engine import keep_freed_memory
from boresight.targets import dense
from boresight.targets.assignment import Assigner
from boresight.targets.candidates import Objects
from boresight.targets.inside import Inside
from boresight.targets.tal import Tal

SIDES = (56, 112)


def ours(rule: Assigner, output: DenseOutput, score: Tensor, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Owner of every cell, and the targets' scores."""
    objects = Objects.of(scenes, output.logits.shape[1])
    found = rule(output, score, objects)
    targets = dense.dense_targets(output, found, objects, scenes, score=dense.aligned)
    return owners(found, targets.matched), targets.score


class Padded:
    """The scenes as Ultralytics reads them: ``[B, most, ...]``, the rows beyond an image's objects masked."""

    def __init__(self, scenes: list[Scene]) -> None:
        most = max(len(s.boxes) for s in scenes)  # type: ignore[arg-type]
        self.boxes, self.labels = torch.zeros(len(scenes), most, 4), torch.zeros(len(scenes), most, 1)
        self.mask = torch.zeros(len(scenes), most, 1)
        for i, s in enumerate(scenes):
            n = len(s.boxes)  # type: ignore[arg-type]
            self.boxes[i, :n], self.labels[i, :n, 0], self.mask[i, :n] = s.boxes, s.labels.float(), 1.0


def tal_rows(rounds: int) -> list[Row]:
    """Equal and ragged numbers of objects."""
    from ultralytics.utils.tal import TaskAlignedAssigner

    class PlainIou(TaskAlignedAssigner):
        def iou_calculation(self, gt_bboxes: Tensor, pd_bboxes: Tensor) -> Tensor:
            return aligned_iou(gt_bboxes, pd_bboxes)

    rows = []
    for side in SIDES:
        points = cell_centres(side, side, STRIDE).view(-1, 2)
        theirs = PlainIou(topk=13, num_classes=20, alpha=1.0, beta=6.0, stride=[int(STRIDE)])
        for kind, counts, target in (("equal", [35] * 8, ">= 3"), ("ragged", [1, 2, 1, 3, 2, 1, 1, 120], ">= 6")):
            output, score, scenes = batch(side, shared=True, counts=counts)
            boxes = output.boxes[:, 0].flatten(1, 2)
            flat = score.flatten(2).transpose(1, 2).contiguous()

            def peer(scenes: list[Scene] = scenes, theirs: PlainIou = theirs, given: tuple = (flat, boxes, points)):
                p = Padded(scenes)
                return theirs(*given, p.labels, p.boxes, p.mask)

            def mine(scenes: list[Scene] = scenes, output: DenseOutput = output, score: Tensor = score):
                return ours(Tal(until=0.0), output, score, scenes)

            times = interleaved({"peer": peer, "ours": mine}, rounds, repeats=5)
            told = compare_tal(times["peer"].answer, times["ours"].answer[0], scenes, output)
            work = f"TAL, B 8, C 20, {side}x{side}, {kind} counts ({sum(counts)} objects)"
            rows.append(row(work, "Ultralytics", times, target, told))
    return rows


def compare_tal(theirs: tuple[Tensor, ...], mine: Tensor, scenes: list[Scene], output: DenseOutput) -> str:
    """Which cells differ. Positive for one alone may be what has no metric to speak of.

    A cell that several objects chose goes to the one that it overlaps most: of those that chose it in ours, of all that
    hold it in theirs. Where that is another object, it overlaps that one more.
    """
    first = torch.tensor([0, *[len(s.boxes) for s in scenes]]).cumsum(0)[:-1]  # type: ignore[arg-type]
    _, boxes, scores, fg, index = theirs
    want = torch.where(fg, index + first[:, None], -1)
    have = mine.flatten(2).amax(1)
    alone = (have >= 0) != (want >= 0)
    tied = scores.amax(-1)[alone & (want >= 0)]
    assert float(tied.max() if len(tied) else 0.0) < 1e-3, "a cell that scores is missing"
    other = (have >= 0) & (want >= 0) & (have != want)
    batch_of = other.nonzero(as_tuple=True)
    every = torch.cat([s.boxes for s in scenes])  # type: ignore[misc]
    emitted = output.boxes[:, 0].flatten(1, 2)[batch_of]
    more = aligned_iou(boxes[batch_of], emitted) >= aligned_iou(every[have[batch_of]], emitted)
    assert bool(more.all()), "a cell stands for an object that it overlaps less"
    return f"{int((have >= 0).sum())} positives, {int(alone.sum())} differ, {int(other.sum())} have another owner"


def inside_rows(rounds: int) -> list[Row]:
    """Which object holds a cell, the smallest first."""
    rows = []
    for side in SIDES:
        output, score, scenes = batch(side, shared=True)
        xy = cell_centres(side, side, STRIDE).view(-1, 2)
        anchors = [torch.cat((xy - STRIDE / 2, xy + STRIDE / 2), -1)] * len(scenes)
        truth = [{"boxes": s.boxes, "labels": s.labels} for s in scenes]
        fcos = SimpleNamespace(
            center_sampling_radius=1e9, head=SimpleNamespace(compute_loss=lambda t, o, a, matched: matched)
        )

        def peer(fcos=fcos, truth=truth, anchors=anchors, cells=side * side):
            return torch.stack(FCOS.compute_loss(fcos, truth, {}, anchors, [cells]))

        def mine(output=output, score=score, scenes=scenes):
            objects = Objects.of(scenes, output.logits.shape[1])
            return Inside()(output, score, objects)

        times = interleaved({"peer": peer, "ours": mine}, rounds, repeats=5)
        first = torch.tensor([0, *[len(s.boxes) for s in scenes]]).cumsum(0)[:-1]
        want = times["peer"].answer
        want = torch.where(want >= 0, want + first[:, None], -1)
        have = owners(times["ours"].answer, torch.zeros_like(output.logits, dtype=torch.long)).flatten(2).amax(1)
        other = int((have != want).sum())
        # a cell in two objects of one size to the last bit, and objects that hold no cell, which ours gives the nearest
        assert other <= 8, f"{other} cells differ"
        told = f"{int((have >= 0).sum())} positives, {other} differ"
        rows.append(row(f"centre-inside, B 8, C 20, {side}x{side}", "torchvision FCOS", times, ">= 30", told))
    return rows


def rows(rounds: int = 9) -> list[Row]:
    """Both."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return [*tal_rows(rounds), *inside_rows(rounds)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    shown(rows(**vars(parser.parse_args())))
