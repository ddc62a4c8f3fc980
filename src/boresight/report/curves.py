"""Which curves a page of runs shows: training, F1 against the threshold, FROC, Pd by SNR; runs over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
from markupsafe import Markup

from boresight.data.sky_settings import preset
from boresight.evaluate.observer import ideal_observer
from boresight.report.figures import Line
from boresight.report.panels import curve_panel, froc_panel, snr_panel, threshold_panel
from boresight.report.reading import AnyData, RunData
from boresight.run.config import DataSettings

_TERMS = {
    "loss_cls": "classification",
    "loss_offset": "place",
    "loss_auxiliary": "auxiliary levels",
    "loss_l1": "edges (L1)",
    "loss_giou": "1 − GIoU",
    "loss_iou": "1 − GIoU",
    "loss_edges": "places of the edges",
    "loss_quality": "predicted IoU",
    "loss_decision": "which box is better",
}
FEW_CLASSES = 4
"""More classes than this share one line of positives per object."""
_BOUND_SNR = tuple(np.arange(3.0, 12.5, 0.5).tolist())


@dataclass(frozen=True)
class Panel:
    """A drawing under its heading."""

    title: str
    drawing: Markup
    note: str = ""


def training_panels(runs: Sequence[RunData]) -> list[Panel]:
    """Losses, validation, gradient norm, learning rate and positives per object, runs over each other."""
    terms = list(dict.fromkeys(k for run in runs for r in run.metrics[-1:] for k in r if k.startswith("loss_")))
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("val_f1", "Validation F1 at its own threshold", {"top": 1.02}),
        ("val_f1_at_half", "Validation F1 at 0.5", {"top": 1.02}),
        ("val_ap50", "Validation AP50", {"top": 1.02}),
        ("val_ap", "Validation AP (IoU .50:.95)", {"top": 1.02}),
        ("val_calibration_error", "Validation: how far scores are from what they stand for", {}),
        ("val_mean_iou", "Validation: mean IoU reached", {"top": 1.02}),
        *((k, f"Loss: {_TERMS.get(k, k[5:])}", {"log": True, "share": 0.08}) for k in terms),
        ("gradient_norm", "Gradient norm, before clipping", {"log": True, "share": 0.08}),
        ("learning_rate", "Learning rate", {}),
    ]
    panels = []
    for key, title, style in wanted:
        if lines := _lines(runs, "metrics", "step", key):
            panels.append(Panel(title, curve_panel(lines, title=title, **style)))
    if lines := _per_object(runs):
        title = "Positive cells per object"
        panels.append(Panel(title, curve_panel(lines, title=title, x_label="epoch")))
    return panels


def _lines(runs: Sequence[RunData], table: str, x: str, y: str) -> list[Line]:
    lines = []
    for run in runs:
        rows = [r for r in getattr(run, table) if r.get(y) is not None]
        if rows:
            lines.append(Line(run.name, [r[x] for r in rows], [r[y] for r in rows], run.colour))
    return lines


def _per_object(runs: Sequence[RunData]) -> list[Line]:
    """One line a run, or one a class where there are a few."""
    lines = []
    for run in runs:
        classes = list(dict.fromkeys(r["class"] for r in run.targets))
        if len(classes) > FEW_CLASSES:
            epochs, means = _pooled(run.targets)
            lines.append(Line(run.name, epochs, means, run.colour))
            continue
        for label in classes:
            rows = [r for r in run.targets if r["class"] == label and r["positives_per_object"] is not None]
            name = run.name if len(classes) == 1 else f"{run.name} {label}"
            if rows:
                lines.append(
                    Line(name, [r["epoch"] for r in rows], [r["positives_per_object"] for r in rows], run.colour)
                )
    return lines


def _pooled(rows: Sequence[dict[str, Any]]) -> tuple[list[int], list[float]]:
    """Positives per object over all classes, epochs without objects left out."""
    epochs = sorted({r["epoch"] for r in rows if r["objects"]})
    own = [[r for r in rows if r["epoch"] == e] for e in epochs]
    return epochs, [sum(r["positives"] for r in some) / sum(r["objects"] for r in some) for some in own]


def judged_panels(runs: Sequence[RunData]) -> dict[str, Any]:
    """F1 against the threshold, FROC and Pd by SNR of the runs that are evaluated, and what is missing."""
    done = [r for r in runs if r.evaluation and (r.evaluation.get("curve") or {}).get("threshold")]
    if not done:
        return {"panels": [], "note": "No run is evaluated yet, so there is no curve to show.", "snr_note": ""}

    def lines(x: str, y: str) -> list[Line]:
        return [Line(r.name, _floats(r, x), _floats(r, y), r.colour) for r in done]

    chosen = [_chosen(r) for r in done]
    images = max(int(r.evaluation["images"]) for r in done if r.evaluation)
    panels = [
        Panel("F1 against the threshold", threshold_panel(lines("threshold", "f1"), chosen)),
        Panel("FROC: Pd against false alarms", froc_panel(lines("false_alarms_per_frame", "pd"), images)),
    ]
    snr = [r for r in done if r.evaluation and r.evaluation.get("by_snr")]
    panels += snr_panels(snr) if snr else []
    return {"panels": panels, "note": "", "snr_note": _snr_note(snr)}


def _chosen(run: RunData) -> tuple[float, float] | None:
    judged = run.evaluation or {}
    threshold, f1 = judged.get("threshold"), judged.get("f1")
    return None if threshold is None or f1 is None else (threshold, f1)


def _floats(run: RunData, key: str) -> np.ndarray:
    assert run.evaluation is not None
    return np.array(run.evaluation["curve"][key], dtype=np.float64)  # None becomes NaN


def _snr_note(runs: Sequence[RunData]) -> str:
    if not runs:
        return "The truth of these frames has no SNR, so there is no Pd by SNR and no ideal observer to compare with."
    made = [r.data for r in runs if _is_made(r.data)]
    if not made:
        return "Bars are Wilson's 95 % intervals."
    white = all(isinstance(r.data, DataSettings) and r.data.preset == "white" for r in runs)
    tail = (
        "These frames are white noise: a detector clearly above the line has seen the truth."
        if white
        else "These frames hold more than white noise: outside the white preset the line takes a Gaussian PSF of the "
        "preset's mean width and white noise alone, so it is only a bound."
    )
    return f"Bars are Wilson's 95 % intervals. Dashed: the ideal observer (matched filter) in white noise. {tail}"


def snr_panels(runs: Sequence[RunData]) -> list[Panel]:
    """Pd by SNR bin, a panel for each rate of false alarms."""
    panels = []
    judged = [(r, r.evaluation["by_snr"]) for r in runs if r.evaluation]
    made = next((r.data for r in runs if _is_made(r.data)), None)
    for rate in sorted({b["rate"] for _, bins in judged for b in bins}):
        lines = []
        for run, bins in judged:
            own = [b for b in bins if b["rate"] == rate and b["n"]]
            middle = [(b["low"] + b["high"]) / 2 for b in own]
            low, high = ([b["interval"][i] for b in own] for i in (0, 1))
            lines.append(Line(run.name, middle, [b["pd"] for b in own], run.colour, low, high))
        title = f"Pd by SNR at {rate:g} false alarm{'' if rate == 1 else 's'} a frame"
        bound = _bound(made, rate) if made else None
        panels.append(Panel(title, snr_panel(lines, bound, title=title)))
    return panels


def _is_made(data: AnyData | None) -> TypeGuard[DataSettings]:
    return isinstance(data, DataSettings) and data.source == "skyfield"


def _bound(data: DataSettings, rate: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = preset(data.preset).sigma
    return np.array(_BOUND_SNR), np.array(_observer(rate, (data.height, data.width), round((low + high) / 2, 3)))


@lru_cache(maxsize=16)
def _observer(rate: float, shape: tuple[int, int], sigma: float) -> tuple[float, ...]:
    """The ideal observer's Pd at ``_BOUND_SNR``, to a standard error of at most 0.016."""
    return tuple(ideal_observer(_BOUND_SNR, [rate], shape=shape, sigma=sigma, trials=1000)[0].tolist())
