"""The frames kept in memory."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.core.types import Points, Scene
from boresight.data.memory import InMemory


class Frames:
    """Ten frames of 4 kB (8 kB with their mask), which count how often each is read."""

    names = tuple(f"{i}.png" for i in range(10))

    def __init__(self, masked=False):
        self.masked, self.read = masked, []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.read.append(index)
        if index >= 10:
            raise IndexError(index)
        mask = torch.zeros(20, 50, dtype=torch.int32) if self.masked else None
        return Scene(torch.full((1, 20, 50), float(index)), self.names[index], points=Points.of([], mask=mask))


def test_a_frame_is_read_once():
    frames = Frames()
    kept = InMemory(frames, 1.0)
    first = [kept[i] for i in (3, 5, 3, 3, 5)]
    assert frames.read == [3, 5]
    assert first[0] is first[2]
    assert [s.name for s in first] == ["3.png", "5.png", "3.png", "3.png", "5.png"]


def test_the_least_recently_used_goes_first():
    frames = Frames()
    kept = InMemory(frames, 0.012)  # three frames
    for i in (0, 1, 2, 0, 3):  # 1 is the one not asked for longest
        kept[i]
    assert list(kept.kept) == [2, 0, 3]
    kept[1]
    assert frames.read == [0, 1, 2, 3, 1]


def test_masks_count():
    kept = InMemory(Frames(masked=True), 0.012)
    for i in range(4):
        kept[i]
    assert len(kept.kept) == 1
    assert kept.held == 8000


def test_a_frame_larger_than_the_limit_is_still_given():
    kept = InMemory(Frames(), 0.0)
    assert [int(kept[i].image[0, 0, 0]) for i in (4, 4, 7)] == [4, 4, 7]
    assert len(kept.kept) == 1


@given(st.lists(st.integers(0, 9), max_size=40), st.floats(0, 0.05))
def test_what_comes_out_is_what_the_source_has_and_the_limit_holds(wanted, megabytes):
    source = Frames()
    kept = InMemory(source, megabytes)
    for i in wanted:
        assert torch.equal(kept[i].image, source[i].image)
        assert kept.held == sum(s.image.nbytes for s in kept.kept.values())
        assert kept.held <= max(megabytes * 1e6, 4000)


def test_it_stands_in_for_its_source():
    source = Frames()
    kept = InMemory(source, 1.0)
    assert len(kept) == 10
    assert kept.names == source.names
    assert [s.name for s in kept] == list(source.names)  # an IndexError ends the iteration, as in the source
