"""Rules over what is returned: from the stored weights, each object once, and with scores over the whole range."""

from __future__ import annotations

from boresight.core.emission import Missing
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Reload, Returned
from boresight.diagnose.rule import Rule

FEW = 20
"""Detections from which a share is worth saying."""
TWINS = 0.1
"""Share of the detections that are used and lie under a better one of their class."""
MANY = 50
"""Detections from which the range of their scores is worth saying."""
SQUEEZED = (0.5, 0.7311)
"""What the sigmoid makes of 0 and of 1."""
OTHER = (0.02, 0.1)
"""Gap of the validation figure between training and now: a warning, an error. On the same machine it is 0."""


def reload_differs(reload: Reload, plan: Plan) -> list[Finding] | Missing:
    """The detector that is used is not the one that was judged and stored."""
    known = reload.stored is not None and reload.now is not None
    gap = abs(reload.stored - reload.now) if reload.stored is not None and reload.now is not None else 0.0
    if not reload.changed and not known and not reload.tensors:
        return Missing("no weights are stored")
    if not reload.changed and gap <= OTHER[0]:
        return []
    return [
        Finding(
            "reload-differs",
            "error" if reload.changed or gap > OTHER[1] else "warning",
            "weights are not those that were stored"
            if reload.changed
            else f"the same weights and images give another {plan.score} than in training",
            {"weights that changed": reload.changed, "at most": 0, "figure in training": reload.stored}
            | {"now": reload.now, "may differ by at most": OTHER[0]}
            | ({"worst": reload.worst} if reload.changed else {}),
            "a layer is set up again after loading, or inference writes into it"
            if reload.changed
            else "validation in training and inference afterwards prepare images, boxes or scores in two ways",
            "load last, and compare the loaded weights with the file"
            if reload.changed
            else "judge both with one function, and compare one image step by step",
            {},
            0.95,
            "a head whose bias is set in its constructor and again after loading",
        )
    ]


def duplicates(returned: Returned, plan: Plan) -> list[Finding] | Missing:
    """One object is returned several times."""
    if returned.used < FEW:
        return Missing(f"{returned.used} detections pass the threshold, {FEW} are needed")
    share = returned.twins / returned.used
    if share <= TWINS:
        return []
    return [
        Finding(
            "duplicates-kept",
            "warning",
            f"{share:.0%} of the detections lie under a better one of their class",
            {"share": share, "at most": TWINS, "detections": returned.used},
            "nothing is suppressed, or only what overlaps nearly wholly",
            "suppress what overlaps a better box of its class by half",
            plan.change({"decode.nms": 0.5}),
            0.9,
            "a suppression limit of 1",
        )
    ]


def squeezed(returned: Returned, plan: Plan) -> list[Finding] | Missing:
    """Every score lies where the sigmoid takes what is already between 0 and 1."""
    if not plan.scored:
        return Missing("no score is trained")
    if returned.count < MANY:
        return Missing(f"{returned.count} detections are returned, {MANY} are needed")
    if returned.low < SQUEEZED[0] - 1e-4 or returned.high > SQUEEZED[1] + 1e-4:
        return []
    return [
        Finding(
            "scores-squeezed",
            "warning",
            "every score lies between 0.5 and 0.731: the sigmoid was taken twice",
            {
                "least score": returned.low,
                "less than": SQUEEZED[0],
                "largest": returned.high,
                "or more than": SQUEEZED[1],
            },
            "the head returns probabilities, and the decoder takes them for logits",
            "take the sigmoid in one place",
            {},
            0.9,
            "a loss with logits on probabilities",
        )
    ]


FOUND_RULES = (
    Rule("reload-differs", lambda e: e.probe.reload, reload_differs),
    Rule("duplicates-kept", lambda e: e.probe.returned, duplicates),
    Rule("scores-squeezed", lambda e: e.probe.returned, squeezed),
)
