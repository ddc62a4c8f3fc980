"""Decoding beside the suppression in it: `python benchmarks/decode.py [--rounds 15]`.

20 classes on 56 x 56 cells are 62,720 scores of one image; boxes and scores are those of a detector half trained
(`assign.py`). The peer is torchvision's `batched_nms` alone, on the thousand best boxes, which it is handed. Ours reads
the whole map: mask, threshold, the best thousand, clipping, suppression, the best hundred, and the cell of each.
Interleaved rounds of ten calls in one process on one thread; both must keep the same boxes.
"""

from __future__ import annotations

import argparse

import torch
from assign import STRIDE, batch
from rounds import Row, interleaved, row, shown
from torchvision.ops import batched_nms, clip_boxes_to_image

from boresight.core.types import DenseOutput
from boresight.decode.boxes import BoxDecoder


def rows(rounds: int = 15) -> list[Row]:
    """Boxes that all classes share, and boxes of each class."""
    torch.set_num_threads(1)
    made = []
    for shared in (True, False):
        output, score, _ = batch(56, shared=shared)
        one = DenseOutput(output.logits[:1], output.boxes[:1], STRIDE)
        score = score[:1] ** 4  # most scores are low
        size = (int(56 * STRIDE), int(56 * STRIDE))
        decoder = BoxDecoder()
        best, cell = score.flatten().topk(decoder.before_nms)
        label, place = cell // (56 * 56), cell % (56 * 56)
        boxes = clip_boxes_to_image(one.boxes[0, label, place // 56, place % 56], size)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(-1)
        given = (boxes[solid], best[solid], label[solid])

        def peer(given=given, nms=decoder.nms):
            return batched_nms(*given, nms)

        def ours(decoder=decoder, one=one, score=score, size=size):
            return decoder(one, score, [size])[0]

        times = interleaved({"peer": peer, "ours": ours}, rounds, repeats=10)
        kept, found = times["peer"].answer[: decoder.top_k], times["ours"].answer
        assert torch.equal(found.boxes, given[0][kept]), "other boxes are kept"
        assert torch.equal(found.labels, given[2][kept]), "other classes are kept"
        kind = "one box a cell" if shared else "a box for each class"
        told = f"{len(found)} detections, equal"
        made.append(row(f"decode + NMS, 62,720 scores, {kind}", "batched_nms alone", times, "<= 1.3", told, share=True))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    shown(rows(**vars(parser.parse_args())))
