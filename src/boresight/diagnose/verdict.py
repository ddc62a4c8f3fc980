"""One word for why a detector fails, the figures that decided, and what would overturn it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from boresight.diagnose.finding import Finding
from boresight.diagnose.gains import ENOUGH
from boresight.evaluate.estimate import Drawn, Estimate

Word = Literal[
    "classification",
    "box",
    "score",
    "assignment",
    "background",
    "threshold",
    "data",
    "several",
    "healthy",
    "too few to tell",
]

OBJECTS = 50
"""Objects that there must be: with fewer, one more or less found is worth a word."""
NEARLY = 0.8
"""A repair that gains so much of what the best one gains explains it as well."""
WORTH = 0.02
"""A gain in AP50 (or F1) below this is not worth a word: two seeds differ by as much."""
HEALTHY = 0.05
"""Where no repair gains this much, nothing is wrong that could be named."""
SOUND = 0.2
"""Below this AP50 something is wrong, also where no one repair helps: several things, or nothing was learned."""
TRAPS = frozenset({"background-trap", "no-better-than-constant"})
"""Findings of a score that learned nothing but how rare objects are."""

ORACLE_WORDS: dict[str, Word] = {
    "inputs": "data",
    "threshold": "threshold",
    "duplicates": "threshold",
    "assignment": "assignment",
    "background": "background",
    "class": "classification",
    "score": "score",
    "box": "box",
}
"""Which oracle speaks for which word, from the most particular repair to the most general one."""


@dataclass(frozen=True)
class Verdict:
    """What to look at.

    Attributes:
        word: in one word.
        sentence: in one sentence.
        overturn: what would change it.
        repair: the oracle whose gain decided; None where none did.
        figures: those that decided, by name.
        runner_up: the word that came second; None where there is none.
        clear: whether the first is clearly ahead of the second (95 %, by image).
    """

    word: Word
    sentence: str
    overturn: str
    figures: dict[str, Any]
    runner_up: str | None = None
    clear: bool = False
    repair: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def judge(
    gains: Mapping[str, Drawn],
    *,
    ap50: Estimate,
    counts: Mapping[str, int],
    findings: Sequence[Finding] = (),
    figures: tuple[str, str] = ("AP50", "AP"),
    shown: str | None = None,
) -> Verdict:
    """Apply the rule.

    Args:
        gains: by oracle, from :func:`boresight.diagnose.gains.for_the_verdict`.
        ap50: as it is.
        counts: what the figures rest on: ``objects`` and ``emitted`` boxes.
        findings: of the training's health and of the data.
        figures: what is gained: the name of ``ap50`` and, where boxes are loose, of what a box gains instead; one name
            twice where there is no other.
        shown: of the gain ``inputs``: on which images the detector does better, as in "on images ...".

    The rule, in this order. (1) An error that the data or the geometry between data and output show is *data*: no
    other figure means anything then. (2) Fewer than 50 objects: *too few to tell*. (3) Repairs count that are worth
    0.05 with an interval above 0.02; where fewer than 200 boxes are emitted only the threshold does, and else it is
    *too few to tell*. The word is that of the largest gain, or of a more particular repair that gains four fifths of
    it: a score made true repairs nearly everything, and says little where a threshold or an untrained cell explains
    the same; and where it repairs as much as true boxes would, good boxes are there and are not chosen. Another form of
    the images must not repair surely less than the best of them. (4) Else
    *healthy*, unless AP50 is below 0.2: then it is *background* where a rule saw that the score learned nothing but how
    rare objects are, and *several* (things at once, or nothing was learned) where none did.
    """
    if data := [f for f in findings if f.severity == "error" and f.id in DATA_RULES]:
        return _data(data[0])
    if counts["objects"] < OBJECTS:
        return _too_few("objects", counts["objects"], OBJECTS, counts, ap50)
    few = counts["emitted"] < ENOUGH
    if few and not ("threshold" in gains and _above(gains["threshold"].estimate(), HEALTHY)):
        return _too_few("emitted boxes", counts["emitted"], ENOUGH, counts, ap50)
    table = {name: drawn for name, drawn in gains.items() if name in ORACLE_WORDS and (name == "threshold" or not few)}
    worth = [name for name in ORACLE_WORDS if name in table and _above(table[name].estimate(), HEALTHY)]
    if not worth and ap50.value is not None and ap50.value < SOUND:
        return _several(table, ap50, figures[0], [f for f in findings if f.severity == "error" and f.id in TRAPS])
    if not worth:
        return _healthy(table, ap50, figures[0])
    most = max(table[name].value for name in worth)
    if "inputs" in worth and _falls_short(table, worth):
        worth.remove("inputs")
    first = next(name for name in worth if table[name].value >= NEARLY * most)
    return _named(table, first, ap50, figures, {"inputs": f"on images {shown}"} if shown else {})


DATA_RULES = frozenset(
    {
        "channels-exchanged",
        "class-ids",
        "classes-permuted",
        "geometry-round-trip",
        "inputs-differ",
        "labels-invalid",
        "labels-off-objects",
        "labels-shifted",
        "padding-shift",
        "split-leak",
        "targets-truncated",
    }
)
"""Findings after which figures of the detector mean nothing."""


def _falls_short(table: Mapping[str, Drawn], worth: Sequence[str]) -> bool:
    """Whether another form of the images surely repairs less than the best repair of the output: it may do so by
    chance, as where classes are colours and were exchanged.
    """
    best = max(worth, key=lambda name: table[name].value)
    behind = table["inputs"].minus(table[best]).estimate()
    return best != "inputs" and behind.interval is not None and behind.interval[1] < 0


def _above(gain: Estimate, least: float) -> bool:
    return gain.value is not None and gain.value >= least and gain.interval is not None and gain.interval[0] > WORTH


def _data(finding: Finding) -> Verdict:
    return Verdict(
        "data",
        f"Look at the data: {finding.title}.",
        f"The rule {finding.id} falls silent: {finding.remedy}.",
        {"finding": finding.to_dict()},
    )


def _too_few(what: str, have: int, need: int, counts: Mapping[str, int], ap50: Estimate) -> Verdict:
    return Verdict(
        "too few to tell",
        f"Too few to tell: {have} {what}, {need} are needed.",
        f"At least {need - have} more {what}: judge more images, or lower the threshold at which boxes are returned.",
        {"ap50": asdict(ap50), "counts": dict(counts)},
    )


def _healthy(table: Mapping[str, Drawn], ap50: Estimate, figure: str) -> Verdict:
    best = max(table, key=lambda n: table[n].value, default=None)
    most = "no repair could be tried" if best is None else f"the best repair ({best}) gains {table[best].estimate()}"
    return Verdict(
        "healthy",
        f"Nothing stands out: {figure} {ap50}, {most}.",
        f"A repair that gains {HEALTHY} of {figure}, its interval above {WORTH}.",
        {"ap50": asdict(ap50), "gains": {n: asdict(d.estimate()) for n, d in table.items()}},
    )


def _several(table: Mapping[str, Drawn], ap50: Estimate, figure: str, traps: Sequence[Finding]) -> Verdict:
    best = max(table, key=lambda name: table[name].value, default=None)
    most = "no repair could be tried" if best is None else f"the best one ({best}) gains {table[best].estimate()}"
    shown = {"ap50": asdict(ap50), "gains": {n: asdict(d.estimate()) for n, d in table.items()}}
    if traps:
        return Verdict(
            "background",
            f"Look at background: {traps[0].title}; {figure} is {ap50}, and {most}.",
            f"The finding `{traps[0].id}` gone, or a repair that gains {HEALTHY} of {figure}.",
            shown,
        )
    return Verdict(
        "several",
        f"No one repair explains that {figure} is {ap50}: {most}. Several things are wrong at once, or nothing was "
        f"learned.",
        f"A repair that gains {HEALTHY} of {figure}, its interval above {WORTH}.",
        shown,
    )


def _named(
    table: Mapping[str, Drawn], first: str, ap50: Estimate, figures: tuple[str, str], said: Mapping[str, str]
) -> Verdict:
    word, gain = ORACLE_WORDS[first], table[first].estimate()
    rest = sorted((n for n in table if n != first), key=lambda n: -table[n].value)
    second = rest[0] if rest else None
    ahead = table[first].minus(table[second]).estimate() if second else None
    clear = ahead is None or (ahead.interval is not None and ahead.interval[0] > 0)
    assert gain.value is not None
    figure, stricter = figures
    others = {} if figure == stricter else {"threshold": f"{figure} or F1", "box": f"{figure} or {stricter}"}
    currency = others.get(first, figure)
    ways = {"duplicates": "without duplicates, which suppression should have dropped", **said}
    what = ways.get(first, "made true")
    told = f"Look at {word}: {what}, {currency} gains {gain} ({figure} is {ap50})"
    if second and ahead:
        beside = f"; {ORACLE_WORDS[second]} would gain {table[second].estimate()}"
        told += beside if clear else f"{beside}, which is not clearly less ({ahead})"
    sure = "another seed whose largest gain is another" if clear else "more images, until the difference leaves out 0"
    return Verdict(
        word,
        told + ".",
        f"A second repair that gains more: {sure}.",
        {
            "ap50": asdict(ap50),
            "gains": {n: asdict(d.estimate()) for n, d in table.items()},
            "lead": None if ahead is None else asdict(ahead),
        },
        runner_up=None if second is None else ORACLE_WORDS[second],
        clear=clear,
        repair=first,
    )
