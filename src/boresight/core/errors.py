"""The exceptions that the command line turns into one line and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_LINE = 2000
"""Characters of a message; of a longer one the middle is left out. Names in a file may be of any length."""


def one_line(text: str) -> str:
    """The text as one line that a terminal shows and does not obey.

    Blanks and line ends become single blanks; other characters that are not printable (escape sequences, marks that
    turn the direction of writing, halves of surrogate pairs) become their escapes, so that the line can be written to
    any stream of UTF-8. Beyond :data:`LONGEST_LINE` characters the middle is left out.
    """
    if len(text) > 4 * LONGEST_LINE:
        text = f"{text[: 2 * LONGEST_LINE]} ... {text[-2 * LONGEST_LINE :]}"
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    if len(line) <= LONGEST_LINE:
        return line
    half = LONGEST_LINE // 2
    return f"{line[: half - 3]} ... {line[-(half - 2) :]}"


class _Told(Exception):
    """An exception whose text is one line, whatever was put into it."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class UserError(_Told):
    """A mistake in what the user gave: one line that names the file, key or value, and the remedy.

    The command line prints the message alone (no traceback) and exits with status 2.
    """


class Failure(_Told):
    """The work cannot go on, and not because of what was given; the command line prints the line and exits with 1."""


class Stopped(_Told):
    """The user stopped the work, and what was done is saved; the command line prints the line and exits with 130."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``": did you mean `neighbour`?"``, or an empty string when nothing known is near ``word``."""
    if len(word) > LONGEST_NAME:
        return ""  # comparing takes the square of the length
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean `{near[0]}`?" if near else ""


LONGEST_NAME = 200
"""Characters of a word for which a neighbour is looked for."""
