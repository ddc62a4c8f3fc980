"""Files of runs: settings, studies, tables, summaries and training states."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.mutate import INTERESTING, mutated_tree

SYSTEMS = ("point", "text", "localise", "refine")


def configs() -> dict[str, bytes]:
    """The defaults of every system, as a run keeps them."""
    import yaml

    from boresight.run.parse import nested
    from boresight.run.systems import SETTINGS

    return {f"{name}.yaml": yaml.safe_dump(nested(SETTINGS[name]()), sort_keys=False).encode() for name in SYSTEMS}


def read_configs(folder: Path) -> None:
    """As the settings of a run; only what was damaged is worth its time."""
    from boresight.run.systems import read_settings

    default = configs_once()
    for name, content in default.items():
        if (folder / name).read_bytes() != content:
            read_settings(folder / name)


@cache
def configs_once() -> dict[str, bytes]:
    """:func:`configs`, made once."""
    return configs()


STUDY = """name: labels
about: does it matter?
seeds: 2
reference: fixed
base: {train: {steps: 6}}
datasets: {sky: {data: {preset: easy}}}
variants:
  fixed: {target: {window: 4}}
  hard: {target: {label: hard}}
"""


def study() -> dict[str, bytes]:
    """Two variants."""
    return {"study.yaml": STUDY.encode()}


def read_study_file(folder: Path) -> None:
    """As `boresight compare` reads it."""
    from boresight.run.study import read_study

    read_study(folder / "study.yaml")


def _tables() -> dict[str, list[dict[str, Any]]]:
    metrics = [
        {"step": s, "epoch": s // 2, "progress": s / 4, "learning_rate": 0.1, "loss_focal": 1.0 / s, "positives": 3}
        | {"gradient_norm": 0.5, "objects": 3, "time_data": 0.1, "time_forward": 0.1, "time_backward": 0.1}
        | ({"val_f1": 0.5, "val_threshold": 0.4} if s == 4 else {"val_f1": None, "val_threshold": None})
        for s in range(1, 5)
    ]
    row = {"class": "target", "positives": 9, "objects": 6, "objects_with_none": 1}
    return {"metrics.parquet": metrics, "targets.parquet": [{"epoch": e} | row for e in range(2)]}


TABLES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "metrics.parquet": lambda: _tables()["metrics.parquet"],
    "targets.parquet": lambda: _tables()["targets.parquet"],
    "annotations.parquet": lambda: box_rows()[0],
    "predictions.parquet": lambda: box_rows()[1],
}
"""The rows of every table that is damaged as rows."""


def box_rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Truth and detections of three images."""
    box = {"x": 1.0, "y": 1.0, "width": 4.0, "height": 3.0}
    none = dict.fromkeys(box)
    truth = [
        {"image_id": 1, "category_id": 7, **box, "iscrowd": 0},
        {"image_id": 1, "category_id": 3, **box, "iscrowd": 1},
        {"image_id": 2, "category_id": None, **none, "iscrowd": None},
        {"image_id": 5, "category_id": 3, **box, "iscrowd": 0},
    ]
    found = [
        {"image_id": i, "category_id": c, **box, "score": s} for i, c, s in ((1, 7, 0.9), (1, 3, 0.5), (5, 7, 0.2))
    ]
    return truth, found


def written(rows: list[dict[str, Any]]) -> bytes:
    """Rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def mutated_table(rng: Random, good: list[dict[str, Any]]) -> bytes:
    """A whole Parquet file of damaged rows: other types, missing columns, numbers beyond sense."""
    import pyarrow as pa

    for _ in range(20):
        rows = mutated_tree(rng, good)
        rows = rows if isinstance(rows, list) and all(isinstance(r, dict) for r in rows) else []
        column = rng.choice((*good[0], "val_f1", "score"))
        if rng.randrange(3) == 0:
            value = rng.choice(("x", b"x", None, True, 1.5, -1, float("nan"), [1], {"a": 1}, INTERESTING[-2]))
            rows = [row | {column: value} for row in rows]
        try:
            return written(rows)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
            continue  # nothing that Parquet can hold
    return written([])


def run_folder() -> dict[str, bytes]:
    """What a finished run leaves, but for weights."""
    done = {
        "schema_version": 1,
        "steps": 4,
        "frozen": {"before": {"clip": "a"}, "after": {"clip": "a"}},
        "features": {"evicted": 0},
    }
    curve = {"threshold": [0.1, 0.5], "f1": [0.4, 0.6]}
    evaluation = {"f1": 0.5, "threshold": 0.4, "truths": 6, "curve": curve}
    finding = {"id": "dead", "severity": "error", "title": "t", "cause": "c", "remedy": "r", "evidence": {"a": 1}}
    health = {"step": 4, "findings": [finding], "silent": ["a"], "unjudged": [{"rule": "b", "reason": "c"}]}
    texts = {"evaluation.json": evaluation, "health.json": health, "done.json": done}
    return {
        "config.yaml": configs_once()["point.yaml"],
        **{name: written(rows) for name, rows in _tables().items()},
        **{name: json.dumps(value).encode() for name, value in texts.items()},
    }


def read_run_folder(folder: Path) -> None:
    """As the rules of health do, finished and unfinished."""
    from boresight.run.health import run_health
    from boresight.run.health_file import read_health
    from boresight.run.record import RunFolder

    run = RunFolder(folder)
    if run.config.read_bytes() == configs_once()["point.yaml"]:
        run.config = folder / "none.yaml"  # reading settings takes ten times the time of all the rest
    run_health(run)
    read_health(run)


def _small() -> tuple[Any, Any, Any]:
    import torch

    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(model.parameters(), foreach=False)
    return model, optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)


class Small:
    """What accelerate keeps of a training, for one layer."""

    def __init__(self) -> None:
        self.model, self.optimiser, self.rate = _small()

    def save_state(self, folder: str) -> None:
        """As ``Accelerator.save_state`` does."""
        from accelerate.checkpointing import save_accelerator_state

        states = [self.model.state_dict()], [self.optimiser], [self.rate], []
        save_accelerator_state(folder, *states, 0, 0)

    def load_state(self, folder: str) -> None:
        """As ``Accelerator.load_state`` does."""
        from accelerate.checkpointing import load_accelerator_state

        load_accelerator_state(folder, [self.model], [self.optimiser], [self.rate], [], 0)


def state() -> dict[str, bytes]:
    """The training state of one layer after one step."""
    import tempfile

    import torch

    from boresight.run.logbook import LoopState
    from boresight.run.state import save_parts

    small = Small()
    small.model(torch.ones(1, 2)).sum().backward()
    small.optimiser.step()
    with tempfile.TemporaryDirectory() as place:
        small.save_state(place)
        save_parts(Path(place), [LoopState(2)])
        return {p.name: p.read_bytes() for p in sorted(Path(place).iterdir())}


def read_state(folder: Path) -> None:
    """As `--resume` does."""
    from boresight.run.logbook import LoopState
    from boresight.run.state import load_state

    load_state(Small(), folder, [LoopState(2)])  # type: ignore[arg-type]
