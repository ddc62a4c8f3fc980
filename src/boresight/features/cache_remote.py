"""The second level of the feature store: the same files at any address that fsspec can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError


class Remote:
    """Reads items of a store that somebody else has filled and copied to ``address``.

    Args:
        address: ``s3://bucket/prefix``, ``gs://...``, ``file:///...``, ``memory://...``.

    Raises UserError for an address whose driver is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._opened: tuple[Any, str] | None = None
        self._open()

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.address, self._opened = state["address"], None

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            try:
                self._opened = fsspec.core.url_to_fs(self.address)
            except (ImportError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"store.remote={self.address}: cannot be opened ({reason})") from error
        return self._opened

    def read(self, file: str, say: Callable[[str, str], None]) -> Tensor | None:
        """The bytes of a file, ``[n]`` uint8; None where there is none, or (said once) where it cannot be reached."""
        system, base = self._open()
        try:
            data = bytearray(system.cat_file(f"{base}/{file}"))
        except FileNotFoundError:
            return None
        except OSError as error:
            say("remote", f"{self.address}: cannot be read ({error}); features are computed here")
            return None
        return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
