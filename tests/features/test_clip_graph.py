"""The graph of a frozen CLIP computes what the encoder computes, and sizes stay open when it is exported."""

from __future__ import annotations

import pytest
import torch

from boresight.features.clip_graph import ClipGraph


@pytest.mark.parametrize("shape", [(1, 150, 190), (2, 65, 128), (1, 20, 25)])
@pytest.mark.parametrize("more", [{}, {"window": 64}, {"window": 96, "overlap": 0.25}, {"size": 100}])
@pytest.mark.parametrize("kind", ["tok", "avg"])
def test_the_graph_gives_what_the_encoder_gives(tiny_clip, kind, shape, more):
    clip = tiny_clip(kind)
    count, height, width = shape
    image = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    settings = {"method": "naclip", "layers": (1, 2), **more}
    wanted = clip.encode(image, **settings)
    with torch.no_grad():
        found = ClipGraph(clip, **settings)(image)
    for name, value in wanted.tensors().items():
        torch.testing.assert_close(found.tensors()[name], value, atol=1e-5, rtol=1e-5)


def test_no_layers_are_no_channels(tiny_clip):
    with torch.no_grad():
        found = ClipGraph(tiny_clip("tok"), window=32)(torch.rand(1, 3, 64, 64) * 255)
    assert found.layers.shape[:2] == (1, 0)
