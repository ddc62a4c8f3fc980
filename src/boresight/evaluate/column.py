"""A column that is collected part by part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Column:
    """Arrays ``[n]`` of one type, one after the other."""

    def __init__(self) -> None:
        self._parts: list[NDArray[Any]] = []

    def add(self, part: NDArray[Any]) -> None:
        """Append some values, which must not be written to afterwards."""
        self._parts.append(part)

    def whole(self) -> NDArray[Any]:
        """Everything so far as one array, which must not be written to; without any part an empty one."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.zeros(0, np.int64)

    def take(self) -> NDArray[Any]:
        """:meth:`whole`, and the column is empty from now on."""
        taken, self._parts = self.whole(), []
        return taken
