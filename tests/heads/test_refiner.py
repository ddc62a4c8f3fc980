import pytest
import torch
from torch.testing import assert_close

from boresight.core.relative import turned_boxes, turned_maps
from boresight.heads.refiner import EdgeProfiles, ReferenceHead, RefineHead, Trunk

GRID = 8
BOX = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.3, 0.2, 0.6, 0.9]])


def head(**more) -> RefineHead:
    torch.manual_seed(0)
    return RefineHead((5, 3), grid=GRID, width=16, depth=2, **more)


def seen(count: int = 2, seed: int = 1) -> dict:
    random = torch.Generator().manual_seed(seed)
    return {
        "pooled": [torch.randn(count, 8, GRID, GRID, generator=random) for _ in range(2)],  # half of the width
        "patch": torch.randn(count, 3, 4 * GRID, 4 * GRID, generator=random),
        "box": BOX[:count],
        "size": torch.tensor([[20.0, 10.0], [300.0, 200.0]])[:count],
        "labels": torch.tensor([0, -1])[:count],
    }


@pytest.mark.parametrize("regression", ["edges", "deltas"])
def test_a_fresh_head_leaves_the_box_nearly_where_it_is_and_is_undecided(regression):
    one = head(regression=regression)
    look = one(**seen())
    assert_close(look.boxes, BOX, atol=0.02, rtol=0)
    decision = one.decision(look, look, BOX, look.boxes)
    assert torch.equal(decision, torch.zeros(2))


@pytest.mark.parametrize("regression", ["edges", "deltas"])
def test_every_parameter_learns(regression):
    one = head(regression=regression, classes=2)
    look = one(**seen())
    decision = one.decision(look, look, BOX, look.boxes)
    maps = [[torch.randn(5, 4, 6), torch.randn(3, 2, 3)], [torch.randn(5, 3, 3), torch.randn(3, 2, 2)]]
    few = sum(level.sum() for image in one.trunk.reduced(maps) for level in image)
    (look.boxes.sum() + look.quality.sum() + decision.sum() + few).backward()
    last = ("edges.out", "deltas.out", "decide.2", "named", "edges.spread")  # what comes before them starts behind a 0
    grads = {n: p.grad for n, p in one.named_parameters()}
    assert not [n for n, g in grads.items() if g is None or not g.isfinite().all()]
    assert not [n for n, g in grads.items() if n.startswith(last) and not g.any()]


def test_boxes_of_a_batch_do_not_see_each_other():
    one, given = head().eval(), seen()
    together = one(**given)
    for i in range(2):
        single = {k: [x[i : i + 1] for x in v] if isinstance(v, list) else v[i : i + 1] for k, v in given.items()}
        assert_close(one(**single).boxes, together.boxes[i : i + 1], atol=1e-5, rtol=1e-5)
        assert_close(one(**single).quality, together.quality[i : i + 1], atol=1e-5, rtol=1e-5)


def test_maps_of_one_size_and_of_several_are_reduced_alike():
    trunk = head().trunk
    one, two = [torch.randn(5, 4, 6), torch.randn(3, 2, 3)], [torch.randn(5, 4, 6), torch.randn(3, 2, 2)]
    together = trunk.reduced([one, two])
    assert [[tuple(x.shape) for x in image] for image in together] == [[(8, 4, 6), (8, 2, 3)], [(8, 4, 6), (8, 2, 2)]]
    for image, alone in zip(together, (trunk.reduced([one])[0], trunk.reduced([two])[0]), strict=True):
        for x, y in zip(image, alone, strict=True):
            assert_close(x, y, atol=1e-6, rtol=1e-5)


def test_no_box_is_no_answer():
    given = {k: [x[:0] for x in v] if isinstance(v, list) else v[:0] for k, v in seen().items()}
    look = head()(**given)
    assert look.boxes.shape == (0, 4)
    assert look.edges.shape == (0, 4, 2 * GRID)


def test_a_class_enters_where_it_is_asked_for_and_unknown_ones_are_one():
    one = head(classes=2)
    torch.nn.init.normal_(one.named.weight)
    torch.nn.init.normal_(one.edges.out.weight)
    given = seen() | {"box": BOX[:1].expand(2, 4)}
    given["pooled"] = [x[:1].expand(2, -1, -1, -1) for x in given["pooled"]]
    given["patch"], given["size"] = given["patch"][:1].expand(2, -1, -1, -1), given["size"][:1].expand(2, 2)

    def boxes(*labels: int) -> torch.Tensor:
        return one(**given | {"labels": torch.tensor(labels)}).boxes

    assert not torch.allclose(*boxes(0, 1), atol=1e-4)
    assert_close(*boxes(-1, 7))  # a class that was never trained is a class unknown


def test_edges_follow_a_distribution():
    torch.manual_seed(0)
    profiles = EdgeProfiles(16, GRID, 40)
    with torch.no_grad():
        profiles.spread.fill_(-3.5)
    logits, found = profiles(torch.zeros(2, 16, GRID, GRID), BOX)
    assert logits.shape == (2, 4, 40)
    assert_close(found, BOX, atol=2e-3, rtol=0)
    assert_close((logits.softmax(-1) * profiles.places).sum(-1), found)


def test_profiles_read_x_and_y_alike():
    """The same picture, transposed, has its edges transposed."""
    torch.manual_seed(0)
    profiles, x = EdgeProfiles(16, GRID, 16), torch.randn(1, 16, GRID, GRID)
    torch.nn.init.normal_(profiles.out.weight)
    turn = torch.tensor([4])
    one = profiles(x, BOX[:1])[1]
    two = profiles(turned_maps(x, turn), turned_boxes(BOX[:1], turn))[1]
    assert_close(turned_boxes(one, turn), two, atol=1e-5, rtol=1e-5)


def test_channels_are_left_out_in_training_alone():
    one, plain = head(dropout=0.5), head()
    plain.load_state_dict(one.state_dict())
    assert_close(one.eval()(**seen()).quality, plain.eval()(**seen()).quality, atol=0, rtol=0)
    one.train()
    first, second = one(**seen()).quality, one(**seen()).quality
    assert not torch.equal(first, second)


def test_a_trunk_must_have_something_to_read():
    with pytest.raises(ValueError, match="features or pixels"):
        Trunk((), grid=4, width=16, pixels=False, depth=1)


def test_only_a_deciding_head_decides():
    one = head(decides=False)
    look = one(**seen())
    with pytest.raises(ValueError, match="decides=False"):
        one.decision(look, look, BOX, BOX)


def test_the_reference_is_bounded_and_starts_small():
    torch.manual_seed(0)
    reference = ReferenceHead((5, 3), grid=GRID, reach=50.0).eval()
    widths = [m.out_features for m in reference.mlp if isinstance(m, torch.nn.Linear)]
    assert widths == [256, 128, 64, 4]
    assert [m.p for m in reference.mlp if isinstance(m, torch.nn.Dropout)] == [0.2, 0.1]
    assert float(reference.mlp[8].weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    given = [torch.randn(2, c, GRID, GRID) for c in (5, 3)]
    moved = reference(given)
    assert moved.shape == (2, 4)
    assert float(moved.detach().abs().max()) < 5
    with torch.no_grad():
        reference.mlp[8].bias.fill_(100.0)
    assert_close(reference(given).detach(), torch.full((2, 4), 50.0))
