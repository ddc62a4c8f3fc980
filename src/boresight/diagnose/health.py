"""Is a training run healthy? All rules, each from a fault that cost somebody a training, and what they say together.

`RULES` is a plain tuple: a new rule is a new function and one more entry. `LIVE_RULES` are those that need nothing but
what the training loop has on the host anyway, so that they can be asked while it runs.
"""

from __future__ import annotations

from typing import Any

from boresight.diagnose.evidence import Evidence
from boresight.diagnose.rule import Health, Rule, judged
from boresight.diagnose.rules_assigned import ASSIGNED_RULES
from boresight.diagnose.rules_course import COURSE_RULES
from boresight.diagnose.rules_found import FOUND_RULES
from boresight.diagnose.rules_gradient import GRADIENT_RULES
from boresight.diagnose.rules_images import IMAGE_RULES
from boresight.diagnose.rules_labels import LABEL_RULES, UNREAD
from boresight.diagnose.rules_loss import LOSS_RULES
from boresight.diagnose.rules_maps import MAP_RULES
from boresight.diagnose.rules_places import COARSE, PLACE_RULES
from boresight.diagnose.rules_scores import HALF, SCORE_RULES
from boresight.diagnose.rules_speed import SPEED_RULES
from boresight.diagnose.rules_targets import STEP_TARGET_RULES, TALLY_RULES
from boresight.diagnose.rules_truth import TRUTH_RULES
from boresight.diagnose.rules_weights import HASHES, WEIGHT_RULES

LIVE_RULES: tuple[Rule[Any], ...] = (
    *LOSS_RULES,
    *COURSE_RULES,
    *GRADIENT_RULES,
    *STEP_TARGET_RULES,
    *TALLY_RULES,
    *SPEED_RULES,
    HALF,
)
"""Rules over rows of metrics and targets."""

RULES: tuple[Rule[Any], ...] = (
    *LIVE_RULES,
    COARSE,
    HASHES,
    UNREAD,
    *LABEL_RULES,
    *ASSIGNED_RULES,
    *SCORE_RULES,
    *MAP_RULES,
    *PLACE_RULES,
    *WEIGHT_RULES,
    *FOUND_RULES,
    *IMAGE_RULES,
    *TRUTH_RULES,
)
"""Every rule."""


def health(evidence: Evidence, rules: tuple[Rule[Any], ...] = RULES) -> Health:
    """What the rules say: findings, the gravest first; rules that are silent; rules that could not be judged, and why.

    A rule whose evidence is `Missing` is reported as not judged: nothing is guessed.
    """
    return judged(rules, evidence)
