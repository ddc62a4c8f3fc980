"""Where a CLIP comes from: a name, hub id, folder or file, resolved to a configuration and a file with weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from boresight.core.errors import UserError, did_you_mean
from boresight.core.files import read_json

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHIPPED = "boresight-aerial"
"""The small model that comes with the package."""

REMOTE_CLIP = {f"RemoteCLIP-{architecture}": architecture for architecture in ("ViT-B-32", "ViT-L-14", "RN50")}
REMOTE_CLIP_REPOSITORY = "chendelong/RemoteCLIP"

_HUB = "hf-hub:"
_CONFIG = "open_clip_config.json"
_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        label: what messages call it.
        config: open_clip's model configuration.
        preprocess: what the source says of preprocessing (open_clip's keys).
        weights: the file with the weights, None when there is none.
        quick: whether QuickGELU is known to be right (or wrong); None: nothing is known.
        because: who says so.
        tokenizer: what open_clip's ``get_tokenizer`` is asked for; empty: the configuration's own.
        folder: where files that the configuration names are looked for.
    """

    label: str
    config: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    quick: bool | None = None
    because: str = ""
    tokenizer: str = ""
    folder: Path | None = None


def resolve(name: str, *, fetch: bool) -> Source:
    """Find configuration and, where they travel with it and ``fetch`` is true, weights."""
    if name == SHIPPED:
        config, weights = ASSETS / "aerial_clip.json", ASSETS / "aerial_clip.safetensors"
        if not config.is_file() or not weights.is_file():
            raise UserError(
                f"clip={SHIPPED}: {config.name} or {weights.name} is missing in {ASSETS}; reinstall boresight"
            )
        return replace(_from_json(config, name), weights=weights)
    if name in REMOTE_CLIP:
        architecture = REMOTE_CLIP[name]
        file = _download(name, lambda: _remote_clip(f"{name}.pt")) if fetch else None
        return replace(_from_registry(architecture), label=name, weights=file)
    if name.startswith(_HUB):
        return _from_hub(name, fetch)
    path = Path(name).expanduser()
    if path.is_dir():
        source = _from_json(path / _CONFIG, str(path))
        found = next((path / f for f in _WEIGHT_FILES if (path / f).is_file()), None)
        return replace(source, weights=found, tokenizer=f"local-dir:{path}")
    if path.suffix == ".json":
        return _from_json(path, str(path))
    return _from_registry(name)


def _from_registry(name: str) -> Source:
    from open_clip import get_model_config, list_models

    clean = name.replace("/", "-")
    config = get_model_config(clean)
    if config is None:
        near = did_you_mean(clean, [*list_models(), *REMOTE_CLIP, SHIPPED])
        raise UserError(f"clip={name}: no open_clip architecture, file or folder of that name{near}")
    told = clean.endswith("-quickgelu")
    return Source(clean, config, quick=True if told else None, because="its name" if told else "", tokenizer=clean)


def _from_json(path: Path, label: str) -> Source:
    if not path.exists():
        raise UserError(f"clip={label}: {path} does not exist")
    try:
        held = read_json(path, "the configuration of an open_clip model")
    except UserError as error:
        raise UserError(f"clip={label}: {error}") from error
    return _from_dict(held, label, path.parent)


def _from_dict(held: Any, label: str, folder: Path | None) -> Source:
    config = held.get("model_cfg", held) if isinstance(held, dict) else None
    missing = [k for k in ("embed_dim", "vision_cfg", "text_cfg") if not isinstance(config, dict) or k not in config]
    if missing or config is None:
        raise UserError(f"clip={label}: its configuration has no `{missing[0]}`; open_clip's format is expected")
    quick = bool(config.get("quick_gelu", False))
    preprocess = held.get("preprocess_cfg") or {}
    return Source(label, config, preprocess, quick=quick, because="its configuration", folder=folder)


def _from_hub(name: str, fetch: bool) -> Source:
    from open_clip.pretrained import download_pretrained_from_hf

    repository = name.removeprefix(_HUB)
    config = _download(name, lambda: download_pretrained_from_hf(repository, filename=_CONFIG))
    source = replace(_from_json(config, name), tokenizer=name)
    return (
        replace(source, weights=_download(name, lambda: download_pretrained_from_hf(repository))) if fetch else source
    )


def _remote_clip(file: str) -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(REMOTE_CLIP_REPOSITORY, file))


def _download(name: str, get: Callable[[], str]) -> Path:
    try:
        return Path(get())
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"clip={name}: cannot be downloaded ({reason}); offline, give the file with weights=FILE"
        ) from error


def with_weights(source: Source, weights: str | None) -> Source:
    """The source with what the user named: a tag of open_clip, or a file (whether that exists is seen on reading)."""
    if weights is None:
        return source
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    path = Path(weights).expanduser()
    known = dict(get_pretrained_cfg(source.label, weights))
    if known and not path.is_file():
        file = _download(f"{source.label} weights={weights}", lambda: download_pretrained(known))
        quick = bool(known.get("quick_gelu", False))
        return replace(source, weights=file, preprocess=known, quick=quick, because=f"the tag {weights}")
    if weights == f"{_HUB}{REMOTE_CLIP_REPOSITORY}" and source.label in REMOTE_CLIP:
        return replace(source, weights=_download(source.label, lambda: _remote_clip(f"{source.label}.pt")))
    if not path.exists() and not path.suffix:
        tags = list_pretrained_tags_by_model(source.label)
        near = did_you_mean(weights, tags) or (f" (tags: {', '.join(tags)})" if tags else "")
        raise UserError(f"weights={weights}: neither a file nor a pretrained tag of {source.label}{near}")
    return replace(source, weights=path)


def tags_of(name: str) -> str:
    """The pretrained tags of an architecture, in brackets for the end of a message; empty when it has none."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(name.replace("/", "-"))
    return f" (tags: {', '.join(tags)})" if tags else ""
