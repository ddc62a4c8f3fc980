"""Exports a trained detector to a file that runs without its code, checked against PyTorch before it is left behind."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from boresight import __version__
from boresight.core.errors import Failure, UserError
from boresight.detectors.box_refiner import BoxRefiner
from boresight.detectors.gaussian_point import GaussianPoint
from boresight.detectors.text_query import TextQuery
from boresight.run.boxes import query_texts
from boresight.run.export_check import Difference, compared, scenes_to_check
from boresight.run.export_graph import Graph
from boresight.run.export_point import PointGraph
from boresight.run.export_refine import RefineGraph
from boresight.run.export_text import TextFeaturesGraph, TextGraph
from boresight.run.onnx_file import FORMAT, check_runtime, opened, properties
from boresight.run.parse import nested
from boresight.run.predict import Trained, load_trained
from boresight.run.record import RunFolder, write_atomic, write_json

Format = Literal["onnx", "torch_export"]

Features = Literal["inside", "given"]

SUFFIX = {"onnx": ".onnx", "torch_export": ".pt2"}

LARGEST = 65_536
"""Pixels: no side of an image is longer."""

SMALLEST = 32
"""Pixels a side from which on sizes are proven while exporting."""


def export_run(
    run: RunFolder,
    *,
    form: Format = "onnx",
    out: Path | None = None,
    which: str = "last",
    features: Features | None = None,
    queries: Sequence[str] = (),
    frames: int = 4,
    quiet: bool = True,
) -> dict[str, Any]:
    """Export a run to one file; ``torch_export`` writes a JSON of the same name beside it.

    The graph takes images of any size and any number of one size. What it gives is compared with the detector's own
    output on frames of the run, whole, cut to another size and in pairs. The figures go into the file.

    Args:
        run: of any of the four systems.
        form: ``onnx``, or ``torch_export`` (a ``.pt2`` of torch.export).
        out: the file; default: ``model`` in the run's folder.
        which: the checkpoint.
        features: of all but `point`: the frozen encoder is ``inside`` of the graph (the default), or its features
            are ``given``.
        queries: further queries whose embeddings go into the file of `text` or `localise`, beside those of the classes.
        frames: frames of the run on which it is checked.
        quiet: print nothing.

    Raises:
        UserError: a run that cannot be exported, a package that is missing, frames that cannot be read.
        Failure: the graph cannot be made, or differs from PyTorch. Nothing is written then.
    """
    if form == "onnx":
        check_runtime()
    trained = load_trained(run, which)
    trained.detector.to("cpu").to(memory_format=torch.contiguous_format)
    graph = graph_of(trained, run, features, queries)
    scenes = scenes_to_check(trained, frames)
    out = out or run.root / f"model{SUFFIX[form]}"
    if out.suffix != SUFFIX[form]:
        raise UserError(f"--out {out}: a file of format {form} ends in {SUFFIX[form]}")
    with _quietly(), torch.no_grad():
        program = _program(graph, graph.feed(scenes.pair), run)
        data, runs = (_onnx if form == "onnx" else _torch_export)(graph, program, run)
        found = compared(graph, runs, scenes)
    if not found.fits:
        raise Failure(f"{run.root}: the {form} graph differs from PyTorch: {found.told()}; no file was written")
    about = _about(graph, trained, run.checkpoints / f"{which}.safetensors", found)
    if form == "onnx":
        data = properties(data, about)
    else:
        write_json(out.with_suffix(".json"), about)
    write_atomic(out, lambda partial: _write(partial, data))
    if not quiet:
        print(f"{out}: {found.told()}")
    return {"out": str(out), "format": form, "system": about["system"], "check": about["check"]}


def graph_of(trained: Trained, run: RunFolder, features: Features | None, queries: Sequence[str]) -> Graph:
    """The detector of a run as a graph; UserError for a system that has none, or not that form."""
    detector, kind = trained.detector, trained.checkpoint.detector
    if queries and not isinstance(detector, TextQuery):
        raise UserError(f"--queries: {run.root} is a run of `{kind}`, which takes no queries")
    if isinstance(detector, GaussianPoint):
        if features is not None:
            raise UserError(f"--features: {run.root} is a run of `point`, which has no frozen encoder; drop it")
        return PointGraph(detector, trained.settings.decode).eval()
    if isinstance(detector, TextQuery):
        classes = trained.checkpoint.classes
        names = tuple(dict.fromkeys((*classes, *queries)))
        asked = dict(zip(classes, query_texts(classes, trained.settings.data.queries), strict=True))
        made = TextFeaturesGraph if features == "given" else TextGraph
        return made(detector, {name: asked.get(name, name) for name in names}).eval()
    if isinstance(detector, BoxRefiner):
        if detector.features is None and features is not None:
            raise UserError(f"--features: {run.root} reads pixels alone; drop it")
        return RefineGraph(detector, trained.settings, given=features == "given").eval()
    raise UserError(f"{run.root}: a run of `{kind}` is not exported")


def _program(graph: Graph, example: tuple[torch.Tensor, ...], run: RunFolder) -> Any:
    """The graph by torch.export, with open axes."""
    from torch.fx.experimental import _config

    open_sizes: Any = _config

    names = {name for axes in graph.inputs.values() for name in axes.values()}
    low = {"batch": 1, "height": SMALLEST, "width": SMALLEST}
    dims = {n: torch.export.Dim(n, min=low.get(n, 1), max=LARGEST) for n in sorted(names)}
    shapes: tuple[Any, ...] = tuple({k: dims[name] for k, name in axes.items()} for axes in graph.inputs.values())
    named = list(inspect.signature(graph.forward).parameters.values())
    if named[-1].kind is inspect.Parameter.VAR_POSITIONAL and len(shapes) >= len(named):
        # what it takes is a tuple of its own
        shapes = (*shapes[: len(named) - 1], shapes[len(named) - 1 :])
    try:
        # else a size of 1, of a batch or a map, would be a program of its own
        with graph.bare(), open_sizes.patch(backed_size_oblivious=True):
            return torch.export.export(
                graph, example, dynamic_shapes=shapes, strict=False, prefer_deferred_runtime_asserts_over_guards=True
            )
    except Exception as error:  # torch.export raises whatever the traced code raises
        raise _cannot(run, "torch.export", error) from error


def _onnx(graph: Graph, program: Any, run: RunFolder) -> tuple[bytes, Callable[..., list[Any]]]:
    """Bytes of an ONNX file, and what runs it."""
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
            optimize=True,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _cannot(run, "torch.onnx", error) from error
    assert made is not None
    data: bytes = made.model_proto.SerializeToString()
    session = opened(data, str(run.root))

    def runs(*inputs: torch.Tensor) -> list[Any]:
        feed = dict(zip(graph.inputs, (v.numpy() for v in inputs), strict=True))
        return [torch.from_numpy(v) for v in session.run(list(graph.outputs), feed)]

    return data, runs


def _torch_export(graph: Graph, program: Any, run: RunFolder) -> tuple[bytes, Callable[..., list[Any]]]:
    """Bytes of a ``.pt2`` file, and what runs it."""
    stream = io.BytesIO()
    torch.export.save(program, stream)
    again = torch.export.load(io.BytesIO(stream.getvalue())).module()
    return stream.getvalue(), lambda *inputs: list(again(*inputs))


def _cannot(run: RunFolder, by: str, error: Exception) -> Failure:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return Failure(f"{run.root}: {by} cannot export this detector ({reason})")


def _about(graph: Graph, trained: Trained, path: Path, found: Difference) -> dict[str, Any]:
    """Everything that goes with the graph."""
    checkpoint = trained.checkpoint
    return {
        "format": FORMAT,
        "boresight": __version__,
        "torch": torch.__version__,
        "system": checkpoint.detector,
        "classes": list(checkpoint.classes),
        "threshold": checkpoint.threshold,
        **graph.about(),
        "inputs": {name: {str(k): v for k, v in axes.items()} for name, axes in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "check": found.figures(),
        "checkpoint": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "step": checkpoint.step,
            "figures": checkpoint.figures,
            "frozen": checkpoint.frozen,
        },
        "settings": json.loads(json.dumps(nested(trained.settings))),
    }


def _write(partial: Path, data: bytes) -> None:
    partial.write_bytes(data)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporters say to their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [log.level for log in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for log in loggers:
                log.setLevel(logging.ERROR)
            yield
        finally:
            for log, level in zip(loggers, before, strict=True):
                log.setLevel(level)
