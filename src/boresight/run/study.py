"""A study: variants x seeds (x data sets) of one base setting, read from YAML.

```yaml
name: labels
seeds: 3
reference: fixed4              # every other variant is compared with this one
base: {train: {steps: 600}}    # settings of every run
datasets:                      # optional: settings of each data set
  sirst: {data: {source: sirst, root: $BORESIGHT_DATA/sirst-v1}}
variants:                      # settings of each variant
  fixed4: {target: {window: 4}}
  hard: {target: {label: hard}}
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.run.parse import merged, read_yaml, settings_from
from boresight.run.systems import settings_kind

_KEYS = ("name", "about", "detector", "seeds", "reference", "base", "datasets", "variants")
MOST_SEEDS = 10_000
"""More are a slip of the pen: every seed is a training of each variant."""


@dataclass(frozen=True)
class Study:
    """What is trained and what is compared.

    Attributes:
        name: of the study and its folder.
        about: the question, for the report.
        detector: the recipe.
        seeds: values of ``train.seed``; run ``k`` of every variant has the same one.
        reference: the variant that the others are compared with.
        settings: resolved settings by (data set, variant), before the seed is put in.
        command: the command line that runs it, for the report.
    """

    name: str
    about: str
    detector: str
    seeds: tuple[int, ...]
    reference: str
    settings: dict[tuple[str, str], Any]
    command: str = ""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, in order."""
        return tuple(dict.fromkeys(d for d, _ in self.settings))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants, in order."""
        return tuple(dict.fromkeys(v for _, v in self.settings))


def read_study(path: Path, *, seeds: int | None = None, only: Sequence[str] | None = None) -> Study:
    """Read and check a study, every variant of it.

    Args:
        path: the YAML file.
        seeds: how many, instead of the file's.
        only: of the data sets, these.

    Raises:
        UserError: names the file, the key and the remedy.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or not content.get("variants"):
        raise UserError(f"{path}: a study needs `variants`, a mapping of names to settings")
    for key in content:
        if key not in _KEYS:
            raise UserError(
                f"{path}: unknown key `{key}`{did_you_mean(str(key), _KEYS) or '; known: ' + ', '.join(_KEYS)}"
            )
    variants, datasets = content["variants"], content.get("datasets") or {"data": {}}
    for group, values in (("variants", variants), ("datasets", datasets)):
        if not isinstance(values, Mapping) or not all(isinstance(v or {}, Mapping) for v in values.values()):
            raise UserError(f"{path}: `{group}` is a mapping of names to settings")
        for name in values:
            _check_name(path, group, name)
    if not isinstance(content.get("base") or {}, Mapping):
        raise UserError(f"{path}: `base` is a mapping of settings, got {content['base']!r}")
    reference = content.get("reference", next(iter(variants)))
    if not isinstance(reference, str) or reference not in variants:
        raise UserError(f"{path}: `reference` = {reference}: no such variant{did_you_mean(str(reference), variants)}")
    for name in only or ():
        if name not in datasets:
            raise UserError(f"--only {name}: {path} has no such data set{did_you_mean(name, datasets)}")
    count = content.get("seeds", 3) if seeds is None else seeds
    if type(count) is not int or not 1 <= count <= MOST_SEEDS:
        raise UserError(f"{path}: `seeds` = {count}: must be a whole number from 1 to {MOST_SEEDS}")
    settings: dict[tuple[str, str], Any] = {}
    kind = settings_kind(content.get("detector", "point"), str(path))
    for dataset in only or datasets:
        for variant, own in variants.items():
            values = {"detector": content.get("detector", "point")} | merged(
                content.get("base") or {}, datasets[dataset] or {}
            )
            values = merged(values, own or {})
            settings[dataset, variant] = settings_from(kind, values, origin=f"{path} ({dataset}, {variant})")
    _check_name(path, "name", content.get("name", path.stem))
    return Study(
        name=str(content.get("name", path.stem)),
        about=str(content.get("about", "")),
        detector=str(content.get("detector", "point")),
        seeds=tuple(range(count)),
        reference=str(reference),
        settings=settings,
        command=f"boresight compare {path}"
        + (f" --only {' '.join(only)}" if only else "")
        + (f" --seeds {seeds}" if seeds is not None else ""),
    )


def _check_name(path: Path, key: str, name: object) -> None:
    """UserError for a name that cannot be that of a folder (YAML reads `off` as False)."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise UserError(f"{path}: `{key}` has the name {name!r}: give a word that can name a folder, in quotes")
