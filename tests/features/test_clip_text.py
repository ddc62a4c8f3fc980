"""Queries: templates, synonyms, the memory, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from boresight.core.errors import UserError
from boresight.features.clip_text import AERIAL_TEMPLATES, CLASSIC_TEMPLATES, PLAIN, TextEncoder


@pytest.fixture
def encoder(tiny_clip):
    return TextEncoder(tiny_clip("tok"))


def by_hand(encoder, text):
    with torch.no_grad():
        row = encoder.clip.model.encode_text(encoder.clip.tokenize([text]))[0]
    return row / row.norm()


def test_plain_is_what_open_clip_gives(encoder):
    found = encoder.embed(["ship", "red car"], PLAIN)
    assert torch.allclose(found, torch.stack([by_hand(encoder, "ship"), by_hand(encoder, "red car")]), atol=1e-6)


def test_templates_are_averaged_between_two_normalisations(encoder):
    mean = torch.stack([by_hand(encoder, t.replace("{}", "ship")) for t in AERIAL_TEMPLATES]).mean(0)
    assert torch.allclose(encoder.embed(["ship"])[0], mean / mean.norm(), atol=1e-6)
    assert encoder.embed(["ship"]).norm().item() == pytest.approx(1, abs=1e-6)
    assert not torch.allclose(encoder.embed(["ship"]), encoder.embed(["ship"], CLASSIC_TEMPLATES), atol=1e-3)


def test_synonyms_weigh_the_same(encoder):
    both = encoder.embed(["ship", "boat"])
    mean = both.mean(0) / both.mean(0).norm()
    for form in ("ship|boat", "ship | boat", ["ship", "boat"], "ship|boat|ship"):
        assert torch.allclose(encoder.embed([form])[0], mean, atol=1e-6)


def test_a_row_depends_on_its_own_class(encoder, tiny_clip):
    names = [f"thing number {i}" for i in range(10)]
    together = encoder.embed(names)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    fresh = TextEncoder(tiny_clip("tok"), chunk=7)
    assert torch.allclose(fresh.embed([names[i] for i in order]), together[order], atol=1e-6)
    assert torch.equal(encoder.embed(["thing number 3"])[0], together[3])
    twice = encoder.embed(["thing number 3", "thing number 3"])
    assert torch.equal(twice[0], twice[1])


def test_a_thousand_queries_in_chunks_each_once(encoder, monkeypatch):
    sizes = []
    real = encoder.clip.encode_tokens
    monkeypatch.setattr(encoder.clip, "encode_tokens", lambda tokens: sizes.append(len(tokens)) or real(tokens))
    found = encoder.embed([f"kind {i}" for i in range(1000)], PLAIN)
    assert found.shape == (1000, 24)
    assert found.isfinite().all()
    assert sizes == [256, 256, 256, 232]
    encoder.embed([f"kind {i}" for i in range(1001)], PLAIN)
    assert sizes[4:] == [1]


def test_braces_in_a_query_are_only_text(encoder):
    assert encoder.embed(["a {thing}"]).isfinite().all()


def test_the_empty_prompt(encoder):
    mean = torch.stack([by_hand(encoder, t.replace("{}", "")) for t in CLASSIC_TEMPLATES]).mean(0)
    assert torch.allclose(encoder.empty(CLASSIC_TEMPLATES), mean / mean.norm(), atol=1e-6)


@pytest.mark.parametrize("query", ["", "  ", "\u200b", "\n\t", "ship|", "|", "ship| \u2060"])
def test_a_query_without_a_word_is_named(encoder, query):
    with pytest.raises(UserError, match="no word in it") as caught:
        encoder.embed(["ship", query])
    assert repr(query.split("|")[-1].strip()) in str(caught.value)


def test_what_a_tokenizer_drops_is_no_word_either(encoder, monkeypatch):
    real = encoder.clip.tokenize
    monkeypatch.setattr(
        encoder.clip, "tokenize", lambda texts, length=None: real([t.replace("!", "") for t in texts], length)
    )
    with pytest.raises(UserError, match="'!!'"):
        encoder.embed(["!!"])


def test_empty_lists_are_refused(encoder):
    for bad in ([], (), "ship"):
        with pytest.raises(UserError, match="at least one class name"):
            encoder.embed(bad)
    with pytest.raises(UserError, match="empty list of names"):
        encoder.embed(["ship", []])


def test_a_query_that_would_be_cut_is_refused(encoder):
    exact = " ".join(["ship"] * 14)  # start, 14 words, end: the 16 tokens of this model
    assert encoder.embed([exact], PLAIN).isfinite().all()
    for words in (15, 20, 200):
        with pytest.raises(UserError, match="longer than the 16 tokens"):
            encoder.embed(["car", " ".join(["ship"] * words)], PLAIN)


def test_templates_are_checked(encoder):
    with pytest.raises(UserError, match=r"'a photo': has no \{\}"):
        encoder.embed(["ship"], ["a photo"])
    for bad in ([], "a {}"):
        with pytest.raises(UserError, match="list of sentences"):
            encoder.embed(["ship"], bad)


def test_a_tokenizer_of_another_model_is_noticed(tiny_clip):
    clip = tiny_clip("tok")
    clip.model.vocab_size = 300
    with pytest.raises(UserError, match="its text tower knows 300 words"):
        TextEncoder(clip).embed(["ship"])


def test_a_copy_shares_the_memory(encoder):
    assert copy.deepcopy(encoder) is encoder
