"""Any open_clip model by name, hub id, folder or file, as a :class:`~boresight.features.clip.FrozenClip`.

How the activation is chosen when it is not given (``activation="auto"``), in this order:

1. a pretrained tag of open_clip says which one it was trained with;
2. a configuration that travels with its weights (hub repository, folder, the shipped model) says it;
3. for a file of unknown origin **nothing in the weights tells it**. We looked for a check: of eight tiny models, four
   trained with each activation, the agreement of paraphrases of a text was better with the right one in 4, that of an
   image and its mirror image in 3, and even the contrastive loss on held-out pairs in 5. (They tell gelu from quickgelu
   less than they prefer one of the two for all models.) So the architecture's own configuration is taken, the distance
   between the embeddings that the two activations give is *measured*, and both are written into ``FrozenClip.notes``.
   That distance says what is at stake, not who is right.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch

from boresight.core.errors import UserError
from boresight.features.clip import FrozenClip, Preprocess
from boresight.features.clip_activation import activation_difference
from boresight.features.clip_source import Source, resolve, tags_of, with_weights
from boresight.features.clip_tower import tower_of
from boresight.features.clip_weights import fit_weights, read_weights

Activation = Literal["auto", "gelu", "quickgelu"]

_PROBES = ("a photo of a dog", "an aerial image of a ship", "two red cars on a road", "a map")


def load_clip(
    name: str, weights: str | None = None, *, activation: Activation = "auto", random: bool = False
) -> FrozenClip:
    """Load and freeze a CLIP.

    Args:
        name: an open_clip architecture (``ViT-B-32``), a hub id (``hf-hub:org/repo``), ``RemoteCLIP-ViT-B-32``,
            ``RemoteCLIP-ViT-L-14``, ``RemoteCLIP-RN50``, ``boresight-aerial`` (the small one shipped), a folder with
            ``open_clip_config.json`` and weights, or a JSON file with an architecture.
        weights: a pretrained tag of open_clip, or a file (:func:`~boresight.features.clip_weights.read_weights`).
        activation: of the transformer blocks; ``auto`` as this module's text says.
        random: allow random weights (for tests of shapes).

    Raises UserError, one line, for a name, file or architecture that cannot be used, and for no weights at all.
    """
    if activation not in ("auto", "gelu", "quickgelu"):
        raise UserError(f"activation={activation}: use auto, gelu or quickgelu")
    source = with_weights(resolve(name, fetch=weights is None and not random), weights)
    _refuse_unsupported(source)
    if source.weights is None and not random:
        raise UserError(
            f"clip={name}: no weights, its features would be random; give weights=TAG or FILE{tags_of(name)}"
        )
    quick = {"auto": source.quick, "gelu": False, "quickgelu": True}[activation]
    state = None if source.weights is None else read_weights(source.weights)  # before what takes seconds
    model = _build(source, bool(source.config.get("quick_gelu", False)) if quick is None else quick)
    if state is not None:
        fit_weights(model, state, architecture=source.label, source=str(source.weights))
    model.eval()
    tokenizer = _tokenizer(source)
    notes = _notes(source, activation, quick, model, tokenizer)
    quick = bool(source.config.get("quick_gelu", False)) if quick is None else quick
    return FrozenClip(
        model,
        tokenizer=tokenizer,
        preprocess=_preprocess(source, model),
        name=name,
        activation="quickgelu" if quick else "gelu",
        config=source.config,
        notes=notes,
    )


def _refuse_unsupported(source: Source) -> None:
    vision = source.config["vision_cfg"]
    if vision.get("timm_model_name"):
        raise UserError(
            f"clip={source.label}: its visual tower is timm's {vision['timm_model_name']}, for which no class map is"
            " defined; use an open_clip ViT or ModifiedResNet (ViT-B-32, ViT-L-14, RN50, ...)"
        )
    if "multimodal_cfg" in source.config:
        raise UserError(f"clip={source.label}: CoCa pools by attention, no class map is defined; use a plain CLIP")


def _build(source: Source, quick: bool) -> Any:
    """The model with random weights, in float32 on the CPU."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = deepcopy(source.config)
    config["quick_gelu"] = quick
    text = config["text_cfg"]
    own_text = bool(config.pop("custom_text", False)) or "hf_model_name" in text
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False  # the checkpoint brings it
    try:
        with torch.random.fork_rng(devices=[]):  # what is trained later does not depend on which encoder was loaded
            model = (CustomTextCLIP if own_text else CLIP)(**config)
    except (TypeError, ValueError, KeyError, RuntimeError, OSError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"clip={source.label}: open_clip cannot build this configuration ({reason})") from error
    tower_of(model.visual)  # refuses now what could not be read later
    return model


def _tokenizer(source: Source) -> Any:
    """Made by open_clip from the source's name, or from the configuration itself."""
    from open_clip import SimpleTokenizer, get_tokenizer, tokenize
    from open_clip.tokenizer import HFTokenizer

    text = source.config["text_cfg"]
    own = dict(text.get("tokenizer_kwargs") or {})
    simple = not text.get("hf_tokenizer_name")
    try:
        if simple and not own and "siglip" not in source.tokenizer.lower():
            return tokenize  # made once on import
        if source.tokenizer and not (simple and source.folder):
            return get_tokenizer(source.tokenizer)
        if simple:
            if source.folder is not None and "bpe_path" in own:  # a vocabulary that lies beside the configuration
                own["bpe_path"] = str(source.folder / own["bpe_path"])
            return SimpleTokenizer(context_length=text.get("context_length", 77), **own)
        return HFTokenizer(text["hf_tokenizer_name"], context_length=text.get("context_length", 77), **own)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"clip={source.label}: its tokenizer cannot be made ({reason})") from error


def _preprocess(source: Source, model: Any) -> Preprocess:
    default = Preprocess()
    said = {k: v for k, v in source.preprocess.items() if v is not None}
    size = model.visual.image_size
    interpolation = said.get("interpolation", default.interpolation)
    return Preprocess(
        mean=tuple(said.get("mean", default.mean)),
        std=tuple(said.get("std", default.std)),
        size=int(size[0] if isinstance(size, list | tuple) else size),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else default.interpolation,
    )


def _notes(source: Source, asked: str, quick: bool | None, model: Any, tokenizer: Any) -> tuple[str, ...]:
    """What the user should know about the activation."""

    def word(is_quick: bool) -> str:
        return "quickgelu" if is_quick else "gelu"

    if asked != "auto":
        if source.quick is not None and source.quick != quick:
            return (f"activation={asked} was asked for, but {source.because} says {word(source.quick)}",)
        return ()
    if quick is not None or source.weights is None:
        return ()
    image, text = activation_difference(model, tokenizer(list(_PROBES), context_length=model.context_length))
    taken = word(bool(source.config.get("quick_gelu", False)))
    return (
        f"activation {taken} taken from the architecture {source.label}: nothing in a file tells gelu from quickgelu;"
        f" here they move an image embedding by {image:.3f} and a text embedding by {text:.3f}"
        " (unit vectors); set activation=gelu or quickgelu if you know",
    )
