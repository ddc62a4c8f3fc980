"""What lies in a run folder, and the frames that the run was judged on.

What a run does not have is noted in a sentence; a damaged file is the user's to mend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from boresight.core.errors import UserError
from boresight.run.boxes import box_splits
from boresight.run.config import DataSettings, PointSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import BoxDataSettings, LocaliseSettings, TextSettings
from boresight.run.frames import point_splits
from boresight.run.parse import merged, nested, read_yaml, settings_from
from boresight.run.recipe import Frames, Splits
from boresight.run.record import RunFolder, read_parquet
from boresight.run.systems import settings_kind

Settings = PointSettings | TextSettings | LocaliseSettings | RefineSettings
AnyData = DataSettings | BoxDataSettings


@dataclass(frozen=True)
class RunData:
    """What lies in a run folder, None or empty where a part is missing.

    Attributes:
        name: of the run, as shown.
        colour: index into the palette.
        config: nested settings as written.
        settings: the same, read; None where this version cannot read them (``notes`` says why).
        environment, evaluation, done: the JSON files.
        metrics, targets, matches: the tables.
        notes: sentences on what is missing.
        diagnosis, emissions, objects: what `boresight diagnose` wrote.
        data: settings of the frames it was judged on, else of those it was trained with; None where they cannot be
            read.
        root: the run folder.
    """

    name: str
    colour: int
    config: dict[str, Any]
    settings: Settings | None
    environment: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    done: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    matches: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    data: AnyData | None = None
    diagnosis: dict[str, Any] | None = None
    emissions: list[dict[str, Any]] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    root: Path = Path()

    @cached_property
    def predictions(self) -> list[dict[str, Any]] | None:
        """COCO results of the judged split, None where there are none. UserError for a damaged file."""
        return _json(RunFolder(self.root).predictions)

    @property
    def detector(self) -> str:
        """The system as the configuration names it; one that names none is of points."""
        return str(self.config.get("detector", "point"))

    @property
    def split(self) -> str:
        """The split that it was judged on, ``val`` where it is not judged."""
        return str((self.evaluation or {}).get("split", "val"))

    @property
    def config_text(self) -> str:
        """The settings as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False)

    @property
    def environment_text(self) -> str:
        """The environment as YAML, which reads better than JSON."""
        return yaml.safe_dump(self.environment, sort_keys=False)


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names; with the folder above where two are alike."""
    names = [run.root.resolve().name for run in runs]
    return [
        n if names.count(n) == 1 else f"{r.root.resolve().parent.name}/{n}" for n, r in zip(names, runs, strict=True)
    ]


def read_run(run: RunFolder, name: str, index: int) -> RunData:
    """Read what a run folder holds and note what it lacks."""
    notes: list[str] = []
    config = (read_yaml(run.config) or {}) if run.config.is_file() else {}
    if not isinstance(config, Mapping):
        raise UserError(f"{run.config}: a settings file is a mapping of keys, got {type(config).__name__}")
    settings = None
    try:
        kind = settings_kind(config.get("detector", "point"), run.config.name)
        settings = settings_from(kind, config, origin=run.config.name) if config else None
    except UserError as error:
        notes.append(f"These settings cannot be read by this version: {error}.")
    if not config:
        notes.append("The run has no config.yaml, so its settings are not known.")
    evaluation, done = _json(run.evaluation), _json(run.done)
    metrics = _table(run.metrics)
    if done is None:
        at = f"{metrics[-1]['step']} steps are written" if metrics else "no step is written yet"
        notes.append(f"Training has not finished ({at}).")
    if not metrics:
        notes.append("No metrics are written, so there are no curves of its training.")
    if evaluation is None:
        notes.append("The run is not evaluated yet: boresight evaluate fills in what is missing below.")
    data = _judged_data(settings, evaluation, notes) if settings else None
    return RunData(
        name,
        index,
        dict(config),
        settings,
        _json(run.environment),
        evaluation,
        done,
        metrics,
        _table(run.targets),
        _table(run.matches),
        notes,
        data,
        _json(run.diagnosis),
        _table(run.emissions),
        _table(run.objects),
        run.root,
    )


def _judged_data(settings: Settings, evaluation: Mapping[str, Any] | None, notes: list[str]) -> AnyData | None:
    """The data settings with the changes that the evaluation records under ``data``; notes what they are."""
    changes = (evaluation or {}).get("data")
    if not changes:
        return settings.data
    try:
        changed = settings_from(type(settings), merged(nested(settings), {"data": changes}), origin="evaluation.json")
    except UserError as error:
        notes.append(f"The data settings that the run was judged with cannot be read: {error}.")
        return None
    words = ", ".join(f"data.{key} = {value}" for key, value in changes.items())
    notes.append(f"The run was judged with data settings that are not those of its training: {words}.")
    return changed.data


def _json(path: Path) -> Any:
    """The content of a JSON file, None where there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it and evaluate or train the run again") from error
    return content


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        return read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path}: cannot be read ({error}); remove it and evaluate or train the run again") from error


class FrameStore:
    """Opens the frames of runs, each data set and split once."""

    def __init__(self) -> None:
        self._known: dict[tuple[AnyData, str], Splits | str] = {}

    def splits(self, run: RunData) -> Splits | str:
        """The data set that the run was judged on, with its classes, or a sentence why it cannot be opened."""
        if run.settings is None or run.data is None:
            return "The settings are not known, so the frames cannot be opened."
        data = _same_frames(run.data)
        if (data, run.split) not in self._known:
            self._known[data, run.split] = self._opened(data, run.split)
        return self._known[data, run.split]

    def of_diagnosis(self, run: RunData) -> tuple[Frames, tuple[str, ...]] | str:
        """The frames that the run was diagnosed on, with the names of all labels, or a sentence why there are none."""
        split = str((run.diagnosis or {}).get("split", "val"))
        if run.settings is None:
            return "The settings are not known, so the frames cannot be opened."
        found = self._opened(_same_frames(run.settings.data), split)
        if isinstance(found, str):
            return found
        return getattr(found, split), found.classes + found.novel

    def frames(self, run: RunData) -> Frames | str:
        """The frames that the run was judged on (else its validation frames), or a sentence why there are none."""
        found = self.splits(run)
        if isinstance(found, str):
            return found
        frames: Frames = getattr(found, run.split)
        return frames if len(frames) else "The split has no frames."

    def _opened(self, data: AnyData, split: str) -> Splits | str:
        try:
            return box_splits(data, split) if isinstance(data, BoxDataSettings) else point_splits(data, only=split)
        except UserError as error:
            return f"The frames cannot be opened here: {error}."


def same_images(run: RunData) -> bool:
    """The run was diagnosed on the images that it was judged on."""
    if run.settings is None or run.data is None or run.diagnosis is None:
        return False
    told = (run.diagnosis.get("split", "val"), _same_frames(run.settings.data))
    return told == (run.split, _same_frames(run.data))


def _same_frames(data: AnyData) -> AnyData:
    """The settings without what changes no frame, so that runs that differ in it share theirs."""
    if isinstance(data, BoxDataSettings):
        return replace(data, queries=(), cache_mb=BoxDataSettings.cache_mb)
    return replace(data, oversample=1)  # the order of training is not needed and costs reading all
