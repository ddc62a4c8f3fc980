"""Class names and free queries as text embeddings: prompt templates, synonyms, a memory."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.clip import FrozenClip
from boresight.features.clip_tower import unit

PLAIN = ("{}",)
"""The query as it is."""

CLASSIC_TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a photo of many {}.",
    "a blurry photo of a {}.",
    "a close photo of a {}.",
    "a photo of a small {}.",
    "a photo of a large {}.",
)
"""For photographs taken on the ground."""

AERIAL_TEMPLATES = (
    "an aerial photo of a {}.",
    "an aerial image of the {}.",
    "a satellite image of a {}.",
    "a {} seen from above.",
    "an overhead view of many {}.",
    "a photo of a {} from the air.",
)
"""For images taken from above."""

SYNONYMS = "|"
"""``ship|boat``: two names of one class."""

_SPARE = 64
"""Tokens beyond the context length that are looked at to see whether a text was cut."""


class TextEncoder:
    """Texts to unit vectors with the text tower of ``clip``, each text computed once.

    Args:
        clip: the encoder.
        chunk: texts in one pass.
    """

    def __init__(self, clip: FrozenClip, *, chunk: int = 256) -> None:
        self.clip, self.chunk = clip, chunk
        self._known: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEncoder:
        return self  # a copy of a detector shares what is known

    def embed(self, classes: Sequence[str | Sequence[str]], templates: Sequence[str] = AERIAL_TEMPLATES) -> Tensor:
        """One unit vector a class.

        Args:
            classes: names or free queries. Several names of one class as ``"ship|boat"`` or as a list. The same class
                may come more than once.
            templates: sentences with ``{}`` for the name. Each is encoded and scaled to unit length, then averaged and
                scaled again (as CLIP's zero-shot classifiers are made); so are then the synonyms of a class.

        Returns:
            ``[C, D]`` float32 on the encoder's device. A row depends on its own class and the templates alone.

        Raises UserError for an empty list, a query without any word, and one too long for the text tower.
        """
        if isinstance(classes, str) or not len(classes):
            raise UserError(f"queries={classes!r}: give a list with at least one class name or query")
        names = [_synonyms(c) for c in classes]
        templates = _checked(templates)
        self._check_words(list(dict.fromkeys(n for group in names for n in group)))
        self._remember([t.replace("{}", n) for group in names for n in group for t in templates])
        return torch.stack(
            [unit(torch.stack([self._name(n, templates) for n in group]).mean(dim=0)) for group in names]
        )

    def empty(self, templates: Sequence[str] = AERIAL_TEMPLATES) -> Tensor:
        """``[D]``: the templates with nothing in them, what all queries share (for ``surgery``)."""
        templates = _checked(templates)
        self._remember([t.replace("{}", "") for t in templates])
        return self._name("", templates)

    def _name(self, name: str, templates: Sequence[str]) -> Tensor:
        return unit(torch.stack([self._known[t.replace("{}", name)] for t in templates]).mean(dim=0))

    def _remember(self, texts: Sequence[str]) -> None:
        """Encode the texts that are new, in chunks."""
        new = [t for t in dict.fromkeys(texts) if t not in self._known]
        for start in range(0, len(new), self.chunk):
            part = new[start : start + self.chunk]
            rows = self.clip.encode_tokens(self._tokens(part))
            self._known.update(zip(part, rows.unbind(), strict=True))

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        """``[T, context_length]`` ids; UserError for a text that would be cut."""
        length = self.clip.context_length
        longer = self.clip.tokenize(["", *texts], length + _SPARE)
        padding = longer[0, -1]
        cut = (longer[1:, length:] != padding).any(dim=1)
        if bool(cut.any()):
            text = texts[int(cut.int().argmax())]
            raise UserError(f"query {text!r}: longer than the {length} tokens that {self.clip.name} reads; shorten it")
        return self.clip.tokenize(texts)

    def _check_words(self, names: Sequence[str]) -> None:
        """Refuse names in which the tokenizer, or a reader, finds nothing."""
        seen = [any(unicodedata.category(c)[0] in "LNPS" for c in name) for name in names]
        tokens = self.clip.tokenize(["", *names])
        told = (tokens[1:] != tokens[:1]).any(dim=1).tolist()
        for name, visible, has_tokens in zip(names, seen, told, strict=True):
            if not (visible and has_tokens):
                raise UserError(f"query {name!r}: no word in it; write what is to be found, such as 'red ship'")


def _synonyms(item: str | Sequence[str]) -> list[str]:
    """The names of one class, in order, without doubles."""
    given = item.split(SYNONYMS) if isinstance(item, str) else [n for part in item for n in part.split(SYNONYMS)]
    if not given:
        raise UserError("queries: a class has an empty list of names; give at least one")
    return list(dict.fromkeys(name.strip() for name in given))


def _checked(templates: Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str) or not len(templates):
        raise UserError(f"templates={templates!r}: give a list of sentences with {{}} in them")
    bad = next((t for t in templates if "{}" not in t), None)
    if bad is not None:
        raise UserError(f"template {bad!r}: has no {{}} for the class name")
    return tuple(templates)
