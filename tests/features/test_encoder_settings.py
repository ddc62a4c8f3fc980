"""Settings of frozen image encoders: one that an encoder does not read is an error."""

from __future__ import annotations

from typing import Any

import pytest

from boresight.core.errors import UserError
from boresight.features.encoders import load_encoder

READ = {
    "squeezenet": {"levels", "size"},
    "timm:resnet18": {"levels", "size"},
    "clip:boresight-aerial": {"layers", "size", "window"},
    "boresight-aerial": {"layers", "size", "window"},
    "mobile-sam": {"precision"},
    "sam:nobody/no-such-model": {"precision"},
}
VALUES: dict[str, Any] = {"levels": (2,), "layers": (2,), "size": 64, "window": 64, "precision": "bf16"}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("key", VALUES)
def test_a_setting_that_is_not_read_is_named(name, key, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    weights = {} if name.startswith(("sam:", "clip:", "bor")) else {"weights": "nowhere.safetensors"}
    said = ""
    try:
        load_encoder(name, **weights, **{key: VALUES[key]})
    except UserError as error:
        said = str(error)
    assert (f"features.{key}: features.name={name} does not read it" in said) == (key not in READ[name])
    assert "\n" not in said
