"""Faults that cost somebody a training, each planted in a real system, and the rules that must fire on it.

`FAULTS` is a plain tuple, so that tests and experiments go through the same list: ``fault.health(folder)`` plants the
fault, trains in ``folder`` (seconds on a CPU) and returns what the rules say. `experiments/faults.py` finds this folder
beside itself; tests put `experiments/` on the path.
"""

from planted.inputs import IMAGES, TRUTH
from planted.labels import LABELS
from planted.loop import OPTIMISER, USE
from planted.losses import LOSSES, TARGETS
from planted.places import PLACES, SPEED, WEIGHTS
from planted.targets import EVERYWHERE, TAUGHT
from planted.tiny import Fault

FIRST: tuple[Fault, ...] = (*LOSSES, *TARGETS, *PLACES, *WEIGHTS, *SPEED, *LABELS)
MORE: tuple[Fault, ...] = (*IMAGES, *TRUTH, *OPTIMISER, *USE, *TAUGHT)
FAULTS: tuple[Fault, ...] = (*FIRST, *MORE)


def in_tests() -> tuple[Fault, ...]:
    """Of the faults that a rule must name: all that were planted first, and of the others one for each further rule."""
    known = {rule for fault in FIRST for rule in fault.rules}
    chosen = [fault for fault in FIRST if fault.rules]
    for fault in (*MORE, *EVERYWHERE):
        if not set(fault.rules) <= known:
            chosen.append(fault)
            known |= set(fault.rules)
    return tuple(chosen)


def rules_planted() -> dict[str, tuple[str, ...]]:
    """Every fault by name, with the rules that must fire on it."""
    return {fault.name: fault.rules for fault in FAULTS}
