"""Three detectors that are good enough for their size, faults planted into what they emit, and twenty clean runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.detectors.own_points import PointSource, with_points_as_boxes
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.diagnose.likeness import BoxIou, Closeness
from boresight.diagnose.plant import FAULTS, plant
from boresight.report.quickstart import quickstart_settings
from boresight.report.quickstart_text import quickstart_text_settings
from boresight.run.diagnose import source_of
from boresight.run.parse import nested, settings_from
from boresight.run.predict import load_trained
from boresight.run.recipes import recipe
from boresight.run.record import RunFolder
from boresight.run.systems import SETTINGS
from boresight.run.train import train

OUTPUT_FAULTS: dict[str, tuple[str, ...]] = {
    "text": tuple(FAULTS),
    "localise": ("box", "shift", "scale", "starved"),
    "point": ("score", "background"),
}
"""Which faults make sense where. A localiser has no score, no class and no threshold: it is told where objects lie,
and its most central cells, which are trained ones, speak. Points have no size and, here, one class: they cannot lie off
by a part of their size; all are small; and their peaks are found without a threshold."""

JUDGED = 60
"""Validation images of the three detectors."""


def settings_of_good(system: str, seed: int = 0) -> Any:
    """Settings of the detector into whose output faults are planted: those of the quick starts, 300 steps or so."""
    if system == "point":
        values = nested(quickstart_settings("soft", seed))
    else:
        values = nested(quickstart_text_settings("boresight", seed))
    values["data"]["val_frames"] = JUDGED
    values["train"] |= {"validate_every": 0, "checkpoint_every": values["train"]["steps"]}
    if system == "localise":
        values["detector"] = "localise"
        values["data"] |= {"classes": "kinds", "val_frames": JUDGED // 2}
        values.pop("assign")
        values["head"].pop("box")
    return settings_from(SETTINGS[system], values, origin="experiments/faults.py")


def train_good(system: str, folder: Path) -> RunFolder:
    """Train it, or take it as it lies there."""
    train(recipe(system), settings_of_good(system), folder, quiet=True)
    return RunFolder(folder)


def output_verdict(run: RunFolder, fault: str | None, *, replicates: int = 200) -> tuple[str, str]:
    """Word and sentence for a run of which every output carries a fault (None: none)."""
    trained = load_trained(run)
    splits = recipe(trained.checkpoint.detector).frames(trained.settings, "val")
    source: Any = source_of(trained, splits, "val")
    points = isinstance(source, PointSource)
    likeness = Closeness(trained.settings.decode.tolerance) if points else BoxIou()
    frames = splits.val
    scenes = [with_points_as_boxes(frames[i]) if points else frames[i] for i in range(len(frames))]
    planted = source if fault is None else plant(source, fault)  # type: ignore[arg-type]
    audited = audit(planted, scenes, likeness=likeness)
    verdict = diagnose(audited, threshold=trained.checkpoint.threshold, replicates=replicates).verdict
    return verdict.word, verdict.sentence


@dataclass(frozen=True)
class Clean:
    """A run without a fault: its name, its system and its settings by group."""

    name: str
    system: str
    values: dict[str, Any]

    def train(self, folder: Path) -> RunFolder:
        """Train it in an empty folder."""
        settings = settings_from(SETTINGS[self.system], self.values, origin="experiments/faults.py")
        train(recipe(self.system), settings, folder, quiet=True)
        return RunFolder(folder)


def _loop(steps: int, seed: int, batch: int = 4) -> dict[str, Any]:
    half = steps // 2
    return {
        "steps": steps,
        "batch": batch,
        "validate_every": half,
        "checkpoint_every": half,
        "seed": seed,
        "threads": 1,
    }


def _points(name: str, seed: int, **more: Any) -> Clean:
    data = {"preset": "easy", "height": 96, "width": 128, "frames": 48, "val_frames": 40, "seed": seed}
    small = {"encoder": {"widths": [8, 12, 16, 16], "channels": 12}, "augment": {"crop": 64}}
    return Clean(f"point {name}, seed {seed}", "point", {"data": data, "train": _loop(150, seed)} | small | more)


def _boxes(system: str, name: str, seed: int, **more: Any) -> Clean:
    data = {"kinds": ["vehicle", "storage tank"], "colours": ["yellow", "black"], "seed": seed}
    data |= {"height": 96, "width": 96, "frames": 48, "val_frames": 32}
    values: dict[str, Any] = {"recipe": name, "data": data, "train": _loop(160, seed)}
    if system == "refine":
        values |= {"coarse": {"per_image": 6}, "head": {"grid": 4, "width": 16, "depth": 1}}
        if name == "baseline":
            values["head"] = {}
    else:
        values |= {"clip": {"window": 64}, "encoder": {"widths": [8, 12, 24, 32], "channels": 32}}
        values["head"] = {"width": 24, "embed": 24, "depth": 1}
    return Clean(f"{system} {name}, seed {seed}", system, values | more)


CLEAN: tuple[Clean, ...] = (
    *(_points("soft labels", seed) for seed in (0, 1, 2)),
    *(_points("hard labels, focal", seed, target={"label": "hard"}, loss={"name": "focal"}) for seed in (0, 1)),
    _points("sigma falls", 0, target={"schedule": "linear", "constant_mass": True}),
    _points("attention", 1, head={"attention": "both"}),
    *(_boxes("text", "boresight", seed) for seed in (0, 1, 2, 3)),
    *(_boxes("text", "baseline", seed) for seed in (0, 1)),
    *(_boxes("localise", "boresight", seed) for seed in (0, 1, 2)),
    *(_boxes("refine", "boresight", seed) for seed in (0, 1)),
    *(_boxes("refine", "baseline", seed) for seed in (0, 1)),
)
"""Every system and both recipes, several seeds of training and data."""
