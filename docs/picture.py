"""Draws the picture of the README from a quickstart: `python docs/picture.py runs/quickstart docs/quickstart.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch

from boresight.run.frames import point_splits
from boresight.run.predict import load_trained
from boresight.run.record import RunFolder

SIDE = 120  # pixels shown


def main(folder: str, out: str) -> None:
    """A part of a test frame, and the score map of each way on one colour scale."""
    ways = ("hard", "hard_focal", "soft")
    trained = {way: load_trained(RunFolder.existing(Path(folder) / way)) for way in ways}
    frames = point_splits(trained["soft"].settings.data, only="test").test
    scene = max((frames[i] for i in range(12)), key=lambda s: len(s.points.xy))
    height, width = scene.size
    x, y = scene.points.xy[scene.points.snr.argsort()[len(scene.points) // 2]].tolist()
    left, top = (min(max(0, int(v) - SIDE // 2), n - SIDE) for v, n in ((x, width), (y, height)))
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
    view = (scene.image[0] - scene.level) / scene.spread
    axes[0].imshow(view, cmap="gray", vmin=-2, vmax=5, extent=(0, width, height, 0))
    axes[0].set_title(f"frame (SNR {scene.points.snr.min():.1f} to {scene.points.snr.max():.1f})")
    for axis, (way, t) in zip(axes[1:], trained.items(), strict=True):
        with torch.inference_mode():
            output = t.detector([scene])
        scores = output.logits[0, 0].sigmoid()
        s = output.stride
        picture = axis.imshow(
            scores,
            cmap="magma",
            vmin=0,
            vmax=1,
            extent=(0, scores.shape[1] * s, scores.shape[0] * s, 0),
            interpolation="nearest",
        )
        axis.set_title(f"{way}: largest score {scores.max():.2f}")
    for axis in axes:
        axis.plot(*scene.points.xy.T.tolist(), "o", mfc="none", mec="#40e090", ms=14, mew=1.2)
        axis.set(xlim=(left, left + SIDE), ylim=(top + SIDE, top), xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes, label="score", shrink=0.85)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the folder of the quickstart")
    parser.add_argument("out", help="the picture")
    args = parser.parse_args()
    main(args.run, args.out)
