"""Sentences about an aerial scene: true ones, in many forms. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from boresight.data.aerial_layout import Made

SYNONYMS: dict[str, tuple[str, ...]] = {
    "aircraft": ("airplane", "plane"), "helicopter": ("chopper",), "ship": ("boat", "vessel"),
    "storage tank": ("tank", "oil tank"), "vehicle": ("car",), "truck": ("lorry",), "tennis court": ("court",),
    "swimming pool": ("pool",), "bridge": ("overpass",), "wind turbine": ("windmill",),
}  # fmt: skip
"""Other words for a kind; a tenth of the mentions use one."""

GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "in a field", "on grassland"), "soil": ("on bare soil", "on bare ground", "on dry ground"),
    "asphalt": ("on asphalt", "on tarmac", "on paved ground"), "water": ("on water", "in the water", "over water"),
    "forest": ("in a forest", "among trees", "over trees"),
}  # fmt: skip
"""How a sentence says what lies under things."""

GROUND_NOUNS: dict[str, str] = {
    "grass": "grass", "soil": "bare soil", "asphalt": "asphalt", "water": "water", "forest": "forest"
}  # fmt: skip

NUMBERS: tuple[str, ...] = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
"""The words of counts; beyond twelve a sentence has digits."""

FRAMES: tuple[str, ...] = (
    "an aerial photo of {}", "an aerial image of {}", "a satellite image of {}", "a satellite photo of {}",
    "an overhead view of {}", "a bird's-eye view of {}", "{} seen from above", "a photo of {}", "a picture of {}",
    "an aerial photo that shows {}", "{} in an aerial image", "{}", "a drone photo of {}", "a scene with {}",
)  # fmt: skip
"""What stands around the list of things."""


def sentence(rng: np.random.Generator, objects: Sequence[Made], grounds: Sequence[str]) -> str:
    """Return a sentence that names every object, with its number, and perhaps colours, sizes and what lies under them.

    Args:
        rng: chooses the form.
        objects: what the scene holds.
        grounds: the scene's grounds, for a scene without objects.
    """
    frame = FRAMES[int(rng.integers(len(FRAMES)))]
    if not objects:
        return frame.format(_empty(rng, grounds))
    with_colour, with_size, with_ground = rng.random(3) < (0.85, 0.5, 0.45)
    groups = Counter((o.size if with_size else "", o.colour if with_colour else "", o.kind) for o in objects)
    parts = list(groups)
    parts = [parts[k] for k in rng.permutation(len(parts))]
    phrases = [_phrase(rng, groups[part], *part) for part in parts]
    under = {o.ground for o in objects}
    if with_ground and len(under) == 1:  # a sentence that puts all things on one ground must be true of all
        words = GROUND_WORDS[under.pop()]
        return frame.format(f"{_listed(phrases)} {words[int(rng.integers(len(words)))]}")
    return frame.format(_listed(phrases))


def plural(noun: str) -> str:
    """Return the plural of a kind or of its synonym."""
    return {"aircraft": "aircraft", "lorry": "lorries"}.get(noun, noun + "s")


def _phrase(rng: np.random.Generator, count: int, size: str, colour: str, kind: str) -> str:
    other = SYNONYMS[kind]
    noun = other[int(rng.integers(len(other)))] if rng.random() < 0.1 else kind
    words = " ".join(w for w in (size, colour, noun if count == 1 else plural(noun)) if w)
    if count == 1:
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}" if rng.random() < 0.85 else f"one {words}"
    spelled = count < len(NUMBERS) and rng.random() < 0.85
    return f"{NUMBERS[count] if spelled else count} {words}"


def _listed(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _empty(rng: np.random.Generator, grounds: Sequence[str]) -> str:
    nouns = _listed([GROUND_NOUNS[g] for g in grounds])
    forms = ("{}", "{} with nothing on it", "empty {}", "{} without any object")
    return forms[int(rng.integers(len(forms)))].format(nouns)
