"""The run folder: a public format that can be read without Boresight.

Everything is written to a temporary file in the same folder, flushed to the disk and renamed, so that a reader (or a
resumed run) sees the old file or the new one and never a piece of either.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError
from boresight.core.files import read_json_object

SCHEMA_VERSION = 1


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    Raises:
        UserError: the disk is full or cannot be written; what stood at ``path`` stands there still.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            partial.unlink()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomic(path, write)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with ``schema_version``, atomically; NaN is refused (JSON has none)."""
    write_text(path, json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=1, allow_nan=False) + "\n")


def add_to_json(path: Path, value: Mapping[str, Any]) -> None:
    """Put further keys into a JSON object that is there already, atomically."""
    write_json(path, {**read_json(path), **value})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run folder. Raises UserError that names the file where there is none, or it is damaged."""
    return read_json_object(path, "what a run writes there, or make it anew")


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write YAML atomically, keys in their order."""
    import yaml

    write_text(path, yaml.safe_dump(dict(value), sort_keys=False))


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> None:
    """Write a table atomically. Columns are the union of the rows' keys, missing values are null.

    ``columns`` gives the Arrow type of each column (``{"score": "float64"}``); without it types are inferred.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(columns) if columns else list(dict.fromkeys(k for row in rows for k in row))
    kinds = {n: pa.type_for_alias(t) for n, t in columns.items()} if columns else {}
    arrays = {n: pa.array([row.get(n) for row in rows], type=kinds.get(n)) for n in names}
    write_atomic(path, lambda p: pq.write_table(pa.table(arrays), p))


MOST_VALUES = 100_000_000
"""Rows x columns of a table that is read whole: some 10 GB of Python's numbers."""


def read_parquet(path: Path, check: Callable[[Any], None] | None = None) -> list[dict[str, Any]]:
    """The rows of a table; an empty list when there is none yet.

    ``check`` looks at the Arrow table first, and raises ValueError for one that cannot be used.

    Raises:
        UserError: the file is damaged, no Parquet, fails the check, or holds more than :data:`MOST_VALUES` values.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    try:
        with pq.ParquetFile(path) as file:
            rows, columns = file.metadata.num_rows, file.metadata.num_columns
            if rows * max(1, columns) > MOST_VALUES:
                raise UserError(f"{path}: {rows} rows of {columns} columns are too many to be read at once")
            table = file.read()
            if check is not None:
                check(table)
            return table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise UserError(
            f"{path}: cannot be read as a table in Parquet ({error}); restore it or make it anew"
        ) from error


def environment() -> dict[str, Any]:
    """What a run ran on: versions, platform, processors, devices."""
    import torch

    names = ("boresight", "torch", "torchvision", "accelerate", "timm", "numpy", "pyarrow", "safetensors")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {n: _version(n) for n in names},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class RunFolder:
    """Paths of a run folder, and what must hold of them.

    Attributes:
        root: ``runs/<name>``.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.config = self.root / "config.yaml"
        self.environment = self.root / "environment.json"
        self.metrics = self.root / "metrics.parquet"
        self.targets = self.root / "targets.parquet"
        self.checkpoints = self.root / "checkpoints"
        self.predictions = self.root / "predictions.json"
        self.matches = self.root / "matches.parquet"
        self.evaluation = self.root / "evaluation.json"
        self.diagnosis = self.root / "diagnosis.json"
        self.emissions = self.root / "emissions.parquet"
        self.objects = self.root / "objects.parquet"
        self.report = self.root / "report.html"
        self.done = self.root / "done.json"
        self.health = self.root / "health.json"

    @classmethod
    def existing(cls, root: str | Path) -> RunFolder:
        """The run at ``root``; UserError when there is none."""
        run = cls(root)
        if not run.config.is_file():
            near = sorted(p.parent.name for p in Path(root).parent.glob("*/config.yaml"))
            hint = f"; runs there: {', '.join(near[:8])}" if near else "; `boresight train` makes one"
            raise UserError(f"{root}: no run here (config.yaml is missing){hint}")
        return run

    @classmethod
    def fresh(cls, base: str | Path, name: str) -> RunFolder:
        """A new folder ``base/name``, or ``name-2``, ``name-3``, ... when that is taken by another run."""
        base = Path(base)
        for i in range(1, 100_000):
            root = base / (name if i == 1 else f"{name}-{i}")
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"{root}: cannot be made ({error.strerror}); choose another folder") from error
            return cls(root)
        raise UserError(f"{base}: no free name for run `{name}`; give another with --name")

    def discard(self) -> None:
        """Remove a folder in which nothing was trained, and the folder around it when it was made for it."""
        shutil.rmtree(self.root, ignore_errors=True)
        with suppress(OSError):  # other runs are there
            self.root.parent.rmdir()

    def states(self) -> list[Path]:
        """Folders of whole training states, oldest first."""
        found = (p for p in self.checkpoints.glob("state-*") if p.suffix != ".partial" and p.name[6:].isdigit())
        return sorted(found, key=lambda p: int(p.name[6:]))

    def save_state(self, step: int, save: Callable[[Path], None], *, keep: int = 1, main: bool = True) -> None:
        """Let ``save`` fill a folder, then name it ``state-<step>`` in one step; older states go afterwards.

        With several processes all call this (``save`` is collective); the ``main`` one renames.
        """
        from safetensors import SafetensorError

        final = self.checkpoints / f"state-{step}"
        partial = self.checkpoints / f"state-{step}.partial"
        try:
            if main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            save(partial)
            if main:
                for file in partial.rglob("*"):
                    sync(file)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(partial, final)
                sync(self.checkpoints)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{final}: the training state cannot be saved ({reason}); the last whole state is kept: "
                "free space and continue with --resume"
            ) from error
        if main:
            for old in self.states()[:-keep]:
                shutil.rmtree(old, ignore_errors=True)


def coco_results(rows: Iterable[Mapping[str, Any]], side: float = 3.0) -> list[dict[str, Any]]:
    """Point detections as COCO results: a box of ``side`` pixels around each; further ``point`` and ``file_name``."""
    return [
        {
            "image_id": row["image_id"],
            "file_name": row["image"],
            "category_id": row["category_id"],
            "bbox": [row["x"] - side / 2, row["y"] - side / 2, side, side],
            "score": row["score"],
            "point": [row["x"], row["y"]],
        }
        for row in rows
    ]
