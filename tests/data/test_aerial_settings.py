from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boresight.core.errors import UserError
from boresight.data.aerial_settings import (
    COLOURS,
    KINDS,
    SIZE_FACTOR,
    AerialSettings,
    compositions,
    held_out,
    held_out_colour,
)


def test_compositions_are_listed_kind_by_kind() -> None:
    assert compositions(("ship", "truck"), ("red", "blue")) == ("red ship", "blue ship", "red truck", "blue truck")
    assert len(set(compositions())) == 50


# What training never sees


def test_every_kind_misses_one_colour_and_every_colour_two_kinds() -> None:
    assert Counter(pair.split(" ", 1)[0] for pair in held_out()) == dict.fromkeys(COLOURS, 2)
    assert sorted(pair.split(" ", 1)[1] for pair in held_out()) == sorted(KINDS)
    assert held_out() <= set(compositions())


@given(st.sets(st.sampled_from(KINDS), min_size=1), st.sets(st.sampled_from(COLOURS), min_size=1), st.randoms())
def test_a_subset_holds_out_what_the_full_table_does(kinds: set[str], colours: set[str], order: Any) -> None:
    some, few = list(kinds), list(colours)
    order.shuffle(some)
    order.shuffle(few)
    assert held_out(tuple(some), tuple(few)) == held_out() & set(compositions(tuple(some), tuple(few)))


def test_pairs_are_split_without_rest() -> None:
    settings = AerialSettings(kinds=("ship", "aircraft", "truck"), colours=("white", "red", "blue"))
    assert sorted(settings.base_pairs + settings.novel_pairs) == sorted(settings.pairs)
    assert {f"{c} {k}" for k, c in settings.novel_pairs} == held_out(settings.kinds, settings.colours)
    assert settings.novel_pairs
    whole = AerialSettings(hold_out=False)
    assert whole.base_pairs == whole.pairs
    assert whole.novel_pairs == ()


# Labels and sizes


@pytest.mark.parametrize("classes", ["kinds", "compositions"])
def test_a_label_points_at_the_name(classes: Any) -> None:
    settings = AerialSettings(kinds=("ship", "bridge"), colours=("blue", "red", "black"), classes=classes)
    for kind, colour in settings.pairs:
        name = settings.class_names[settings.label(kind, colour)]
        assert name == (kind if classes == "kinds" else f"{colour} {kind}")


def test_size_words_are_thirds_of_the_kinds_range() -> None:
    settings = AerialSettings(scale=(10.0, 80.0))  # thirds in the logarithm: 10, 20, 40, 80
    for kind in KINDS:
        words = [settings.size_word(kind, SIZE_FACTOR[kind] * size) for size in (10, 19.9, 20.1, 39.9, 40.1, 80)]
        assert words == ["small", "small", "", "", "large", "large"]
    narrow = AerialSettings(scale=(20.0, 25.0))
    assert {narrow.size_word("ship", size) for size in (22.0, 27.5)} == {""}


# What cannot be


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kinds": ("shipp",)}, "aerial.kinds: unknown `shipp`: did you mean `ship`?"),
        ({"colours": ("red", "yelow")}, "aerial.colours: unknown `yelow`: did you mean `yellow`?"),
        ({"kinds": ()}, "aerial.kinds: none given"),
        ({"kinds": ("ship", "ship")}, "aerial.kinds: the same name twice"),
        ({"objects": (5, 2)}, "aerial.objects: .5, 2. is no range"),
        ({"objects": (0, 2)}, "aerial.objects"),
        ({"distractors": (-1, 2)}, "aerial.distractors"),
        ({"scale": (3.0, 20.0)}, "aerial.scale: .3.0, 20.0. is no range"),
        ({"scale": (40.0, 20.0)}, "aerial.scale"),
        ({"scale": (20.0, 200.0)}, "aerial.scale: a bridge of 250 px is too long for 256x256; give at most 123"),
        ({"occlusion": 1.5}, "aerial.occlusion: 1.5 is no share"),
        ({"novel_share": -0.1}, "aerial.novel_share: -0.1 is no share"),
        ({"height": 8}, "aerial.height: 8 is outside 32 to 8192"),
        ({"classes": "kind"}, "aerial.classes: `kind` is unknown: did you mean `kinds`?"),
        ({"kinds": ("ship",), "colours": (held_out_colour("ship"),)}, "aerial.hold_out: every chosen"),
        ({"hold_out": False, "novel_share": 0.5}, "aerial.novel_share: no composition is held out"),
    ],
)
def test_impossible_settings_name_their_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        AerialSettings(**changes)
    assert "\n" not in str(caught.value)


def test_settings_import_no_torch() -> None:
    code = "import sys, boresight.data.aerial_settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
