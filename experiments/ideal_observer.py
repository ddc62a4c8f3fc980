"""Compares a run on made frames of white noise with the ideal observer, by SNR.

    boresight train point --config experiments/white.yaml && boresight evaluate runs/white --split test
    python experiments/ideal_observer.py runs/white

The ideal observer knows the shape of a target and the noise; in white noise nothing can be better. Its line is the
mean over the SNRs of the very targets in a bin. Intervals are Wilson's, 95 %. `beyond` marks a bin whose interval lies
wholly above the line and above what the ideal observer itself finds in these very frames (a leak); `far` one that is
more than 0.10 below the line at SNR 6 or more.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from boresight.core.types import Detections, Points, Scene
from boresight.decode.peaks import local_peaks
from boresight.evaluate.observer import ideal_observer, matched_filter
from boresight.evaluate.points import evaluate_points
from boresight.run.frames import point_splits
from boresight.run.parse import read_yaml, settings_from
from boresight.run.point import truth_points
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder


def on_these_frames(scenes: list[Scene], truth: list[Points]) -> dict[tuple[float, float], float]:
    """Pd of the matched filter in the frames themselves, by (false alarms a frame, lower edge of the SNR bin)."""
    found = []
    for scene in scenes:
        response = torch.from_numpy(matched_filter(scene.image[0].double().numpy() - scene.level)).float()[None, None]
        peaks = torch.where(local_peaks(response), response, -torch.inf).flatten()
        top, cell = peaks.topk(100)
        width = scene.size[1]
        found.append(Detections.at(torch.stack((cell % width + 0.5, cell // width + 0.5), -1), top))
    report = evaluate_points(truth, found, sizes=[s.size for s in scenes], threshold=0.0, bootstrap=0)
    return {(b.rate, b.low): b.pd or 0.0 for b in report.by_snr}


def main(root: str) -> int:
    """Print the table; exit status 1 when a bin is beyond the line or far below it."""
    run = RunFolder.existing(root)
    settings = settings_from(recipe("point").settings, read_yaml(run.config), origin=str(run.config))
    judged = json.loads(run.evaluation.read_text(encoding="utf-8"))
    frames = getattr(point_splits(settings.data, only=judged["split"]), judged["split"])
    truth = truth_points([frames[i] for i in range(judged["frames"])])
    snr = np.concatenate([p.snr.numpy() for p in truth if p.snr is not None])
    grid, rates = np.arange(2.0, 14.01, 0.25), sorted({b["rate"] for b in judged["by_snr"]})
    size = (settings.data.height, settings.data.width)
    line = dict(zip(rates, ideal_observer(grid.tolist(), rates, shape=size, trials=20_000), strict=True))
    same = on_these_frames([frames[i] for i in range(judged["frames"])], truth)
    wrong = 0
    print(f"{judged['frames']} {settings.data.preset} frames, {len(snr)} targets")
    print("false alarms   SNR        n    Pd   95 %             ideal   difference   ideal on these frames")
    for b in judged["by_snr"]:
        inside = snr[(snr >= b["low"]) & (snr < b["high"])]
        if not len(inside) or b["pd"] is None:
            continue
        rate, pd, (low, high) = b["rate"], b["pd"], b["interval"]
        ideal = float(np.interp(inside, grid, line[rate]).mean())
        here = same[rate, b["low"]]
        far = b["low"] >= 6 and pd < ideal - 0.10
        mark = "beyond" if low > max(ideal, here) else "far" if far else ""
        wrong += bool(mark)
        span = f"{b['low']:g}-{b['high']:g}"
        found = f"{b['n']:>5}  {pd:.3f}  [{low:.3f}, {high:.3f}]"
        print(f"{rate:>12g}   {span:<7}{found}   {ideal:.3f}   {pd - ideal:+.3f}       {here:.3f} {mark}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    raise SystemExit(main(parser.parse_args().run))
