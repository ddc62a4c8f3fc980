"""Whether a backbone has taken all of its weights from a checkpoint.

timm loads a backbone for its features without its classifier, and therefore not strictly: what else a file lacks, or
names otherwise, stays random, and nobody is told.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from boresight.core.errors import UserError

_LOCK = threading.Lock()


@contextmanager
def loaded_tensors() -> Iterator[dict[int, Tensor]]:
    """The tensors, by id, that any module took from a state dict in the meantime.

    They are held, so that no other tensor gets the id of one that is gone.
    """
    loaded: dict[int, Tensor] = {}
    usual = nn.Module.load_state_dict

    def watched(self: nn.Module, *args: Any, **more: Any) -> Any:
        result = usual(self, *args, **more)
        found = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        loaded.update({id(v): v for k, v in found.items() if k not in result.missing_keys})
        return result

    with _LOCK:
        nn.Module.load_state_dict = watched  # type: ignore[method-assign]
        try:
            yield loaded
        finally:
            nn.Module.load_state_dict = usual  # type: ignore[method-assign]


def check_whole(module: nn.Module, loaded: dict[int, Tensor], source: str) -> None:
    """UserError that names ``source`` and the first weight of ``module`` that is not among the ``loaded`` tensors."""
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    kept = [k for k in module.state_dict() if k in held]  # a buffer that no checkpoint keeps is computed
    missing = [k for k in kept if id(held[k]) not in loaded and not k.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(kept)} weights are missing, first `{missing[0]}`; they would be random: "
            "get a whole checkpoint of this model"
        )
