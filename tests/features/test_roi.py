import pytest
import torch
from torch.testing import assert_close

from boresight.features.encoder import FeatureMaps
from boresight.features.roi import ImagePyramid, roi_grids


def ramp(rows: int, columns: int, height: float, width: float) -> FeatureMaps:
    """Two channels: x and y of each cell's centre in pixels."""
    x = (torch.arange(columns) + 0.5) * width / columns
    y = (torch.arange(rows) + 0.5) * height / rows
    level = torch.stack((x.expand(rows, columns), y[:, None].expand(rows, columns)))
    return FeatureMaps((level,), torch.tensor([[height, width]]))


@pytest.mark.parametrize("grid", [2, 4, 7])
def test_a_cell_holds_what_lies_under_it(grid):
    """Of a map that says where it is, the pooled grid says where its own cells are."""
    window = torch.tensor([[20.0, 30.0, 62.0, 58.0]])
    (pooled,) = roi_grids([ramp(16, 24, 128.0, 192.0)], [window], grid)
    x = 20 + (torch.arange(grid) + 0.5) * 42 / grid
    y = 30 + (torch.arange(grid) + 0.5) * 28 / grid
    assert_close(pooled[0, 0], x.expand(grid, grid), atol=1e-3, rtol=0)
    assert_close(pooled[0, 1], y[:, None].expand(grid, grid), atol=1e-3, rtol=0)


def test_an_extent_beyond_the_image_is_read_in_its_own_scale():
    """A padded encoder's map covers more than the image: half the cells a pixel."""
    (pooled,) = roi_grids([ramp(10, 10, 100.0, 100.0)], [torch.tensor([[40.0, 40.0, 60.0, 60.0]])], 2)
    (other,) = roi_grids([ramp(10, 20, 100.0, 200.0)], [torch.tensor([[40.0, 40.0, 60.0, 60.0]])], 2)
    assert_close(pooled, other, atol=1e-3, rtol=0)


def test_images_of_different_sizes_do_not_touch_each_other():
    maps = [ramp(8, 8, 64.0, 64.0), ramp(8, 12, 64.0, 96.0)]
    windows = [
        torch.tensor([[40.0, 40.0, 80.0, 80.0]]),
        torch.tensor([[0.0, 0.0, 30.0, 30.0], [60.0, 0.0, 110.0, 50.0]]),
    ]
    (together,) = roi_grids(maps, windows, 4)
    alone = torch.cat([roi_grids([m], [w], 4)[0] for m, w in zip(maps, windows, strict=True)])
    assert torch.equal(together, alone)


def test_an_image_without_windows_gives_none():
    maps = [ramp(8, 8, 64.0, 64.0), ramp(8, 8, 64.0, 64.0)]
    (pooled,) = roi_grids(maps, [torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 8.0, 8.0]])], 3)
    assert pooled.shape == (1, 2, 3, 3)


def test_half_precision_maps_are_read_in_full():
    maps = ramp(8, 8, 64.0, 64.0)
    half = FeatureMaps((maps.levels[0].half(),), maps.extents)
    (pooled,) = roi_grids([half], [torch.tensor([[8.0, 8.0, 40.0, 40.0]])], 2)
    assert pooled.dtype == torch.float32


def test_pixels_come_back_in_about_minus_one_to_one_and_grey_beyond():
    image = torch.full((3, 10, 10), 255, dtype=torch.uint8)
    pooled = ImagePyramid([image]).grids([torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 110.0, 110.0]])], 2)
    assert torch.equal(pooled[0], torch.ones(3, 2, 2))
    assert torch.equal(pooled[1], torch.zeros(3, 2, 2))


def gradient(side: int) -> torch.Tensor:
    """An image that says where it is: x in the first channel, y in the second."""
    x = torch.arange(side).expand(side, side) + 0.5
    return torch.stack((x, x.T, torch.zeros(side, side))) * 255 / side


@pytest.mark.parametrize("side", [64, 256, 1000])
def test_a_large_window_is_read_off_a_smaller_image_in_the_right_place(side):
    window = torch.tensor([[0.2 * side, 0.1 * side, 0.7 * side, 0.9 * side]])
    pooled = ImagePyramid([gradient(side)]).grids([window], 16)[0]
    x = 0.2 + 0.5 * (torch.arange(16) + 0.5) / 16
    y = 0.1 + 0.8 * (torch.arange(16) + 0.5) / 16
    assert_close((pooled[0] + 1) / 2, x.expand(16, 16), atol=2e-3, rtol=0)
    assert_close((pooled[1] + 1) / 2, y[:, None].expand(16, 16), atol=2e-3, rtol=0)


def test_a_large_window_averages_what_lies_under_its_cells():
    """Fine stripes become grey, and not one or the other colour by chance."""
    image = torch.zeros(3, 512, 512)
    image[:, :, ::2] = 255
    pooled = ImagePyramid([image]).grids([torch.tensor([[3.0, 5.0, 500.0, 490.0]])], 16)
    assert float(pooled.abs().max()) < 0.02


def test_windows_of_all_sizes_come_back_in_their_order():
    sizes = [8.0, 500.0, 60.0, 250.0, 12.0]
    windows = torch.tensor([[100.0, 200.0, 100.0 + s, 200.0 + s] for s in sizes])
    together = ImagePyramid([gradient(1000)]).grids([windows], 8)
    for i in range(len(sizes)):
        alone = ImagePyramid([gradient(1000)]).grids([windows[i : i + 1]], 8)
        assert torch.equal(together[i], alone[0])
