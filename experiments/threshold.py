"""AP50 of runs of `text` with another score threshold: `python experiments/threshold.py 0.001 RUN RUN ...`.

Nothing is trained again. It tells how much of a low score is the threshold alone: the reference rule drops what scores
under 0.3, and COCO's AP does not forgive what is dropped.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from boresight.evaluate.detection import coco_figures
from boresight.run.boxes import query_texts
from boresight.run.detect import detect
from boresight.run.predict import load_trained
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder


def judged(root: Path, threshold: float) -> float:
    """AP50 on the test images, asked for every class that the run knows."""
    trained = load_trained(RunFolder.existing(root), expect="text")
    detector = trained.detector
    splits = recipe("text").frames(trained.settings, "test")
    classes = splits.classes + splits.novel
    detector.ask(query_texts(classes, trained.settings.data.queries))
    detector.decoder = replace(detector.decoder, threshold=threshold)
    scenes = [splits.test[i] for i in range(len(splits.test))]
    return coco_figures(scenes, detect(detector, splits.test), classes).ap50 or 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("threshold", type=float)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    values = []
    for run in args.runs:
        values.append(judged(run, args.threshold))
        print(f"{run}: AP50 {values[-1]:.3f} at a threshold of {args.threshold:g}", flush=True)
    print(f"mean {statistics.mean(values):.3f}")
