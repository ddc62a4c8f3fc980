"""Damages inputs: bytes, text by its tokens, and JSON values by their structure.

Every function takes a ``random.Random``, a real one or hypothesis's, and never changes what it was given.
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63)
"""Numbers at which formats and programs go over an edge."""

WORDS = (
    *("", " ", "\0", "\n", "\t", "a", "-", "-1", "0", "1", "1.5", "1e308", "-1e308", "1e400", "nan", "inf", "-inf"),
    *("9" * 20, "9" * 400, "9" * 5000, "1_0", "0x10", "٣", "true", "null", "~", "None", "[]", "{}", '"', "'", "#"),
    *("../../etc/passwd", "/etc/passwd", "..\\..\\x", "C:\\x", "\\\\host\\x", "a\0b", ".", "..", "/", "x" * 300),
    *("\ufeff", "\u202e", "é", "😀", "\x1b[2J", "%s%n", "{0.__class__}", "${HOME}", "<b>", "&amp;", "a.png", "b.png"),
)
"""What may stand in any text instead of what is expected."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf")),
    *([], {}, [[]], [None], {"a": None}, [1, 2, 3], [1, 2, 3, 4], [1e308, 1e308, 1e308, 1e308], [-5, -5, -1, -1]),
    *("", "a", "1", "nan", "\ud800", "x" * 5000, "../../etc/passwd", "/etc/passwd", "..\\x", "a\0b", "a.png", "b.png"),
)
"""What may stand anywhere in JSON."""

_TOKEN = re.compile(r"\s+|[\w.+-]+|[^\w\s]")


def mutated_bytes(rng: Random, content: bytes) -> bytes:
    """A few bytes flipped, overwritten, cut out, put in, repeated, or everything after some place gone."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        span = rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTERESTING) % 256**width
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = bytes(rng.randrange(256) for _ in range(min(span, 8)))
        elif kind == 4:
            data[at:at] = data[at : at + span] * rng.choice((1, 2, 100))
        elif kind == 5:
            data[at : at + span] = bytes(rng.randrange(256) for _ in range(len(data[at : at + span])))
        elif rng.randrange(4) == 0:
            del data[at:]
    return bytes(data)


def mutated_text(rng: Random, text: str, words: tuple[str, ...] = ()) -> str:
    """Tokens of a text replaced by others of it or by :data:`WORDS`, dropped, doubled, swapped or repeated often."""
    tokens = _TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, kind = rng.randrange(len(tokens) + 1), rng.randrange(6)
        foreign = rng.choice((*WORDS, *words))
        if kind <= 1:
            tokens[at : at + 1] = [foreign]
        elif kind == 2:
            tokens[at:at] = [foreign]
        elif kind == 3:
            del tokens[at : at + rng.choice((1, 2, 8))]
        elif kind == 4:
            tokens[at:at] = tokens[at : at + rng.choice((1, 4, 16))] * rng.choice((1, 2, 50))
        elif tokens:
            other = rng.randrange(len(tokens))
            tokens[at : at + 1] = [tokens[other]]
    return "".join(tokens)


def mutated_tree(rng: Random, value: Any) -> Any:
    """A JSON value with some of its parts replaced, dropped, doubled, renamed, or nested deeply."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        value = _changed(rng, value, rng.choice(places))
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _places(part, (*path, key))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _places(part, (*path, i))


def _changed(rng: Random, value: Any, path: tuple[Any, ...]) -> Any:
    if len(path) > 1:
        head, rest = path[0], path[1:]
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[head] = _changed(rng, copy[head], rest)
        return copy
    if not path:
        return rng.choice(VALUES) if rng.randrange(8) == 0 else value
    copy, key, kind = (dict(value) if isinstance(value, dict) else list(value)), path[0], rng.randrange(8)
    if kind <= 3:
        copy[key] = rng.choice(VALUES)
    elif kind == 4:
        del copy[key]
    elif kind == 5 and isinstance(copy, list):
        copy[key:key] = [copy[key]] * rng.choice((1, 2, 20))
    elif kind == 5:
        copy[rng.choice(("", "id", "bbox", "x", str(key) + "_"))] = copy.pop(key)
    elif kind == 6:
        inner = copy[key]
        for _ in range(rng.choice((1, 3, 250))):
            inner = [inner]
        copy[key] = inner
    elif isinstance(copy[key], (int, float)) and not isinstance(copy[key], bool):
        number = copy[key]
        scaled = number * 1e9 if abs(number) < 1e290 else 0.5
        copy[key] = rng.choice((-number, scaled, repr(scaled), scaled + 0.5, [number]))
    return copy


def mutated_json(rng: Random, content: bytes) -> bytes:
    """JSON damaged by structure, now and then with a key that stands there twice, else by bytes."""
    if rng.randrange(4) == 0:
        return mutated_bytes(rng, content)
    text = json.dumps(mutated_tree(rng, json.loads(content)))
    if rng.randrange(10) == 0 and "{" in text:
        at = text.index("{", rng.randrange(text.rindex("{") + 1)) + 1
        text = f'{text[:at]}"id": 1, "id": 2{"" if text[at] == "}" else ", "}{text[at:]}'
    return text.encode("utf-8", "surrogatepass")


def mutated_lines(rng: Random, content: bytes, words: tuple[str, ...] = ()) -> bytes:
    """Text damaged by tokens, else by bytes."""
    if rng.randrange(4) == 0:
        return mutated_bytes(rng, content)
    return mutated_text(rng, content.decode(), words).encode("utf-8", "surrogatepass")
