"""Which image files are meant: folders, files and patterns as a user gives them. Does without torch."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from boresight.core.errors import UserError
from boresight.data.image import IMAGE_SUFFIXES


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted. Raises ``UserError`` where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images: correct the path")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def image_files(paths: str | Path | Sequence[str | Path]) -> list[tuple[str, Path]]:
    """``(name, path)`` of every image of a folder, a file, a pattern (``a/*.png``), or several of them, sorted by path.

    Named by file name, or by their whole path where two files share a name. Raises ``UserError`` where a path leads
    nowhere or nothing is found.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found = sorted({image for path in given for image in _expand(Path(path))})
    if not found:
        raise UserError(
            f"{', '.join(map(str, given)) or 'no path'}: no images there: give a folder, files or a pattern"
        )
    shared = Counter(path.name for path in found)
    return [(path.name if shared[path.name] == 1 else path.as_posix(), path) for path in found]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return images_in(path)
    if path.exists():
        return [path]
    if not glob.has_magic(str(path)):
        raise UserError(f"{path}: no such file or folder: correct the path")
    return [
        Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).suffix.lower() in IMAGE_SUFFIXES
    ]
