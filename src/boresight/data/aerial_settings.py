"""What a synthetic aerial scene is made of: kinds, colours, every knob, and the split held back. Imports no torch.

A *composition* is a colour and a kind ("red ship"). Some are held back from training, so that a detector can be asked
for a pair that it never saw although it saw both words: the leak-free base/novel split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boresight.core.errors import UserError, did_you_mean

KINDS: tuple[str, ...] = (
    "aircraft", "helicopter", "ship", "storage tank", "vehicle", "truck", "tennis court", "swimming pool", "bridge",
    "wind turbine",
)  # fmt: skip
"""Ten things that can be told apart from above and painted in any colour."""

COLOURS: tuple[str, ...] = ("red", "blue", "yellow", "white", "black")
"""Five words far apart: no light or haze of a scene turns one into another."""

SIZE_FACTOR: dict[str, float] = {
    "aircraft": 1.1, "helicopter": 1.0, "ship": 1.1, "storage tank": 0.8, "vehicle": 0.75, "truck": 0.9,
    "tennis court": 1.0, "swimming pool": 0.85, "bridge": 1.25, "wind turbine": 1.15,
}  # fmt: skip
"""Longest side of a kind in units of ``AerialSettings.scale``: near 1, so that the size alone names no kind."""

LARGEST_SHARE = 0.6
"""Longest side allowed, as a share of the frame's shorter side: a longer one leaves no place for another object."""


def compositions(kinds: tuple[str, ...] = KINDS, colours: tuple[str, ...] = COLOURS) -> tuple[str, ...]:
    """Return every ``"colour kind"``, kind by kind: ``"red aircraft"``, ``"blue aircraft"``, ..."""
    return tuple(f"{colour} {kind}" for kind in kinds for colour in colours)


def held_out_colour(kind: str) -> str:
    """Return the one colour in which ``kind`` is never drawn for training.

    A Latin pattern over the full tables: one colour a kind, every colour the same number of times. It depends on the
    names alone, so that any choice of kinds and colours agrees with a model trained on another choice.
    """
    row = KINDS.index(kind)
    lap = row // len(COLOURS)  # a second lap is shifted, or both laps would pair kinds five apart alike
    return COLOURS[(2 * row + 1 + lap) % len(COLOURS)]


def held_out(kinds: tuple[str, ...] = KINDS, colours: tuple[str, ...] = COLOURS) -> frozenset[str]:
    """Return the compositions of ``kinds`` and ``colours`` that training never sees (see :func:`held_out_colour`)."""
    return frozenset(f"{held_out_colour(kind)} {kind}" for kind in kinds if held_out_colour(kind) in colours)


