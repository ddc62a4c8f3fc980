"""Our ONNX files: what stands in their properties, and a session that runs them. Does without torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

FORMAT = "boresight-graph-1"

PREFIX = "boresight."
"""Of the names of our properties, whose values are JSON."""

INSTALL = "pip install 'boresight[export]'"


def check_runtime() -> None:
    """UserError unless ONNX files can be made and run here."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise UserError(f"ONNX files need the package {name}: {INSTALL}") from error


def properties(data: bytes, about: Mapping[str, Any]) -> bytes:
    """An ONNX file with ``about`` in its properties, one for each key, and its open axes named."""
    import onnx

    model = onnx.load_from_string(data)
    _name_axes(model.graph, about["inputs"])
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = PREFIX + key, json.dumps(value, allow_nan=False)
    made: bytes = model.SerializeToString()
    return made


def _name_axes(graph: Any, inputs: Mapping[str, Mapping[str, str]]) -> None:
    """``batch`` and ``height`` for ``s40`` and ``s73``, in what is computed from them as well."""
    names = {}
    for value in graph.input:
        for axis, name in inputs[value.name].items():
            names[value.type.tensor_type.shape.dim[int(axis)].dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\bs\d+\b", lambda m: names.get(m[0], m[0]), dim.dim_param)


def opened(source: bytes | str, name: str) -> Any:
    """An onnxruntime session on the CPU, with as many threads as OMP_NUM_THREADS says (default: all).

    Raises UserError that names the file where onnxruntime is missing or cannot read it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{name}: to run ONNX files install onnxruntime: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    options.log_severity_level = 3  # what goes wrong is raised
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    wrong = (state.InvalidProtobuf, state.InvalidGraph, state.Fail, state.NoSuchFile, state.InvalidArgument)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except (*wrong, state.NotImplemented, state.RuntimeException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: onnxruntime cannot run it ({reason}); export it again") from error


def read_about(session: Any, path: Path) -> dict[str, Any]:
    """What stands in the properties of a file; UserError for one that `boresight export` did not make."""
    props = session.get_modelmeta().custom_metadata_map
    try:
        about = {k.removeprefix(PREFIX): json.loads(v) for k, v in props.items() if k.startswith(PREFIX)}
    except ValueError as error:
        raise UserError(f"{path}: its properties cannot be understood ({error}); export it again") from error
    if about.get("format") != FORMAT:
        have = about.get("format")
        raise UserError(f"{path}: no file of `boresight export` (format {have!r}, want {FORMAT!r}); export a run")
    return about
