"""Text, JSON and YAML files that others wrote, read whole or refused in one line, in bounded time."""

from __future__ import annotations

import gc
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError

LARGEST_TEXT = 2**32
"""Bytes of a text or JSON file."""
LARGEST_YAML = 2**22
"""Bytes of a YAML file: 4 MiB are 100,000 class names, and take seconds to parse."""
LARGEST_NODES = 2**20
"""Values of a YAML file, those that it repeats by reference counted as often as they stand there."""
LONGEST_SCALAR = 2**16
"""Characters of a single value in YAML; a number takes time with the square of its digits."""
LONGEST_NUMBER = 100
"""Characters of a whole number in YAML, written in whatever base; no setting needs more than 20."""

_STORED = re.compile(r"[0-9a-fA-F]{30,}")


def read_text(file: Path, what: str, *, largest: int = LARGEST_TEXT) -> str:
    """Return a text file whole, lines ended by a line feed. Raises ``UserError`` as :func:`read_bytes` does.

    That is also raised where the file is not UTF-8.
    """
    content = read_bytes(file, what, largest=largest)
    try:
        text = content.decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: cannot be read ({error}): give {what} in UTF-8") from error
    except MemoryError as error:
        raise UserError(f"{file}: does not fit into memory: give {what} in parts") from error


def read_bytes(file: Path, what: str, *, largest: int) -> bytes:
    """Return a file whole. Raises ``UserError``, which asks for ``what``, where it cannot be read.

    What is no file (a folder, a device, a pipe), a link to a file of another kind (:func:`disguised`) and a file of
    more than ``largest`` bytes are refused as well.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{file}: cannot be read (it is no regular file): give {what} in a file")
        if status.st_size > largest:
            raise UserError(f"{file}: has {status.st_size} bytes, more than {largest}: give {what} in parts")
        if target := disguised(file):
            raise UserError(f"{file}: is a link to {target}, a file of another kind: give {what} itself")
        return file.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: the name itself cannot be that of a file
        raise UserError(f"{file}: cannot be read ({error}): give {what} in UTF-8") from error
    except MemoryError as error:
        raise UserError(f"{file}: does not fit into memory: give {what} in parts") from error


def disguised(file: Path, alike: Collection[str] = ()) -> Path | None:
    """Where a symbolic link leads, if that is a file of another kind than the link says, else None.

    ``labels/a.txt`` that leads to ``id_rsa`` would show in messages and conversions what no data set holds. Kinds are
    told by suffix, those in ``alike`` being of one kind. A file that is named by a hash of 30 digits or more is in a
    store that names them all so (hub caches, DVC, git-annex): it is no disguise.
    """
    if not file.is_symlink():
        return None
    target = Path(os.path.realpath(file))
    kinds = {file.suffix.lower(), target.suffix.lower()}
    honest = len(kinds) == 1 or kinds <= set(alike) or _STORED.fullmatch(target.name)
    return None if honest else target


def read_json(file: Path, what: str) -> Any:
    """Read a JSON file. Raises ``UserError``, which asks for ``what``, for one that is damaged or ambiguous.

    An object with the same key twice is ambiguous: readers differ in which they take. ``NaN`` and ``Infinity``, which
    JSON has not and Python writes, are read; whoever needs a finite number says which one is none.
    """
    text = read_text(file, what)
    try:
        with _no_collector():
            return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}): give {what}") from error
    except MemoryError as error:
        raise UserError(f"{file}: does not fit into memory: give {what} in parts") from error


def read_json_object(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises ``UserError`` as :func:`read_json` does."""
    value = read_json(file, what)
    if not isinstance(value, dict):
        raise UserError(f"{file}: is a JSON {type(value).__name__}, not an object: give {what}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return found


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pause the collector of cycles, which takes more than half of the time of parsing JSON and finds none there."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_yaml(file: Path, what: str) -> Any:
    """Read a YAML file with the safe tags alone. Raises ``UserError``, which asks for ``what``, for a damaged one.

    A file that repeats its parts by reference until they do not fit into memory, or holds a part that contains itself,
    is refused before anything is built.
    """
    import yaml

    if not file.exists():
        raise UserError(f"{file}: no such file; give {what} in an existing YAML file")
    text = read_text(file, what, largest=LARGEST_YAML)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _check_nodes(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{file}:{place} is not valid YAML ({problem}); mend that line") from error
    except RecursionError as error:
        raise UserError(f"{file}: is not valid YAML (nested too deeply); give {what}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        # what PyYAML raises for a value that its tag cannot hold: a date of month 13, a number without digits
        raise UserError(f"{file}: is not valid YAML (a value cannot be read: {error}); mend it") from error


def _check_nodes(root: Any) -> None:
    """Raise ValueError for a tree of nodes that is too large once its references are followed."""
    sizes: dict[int, int | None] = {}  # None: is being counted

    def size(node: Any) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError("a part contains itself")
        if known:
            return known
        sizes[id(node)] = None
        if isinstance(node.value, str):
            if len(node.value) > LONGEST_SCALAR:
                raise ValueError(f"a value has {len(node.value)} characters, more than {LONGEST_SCALAR}")
            if node.tag.endswith(":int") and len(node.value) > LONGEST_NUMBER:
                raise ValueError(f"a whole number has {len(node.value)} digits, more than {LONGEST_NUMBER}")
            total = 1
        else:
            parts = [p for entry in node.value for p in (entry if isinstance(entry, tuple) else (entry,))]
            total = 1 + sum(size(part) for part in parts)
        if total > LARGEST_NODES:
            raise ValueError(f"it holds more than {LARGEST_NODES} values")
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)
