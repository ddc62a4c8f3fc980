"""The systems that can be trained."""

from __future__ import annotations

from boresight.core.errors import UserError, did_you_mean
from boresight.run.localise import LOCALISE
from boresight.run.point import POINT
from boresight.run.recipe import Recipe
from boresight.run.refine import REFINE
from boresight.run.text import TEXT

RECIPES = (POINT, TEXT, LOCALISE, REFINE)


def recipe(name: str) -> Recipe:
    """The recipe of that name; UserError with its neighbour when there is none."""
    for known in RECIPES:
        if known.name == name:
            return known
    names = [r.name for r in RECIPES]
    raise UserError(f"detector `{name}`: not known{did_you_mean(name, names)}; known: {', '.join(names)}")
