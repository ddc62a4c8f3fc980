"""The second level of the feature store: the same files at any address that fsspec can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.cache_locks import Pause

RETRY = 60.0
"""Seconds after which an address that could not be reached is tried again."""


class Remote:
    """Reads items of a store that somebody else has filled and copied to ``address``.

    Args:
        address: ``s3://bucket/prefix``, ``gs://...``, ``file:///...``, ``memory://...``.

    Raises UserError for an address whose driver is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._opened: tuple[Any, str] | None = None
        self._pause = Pause(RETRY)
        self._open()

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.address, self._opened, self._pause = state["address"], None, Pause(RETRY)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec.core

            try:
                self._opened = fsspec.core.url_to_fs(self.address)
            except (ImportError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"store.remote={self.address}: cannot be opened ({reason})") from error
        return self._opened

    def read(self, file: str, say: Callable[[str, str], None]) -> Tensor | None:
        """The bytes of a file, ``[n]`` uint8; None where there is none, or (said once) where it cannot be reached.

        After it could not be reached it is not asked for a while: nobody waits for the network item by item.
        """
        if self._pause:
            return None
        system, base = self._open()
        try:
            data = bytearray(system.cat_file(f"{base}/{file}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each driver has errors of its own, and none of them should end a training run
            self._pause.begin()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            say("remote", f"{self.address}: cannot be read ({reason}); features are computed here")
            return None
        return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
