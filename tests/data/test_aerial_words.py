from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from boresight.data.aerial_layout import Made
from boresight.data.aerial_settings import COLOURS, KINDS
from boresight.data.aerial_words import FRAMES, GROUND_WORDS, NUMBERS, SYNONYMS, plural, sentence

_KIND_OF = {word: kind for kind in KINDS for word in (kind, *SYNONYMS[kind])}
_KIND_OF |= {plural(word): kind for word, kind in _KIND_OF.items()}
_NOUNS = "|".join(sorted(map(re.escape, _KIND_OF), key=len, reverse=True))
_THING = re.compile(
    rf"\b(?P<count>an?|{'|'.join(NUMBERS)}|\d+) (?:(?P<size>small|large) )?(?:(?P<colour>{'|'.join(COLOURS)}) )?"
    rf"(?P<noun>{_NOUNS})\b"
)


def parse(text: str) -> Counter[tuple[str, str, str]]:
    """Read a caption back: how many of each (size, colour, kind) it names; a word that is left out is empty."""
    found: Counter[tuple[str, str, str]] = Counter()
    for hit in _THING.finditer(text):
        word = hit["count"]
        count = 1 if word in ("a", "an") else NUMBERS.index(word) if word in NUMBERS else int(word)
        assert (count == 1) == (hit["noun"] in KINDS or hit["noun"] in sum(SYNONYMS.values(), ())) or (
            _KIND_OF[hit["noun"]] == "aircraft"
        )
        found[hit["size"] or "", hit["colour"] or "", _KIND_OF[hit["noun"]]] += count
    return found


def made(kind: str, colour: str, size: str = "", ground: str = "water") -> Made:
    return Made(kind, colour, size, ground, 0, (0, 0, 9, 9), 1.0, 20.0)


SCENE = (
    made("ship", "red", "small"), made("storage tank", "white"), made("storage tank", "white", "large"),
    made("aircraft", "blue"), made("truck", "black", "small"), made("truck", "black", "small"),
)  # fmt: skip


@pytest.mark.parametrize("k", range(60))
def test_a_sentence_names_exactly_what_is_there(k: int) -> None:
    text = sentence(np.random.default_rng(k), SCENE, ("water",))
    named = parse(text)
    sizes, colours = any(s for s, _, _ in named), any(c for _, c, _ in named)
    there = Counter((m.size if sizes else "", m.colour if colours else "", m.kind) for m in SCENE)
    assert named == there, text
    rest = _THING.sub("*", text)
    assert not any(word in rest for word in (*COLOURS, *KINDS)), text


def test_sentences_vary() -> None:
    texts = {sentence(np.random.default_rng(k), SCENE, ("water",)) for k in range(60)}
    assert len(texts) == 60
    assert any("red" not in t for t in texts)
    assert any("small" not in t for t in texts)
    assert any("water" in t for t in texts)
    assert any("water" not in t for t in texts)
    single = {sentence(np.random.default_rng(k), SCENE[:1], ("water",)) for k in range(200)}
    assert {"a red ship", "an aerial photo of a small red ship"} <= single


def test_one_ground_is_said_only_of_things_that_all_lie_on_it() -> None:
    both = (made("ship", "red", ground="water"), made("ship", "blue", ground="grass"))
    words = [w for forms in GROUND_WORDS.values() for w in forms]
    for k in range(60):
        text = sentence(np.random.default_rng(k), both, ("water", "grass"))
        assert not any(w in text for w in words), text


def test_grammar() -> None:
    assert plural("aircraft") == "aircraft"
    assert plural("lorry") == "lorries"
    for k in range(100):
        text = sentence(np.random.default_rng(k), (made("aircraft", "red"), *[made("vehicle", "red")] * 14), ("soil",))
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou ]", text), text
        assert re.search(r"\b14 (red )?(vehicles|cars)\b", text), text


def test_an_empty_scene_names_its_grounds_and_no_thing() -> None:
    for k in range(40):
        text = sentence(np.random.default_rng(k), (), ("grass", "water"))
        assert "grass and water" in text
        assert not parse(text)
    assert all(frame.count("{}") == 1 for frame in FRAMES)
