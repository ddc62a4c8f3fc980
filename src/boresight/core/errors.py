"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: one line that names the file, key or value, and the remedy.

    The command line prints the message alone (no traceback) and exits with status 2.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``": did you mean `neighbour`?"``, or an empty string when nothing known is near ``word``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean `{near[0]}`?" if near else ""
