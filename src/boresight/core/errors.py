"""The exceptions that the command line turns into one line and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: one line that names the file, key or value, and the remedy.

    The command line prints the message alone (no traceback) and exits with status 2.
    """


class Failure(Exception):
    """The work cannot go on, and not because of what was given; the command line prints the line and exits with 1."""


class Stopped(Exception):
    """The user stopped the work, and what was done is saved; the command line prints the line and exits with 130."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``": did you mean `neighbour`?"``, or an empty string when nothing known is near ``word``."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean `{near[0]}`?" if near else ""
