"""Which settings belong to which system, known before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.run.config import PointSettings
from boresight.run.config_refine import RefineSettings
from boresight.run.config_text import LocaliseSettings, TextSettings
from boresight.run.parse import read_yaml, settings_from

SETTINGS: dict[str, type] = {
    "point": PointSettings,
    "text": TextSettings,
    "localise": LocaliseSettings,
    "refine": RefineSettings,
}


def settings_kind(name: object, origin: str) -> type:
    """The settings dataclass of a system; UserError with its neighbour when there is none of that name."""
    if not isinstance(name, str) or name not in SETTINGS:
        near = did_you_mean(str(name), SETTINGS) or f"; known: {', '.join(SETTINGS)}"
        raise UserError(f"{origin}: `detector` = {name}: not known{near}")
    return SETTINGS[name]


def read_settings(path: Path) -> Any:
    """The settings in a run's ``config.yaml``, whatever its system."""
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: a settings file is a mapping of keys, got {type(values).__name__}")
    return settings_from(settings_kind(values.get("detector", "point"), str(path)), values, origin=str(path))
