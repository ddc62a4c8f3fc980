"""The text-query detector as a graph: with the frozen CLIP inside, or with its features given."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Scene
from boresight.detectors.text_query import TextQuery
from boresight.features.class_maps import presence
from boresight.features.clip_graph import ClipGraph
from boresight.features.dense import DenseFeatures
from boresight.features.resample import OnGrid
from boresight.heads.text_query import TextQueryHead
from boresight.run.export_graph import Graph, longer_side, whole_cells

IMAGE = {0: "batch", 2: "height", 3: "width"}
MAP = {0: "batch", 2: "rows", 3: "columns"}
QUERIES = {0: "queries"}


class TextGraph(Graph):
    """Images and query embeddings to scores and boxes.

    Args:
        detector: trained, in inference mode.
        asked: name of a query to what is asked for it, of those that go into the file.

    Raises UserError for fewer queries than the class map needs.
    """

    def __init__(self, detector: TextQuery, asked: Mapping[str, str]) -> None:
        super().__init__()
        assert isinstance(detector.head, TextQueryHead)
        self.detector, self.asked = detector, dict(asked)
        self.shared = detector.head.box == "agnostic"
        self.inputs = {"image": IMAGE, "queries": QUERIES}
        if detector.learned is not None:
            self.inputs["learned"] = QUERIES
        self.outputs = ("scores", "boxes")
        f = detector.maps.features
        self.least = 2 if f.method == "surgery" else 1  # its maps compare the queries with each other
        if len(asked) < self.least:
            raise UserError(f"clip.method {f.method}: its graph needs {self.least} queries; add one with --queries")
        detector.ask(list(self.asked.values()))
        settings: dict[str, Any] = {"method": f.method, "average": f.average, "size": f.size, "layers": f.layers}
        self.clip = ClipGraph(f.clip, window=f.window, overlap=f.overlap, **settings)

    def forward(self, image: Tensor, queries: Tensor, learned: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``[B, 3, H, W]`` in 0..255 and ``[Q, D]`` to scores ``[B, Q, h, w]`` and boxes ``[B, K, h, w, 4]``.

        ``learned [Q, D]`` is what training added to the queries. K is 1 where the classes of a cell share one box.
        """
        return self._answers(image, self.clip(image), queries, learned)

    def _answers(
        self, image: Tensor, frozen: DenseFeatures, queries: Tensor, learned: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        detector = self.detector
        features = detector.read(whole_cells(image, detector.divisor))
        rows, columns = features.shape[-2:]
        # where cells lie in the image, from -1 to 1 between its edges: `places_of` with sizes left open
        centre = cell_centres(rows, columns, detector.stride, device=image.device)
        place = torch.stack((2 * centre[..., 0] / image.shape[3] - 1, 2 * centre[..., 1] / image.shape[2] - 1), dim=-1)
        places = place.expand(image.shape[0], rows, columns, 2)
        raw, layers = OnGrid((detector.maps.raw(frozen, queries),), places), OnGrid((frozen.layers.float(),), places)
        maps = detector.maps.on_grid(raw, layers, presence(frozen.pooled, queries))
        output = detector.answer(features, maps, queries if learned is None else queries + learned)
        return detector.fusion.score(output), self._boxes(output)

    def _boxes(self, output: DenseOutput) -> Tensor:
        return (output.boxes[:, :1] if self.shared else output.boxes).contiguous()

    def _asked(self) -> tuple[Tensor, ...]:
        """Embeddings of what is asked, and what was learned of them."""
        maps, learned = self.detector.maps, self.detector.learned
        return (maps.text,) if learned is None else (maps.text, learned(maps.text, maps.trained) - maps.text)

    def feed(self, scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
        """See :class:`Graph`."""
        return torch.stack([s.image.float() for s in scenes]), *self._asked()

    def expected(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """See :class:`Graph`."""
        output = self.detector(scenes)
        return {"scores": self.detector.fusion.score(output), "boxes": self._boxes(output)}

    @contextmanager
    def narrowed(self) -> Iterator[None]:
        """See :class:`Graph`."""
        self.detector.ask(list(self.asked.values())[: self.least])
        yield
        self.detector.ask(list(self.asked.values()))

    @contextmanager
    def bare(self) -> Iterator[None]:
        """See :class:`Graph`. Without the asked queries: their number would be read off them, and be that for ever."""
        maps = self.detector.maps
        text = maps.text
        maps.text = text[:0]
        try:
            yield
        finally:
            maps.text = text

    def scale(self, expected: dict[str, Tensor]) -> Tensor:
        """The longer side of each box."""
        return longer_side(expected["boxes"], self.detector.stride)

    def about(self) -> dict[str, Any]:
        """See :class:`Graph`. Embeddings are float32, little-endian, in base64."""
        detector = self.detector
        names = ("threshold", "nms", "top_k", "before_nms", "trained_reach")
        packed = [base64.b64encode(v.detach().numpy().astype("<f4").tobytes()).decode() for v in self._asked()]
        asked = {"names": list(self.asked), "dim": int(detector.maps.text.shape[1]), "least": self.least}
        return {
            "stride": detector.stride,
            "divisor": detector.divisor,
            "decode": {name: getattr(detector.decoder, name) for name in names},
            "features": "inside",
            "queries": asked | dict(zip(("embeddings", "learned"), packed, strict=False)),
        }


class TextFeaturesGraph(TextGraph):
    """The same with the frozen CLIP's features given, so that they may be computed once and kept."""

    def __init__(self, detector: TextQuery, asked: Mapping[str, str]) -> None:
        super().__init__(detector, asked)
        del self.clip
        self.inputs = {"image": IMAGE, "aligned": MAP, "layers": MAP, "pooled": {0: "batch"}, "queries": QUERIES}
        if detector.learned is not None:
            self.inputs["learned"] = QUERIES

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        aligned: Tensor,
        layers: Tensor,
        pooled: Tensor,
        queries: Tensor,
        learned: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See :class:`TextGraph`; the parts of DenseFeatures are those of the image as it is, not padded."""
        return self._answers(image, DenseFeatures(aligned, layers, pooled), queries, learned)

    def feed(self, scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
        """See :class:`Graph`."""
        found = DenseFeatures.join(self.detector.maps.features(scenes))
        image, *asked = super().feed(scenes)
        return image, found.aligned, found.layers, found.pooled, *asked

    def about(self) -> dict[str, Any]:
        """See :class:`Graph`."""
        return super().about() | {"features": "given"}