@dataclass(frozen=True)
class AerialSettings:
    """The knobs of a synthetic aerial scene; lengths in pixels. Raises ``UserError`` for a value no scene can have."""

    height: int = 256
    """Rows: at 256 a scene costs about ten milliseconds."""
    width: int = 256
    """Columns."""
    kinds: tuple[str, ...] = KINDS
    """The kinds that are drawn, of ``KINDS``; their order is that of the labels."""
    colours: tuple[str, ...] = COLOURS
    """The colours they are drawn in, of ``COLOURS``."""
    objects: tuple[int, int] = (1, 8)
    """Fewest and most objects of a scene that is not empty (both included)."""
    scale: tuple[float, float] = (14.0, 56.0)
    """Longest side of an object, log-uniform, times ``SIZE_FACTOR`` of its kind."""
    classes: Literal["kinds", "compositions"] = "compositions"
    """What a label names: the kind, or colour and kind together."""
    empty_share: float = 0.05
    """Share of scenes without any object."""
    distractors: tuple[int, int] = (0, 6)
    """Fewest and most unlabelled things that look like objects: roofs, tarps in the same colours, discs, rocks."""
    occlusion: float = 0.15
    """Share of the objects that a tree crown or a wisp of cloud covers in part."""
    typical_ground: float = 0.7
    """Chance that a region, and then the place of an object, is chosen to suit a kind; otherwise both are any."""
    edge_share: float = 0.15
    """Chance that an object may hang over the frame's edge."""
    repeat_share: float = 0.25
    """Chance that an object repeats the kind and colour of another of its scene: else there is nothing to count."""
    shadow: bool = True
    """Whether objects cast a shadow; it is no part of the box."""
    hold_out: bool = True
    """Whether some compositions are held back from training; False: every scene draws all of them."""
    novel_share: float | None = None
    """Share of held-out compositions among the objects of scenes that show them; None: all compositions alike."""

    def __post_init__(self) -> None:
        _check_names("kinds", self.kinds, KINDS)
        _check_names("colours", self.colours, COLOURS)
        for name in ("empty_share", "occlusion", "typical_ground", "edge_share", "repeat_share", "novel_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"aerial.{name}: {value} is no share; give a number from 0 to 1")
        for name, least in (("objects", 1), ("distractors", 0)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise UserError(f"aerial.{name}: ({low}, {high}) is no range; give {least} <= fewest <= most")
        for name in ("height", "width"):
            if not 32 <= getattr(self, name) <= 8192:
                raise UserError(f"aerial.{name}: {getattr(self, name)} is outside 32 to 8192")
        if self.classes not in ("kinds", "compositions"):
            near = did_you_mean(self.classes, ("kinds", "compositions"))
            raise UserError(f"aerial.classes: `{self.classes}` is unknown{near} (kinds, compositions)")
        self._check_scale()
        self._check_split()

    def _check_scale(self) -> None:
        low, high = self.scale
        if not 6 <= low <= high:
            raise UserError(f"aerial.scale: ({low}, {high}) is no range; give 6 <= shortest <= longest, in pixels")
        kind = max(self.kinds, key=SIZE_FACTOR.__getitem__)
        longest, limit = high * SIZE_FACTOR[kind], LARGEST_SHARE * min(self.height, self.width)
        if longest > limit:
            raise UserError(
                f"aerial.scale: a {kind} of {longest:.0f} px is too long for {self.width}x{self.height}; "
                f"give at most {limit / SIZE_FACTOR[kind]:.0f}"
            )

    def _check_split(self) -> None:
        if self.hold_out and not self.base_pairs:
            raise UserError("aerial.hold_out: every chosen colour and kind is held out; add a colour or set it false")
        if self.novel_share and not self.novel_pairs:
            raise UserError("aerial.novel_share: no composition is held out here; leave it out or choose more colours")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every ``(kind, colour)``, in the order of :func:`compositions`."""
        return tuple((kind, colour) for kind in self.kinds for colour in self.colours)

    @property
    def base_pairs(self) -> tuple[tuple[str, str], ...]:
        """The ``(kind, colour)`` that training may show."""
        return tuple(p for p in self.pairs if not (self.hold_out and held_out_colour(p[0]) == p[1]))

    @property
    def novel_pairs(self) -> tuple[tuple[str, str], ...]:
        """The ``(kind, colour)`` that training never shows."""
        return tuple(p for p in self.pairs if self.hold_out and held_out_colour(p[0]) == p[1])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels, held-out ones included."""
        return self.kinds if self.classes == "kinds" else compositions(self.kinds, self.colours)

    def label(self, kind: str, colour: str) -> int:
        """Return the label of an object, an index into ``class_names``."""
        row = self.kinds.index(kind)
        return row if self.classes == "kinds" else row * len(self.colours) + self.colours.index(colour)

    def lengths(self, kind: str) -> tuple[float, float]:
        """Return the shortest and longest longest-side of ``kind`` in pixels."""
        return self.scale[0] * SIZE_FACTOR[kind], self.scale[1] * SIZE_FACTOR[kind]

    def size_word(self, kind: str, length: float) -> str:
        """Return ``"small"`` in the lowest third of the kind's range (in the logarithm), ``"large"`` in the highest.

        The middle third has no word (an empty string), and neither has a range of less than a factor of 1.5.
        """
        low, high = self.lengths(kind)
        if high < 1.5 * low:
            return ""
        third = (high / low) ** (1 / 3)
        return "small" if length < low * third else "large" if length > high / third else ""


def _check_names(key: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not given:
        raise UserError(f"aerial.{key}: none given; choose among {', '.join(known)}")
    for name in given:
        if name not in known:
            raise UserError(f"aerial.{key}: unknown `{name}`{did_you_mean(name, known)} ({', '.join(known)})")
    if len(set(given)) < len(given):
        raise UserError(f"aerial.{key}: the same name twice in {', '.join(given)}; give each once")
