"""The model card of a trained detector: what it is, what it was measured to do, how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boresight.run.checkpoint import Checkpoint

WHAT = {
    "point": "finds dim point targets of two or three pixels",
    "text": "finds boxes for text queries on the class maps of a frozen CLIP",
    "localise": "boxes objects whose class is given, on the class maps of a frozen CLIP",
    "refine": "moves coarse boxes onto their objects",
}


def card(checkpoint: Checkpoint, evaluation: Mapping[str, Any]) -> str:
    """Markdown with the header that the hub reads. Figures are those of the run, never rounded up."""
    classes = ", ".join(f"`{name}`" for name in checkpoint.classes)
    frozen = [
        f"- frozen encoder `{name}`: hash `{value}` (not in this folder)" for name, value in checkpoint.frozen.items()
    ]
    lines = [
        "---",
        "library_name: boresight",
        "pipeline_tag: object-detection",
        "tags: [boresight, object-detection]",
        "---",
        "",
        f"# A `{checkpoint.detector}` detector of Boresight",
        "",
        f"It {WHAT[checkpoint.detector]}. Classes: {classes}.",
        "",
        f"- operating point, chosen on the validation images: {checkpoint.threshold:.4f}",
        f"- optimiser steps: {checkpoint.step}",
        *frozen,
        "",
        *_table("On the validation images of its run", checkpoint.figures),
        *_table("Last evaluation", evaluation),
        "## Use",
        "",
        "```python",
        "from boresight.run.hub import Pretrained",
        "",
        'model = Pretrained.from_pretrained("this folder, or its name on the hub")',
        "found = model(scenes)  # scenes: boresight.core.types.Scene",
        "```",
        "",
    ]
    return "\n".join(lines)


def _table(title: str, figures: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | {_shown(value)} |" for name, value in figures.items()]
    return [f"## {title}", "", "| figure | value |", "|---|---:|", *rows, ""] if rows else []


def _shown(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
