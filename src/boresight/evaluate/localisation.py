"""Where does a detector lose: in the boxes, in choosing among them, or in the class? One pass over raw outputs.

The plain figure, the IoU of the best of all cells in the true class's channel, is an oracle that grows with the number
of cells: boxes without any image content reach 0.59 on a 56 x 56 grid. So it never stands alone here. It comes with a
ladder of selections, each rung with its chance floors and skill above them, with controls, and with a verdict.

Images are added one by one; only a few numbers an object are kept, and the last image for the shuffled floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from boresight.core.types import Scene
from boresight.evaluate.box_errors import READINGS, error_table
from boresight.evaluate.cam_diagnostics import CAM_THRESHOLDS, CamReport, Ceiling, cam_pairs
from boresight.evaluate.dense_image import DenseImage, Objects
from boresight.evaluate.estimate import Resampler
from boresight.evaluate.floors import check_prior
from boresight.evaluate.localisation_report import LocalisationReport
from boresight.evaluate.localisation_summary import (
    RungDraws,
    cell_curve,
    draw_ladder,
    gaps,
    mirror,
    plain,
    reached,
    wrong_channel,
)
from boresight.evaluate.object_records import Emitted, ObjectRecords, measure
from boresight.evaluate.pairs import Bools, Floats
from boresight.evaluate.presence import presence_auc, present_classes
from boresight.evaluate.selection import Selection
from boresight.evaluate.verdict import Reading, Verdict, judge, speaking


class LocalisationStudy:
    """Collects images and reports.

    Args:
        classes: the name of each channel.
        prior: ``[M, 2]`` widths and heights of training boxes, pixels at the scale of the images judged.
        rule: how the rungs select boxes.
        replicates: of the bootstrap by image.
        seed: of the bootstrap and of everything drawn for floors and controls.
        first: number of the first image, where others look at those before it; see :meth:`join`.

    Raises ``ValueError`` for a prior that is empty or not positive.
    """

    def __init__(
        self,
        classes: Sequence[str],
        prior: Tensor,
        *,
        rule: Selection | None = None,
        replicates: int = 1000,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.classes, self.prior = tuple(classes), check_prior(prior)
        self.rule, self.replicates, self.seed, self.first = rule or Selection(), replicates, seed, first
        self._records: list[ObjectRecords] = []
        self._pairs: list[Floats] = []
        self._presence: list[Floats] = []
        self._present: list[tuple[Bools, Bools]] = []
        self._kinds: set[tuple[bool, bool]] = set()
        self._previous: Emitted | None = None

    def add(self, image: DenseImage, truth: Scene) -> None:
        """Judge one image; pixels of ``truth`` are never read.

        Raises ``ValueError`` when the output has another number of channels than there are classes, when it has a class
        map or presence and an earlier one had none (or the reverse), and as :meth:`Objects.of` does.
        """
        if image.classes != len(self.classes):
            raise ValueError(f"the output has {image.classes} channels, but there are {len(self.classes)} classes")
        kind = (image.cam is None, image.presence is None)
        if self._kinds - {kind}:
            raise ValueError("class map and presence must be there for every image or for none")
        number, host = self.first + len(self._records), image.cpu()
        objects = Objects.of(truth, host)
        last = self._previous
        fits = last is not None and (last.grid, last.size) == (host.grid, host.size)
        # A generator an image: what is drawn for one does not hang on those before it.
        drawn = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(drawn[0]) >> 1)
        self._records.append(
            measure(
                host,
                objects,
                number,
                prior=self.prior,
                previous=last if fits else None,
                rule=self.rule,
                generator=generator,
            )
        )
        self._kinds.add(kind)
        if host.cam is not None:
            rows = cam_pairs(host.cam.flatten(1), truth, objects, host)
            self._pairs.append(np.column_stack((np.full(len(rows), number), rows)))
        self.precede(host)
        assert self._previous is not None
        flat = self._previous.score
        self._presence.append((flat.amax(dim=1) if host.presence is None else host.presence).double().numpy())
        self._present.append(present_classes([truth], len(self.classes)))

    def precede(self, image: DenseImage) -> None:
        """The image before the next: a control judges what was emitted there. :meth:`add` does it by itself."""
        host = image.cpu()
        self._previous = Emitted(host.size, host.grid, host.field(), host.score.flatten(1).float())

    def join(self, later: LocalisationStudy) -> None:
        """Take over the images of a study whose ``first`` is the number of images that this one has.

        Raises ``ValueError`` where it begins elsewhere, and as :meth:`add` does.
        """
        images = self.first + len(self._records)
        if later.first != images:
            raise ValueError(f"a study that begins with image {later.first} does not follow on {images} images")
        if len(self._kinds | later._kinds) > 1:
            raise ValueError("class map and presence must be there for every image or for none")
        self._records += later._records
        self._pairs += later._pairs
        self._presence += later._presence
        self._present += later._present
        self._kinds |= later._kinds
        self._previous = later._previous

    def report(self) -> LocalisationReport:
        """Everything about the images added so far."""
        images, records = len(self._records), ObjectRecords.join(self._records)
        resampler = Resampler(records.image, images, self.replicates, self.seed)
        ladder = draw_ladder(records, resampler)
        c = len(self.classes)
        present, known = (np.concatenate([p[k] for p in self._present] or [np.zeros((0, c), np.bool_)]) for k in (0, 1))
        return LocalisationReport(
            images=images,
            objects=len(records.image),
            classes=self.classes,
            plain=plain(records, self.classes, resampler),
            ladder=tuple(r.summary() for r in ladder),
            gaps=gaps(ladder),
            oracle_against_cells=cell_curve(records, resampler),
            wrong_channel=wrong_channel(records, resampler),
            mirror=mirror(records, c, resampler),
            cam=self._cam(records, resampler),
            presence=presence_auc(np.stack(self._presence) if images else np.zeros((0, c)), present, known),
            presence_from="best score" if any(without for _, without in self._kinds) else "presence",
            errors=tuple(
                error_table(name, records.errors[:, k], records.side_cells, records.label, self.classes, resampler)
                for k, name in enumerate(READINGS)
            ),
            verdict=verdict_of(len(records.image), ladder),
        )

    def _cam(self, records: ObjectRecords, resampler: Resampler) -> CamReport | None:
        if not self._pairs:
            return None
        pairs = np.concatenate(self._pairs)
        of_pairs = Resampler(pairs[:, 0].astype(np.int64), len(self._records), self.replicates, self.seed)
        ceiling = tuple(Ceiling(t, resampler.estimate(reached(records.reach, t))) for t in CAM_THRESHOLDS)
        pointing, energy, area = (of_pairs.estimate(pairs[:, k]) for k in (1, 2, 3))
        return CamReport(len(pairs), pointing, energy, area, ceiling)


def verdict_of(objects: int, ladder: Sequence[RungDraws]) -> Verdict:
    """Judge a ladder; see :mod:`boresight.evaluate.verdict`."""
    at = {r.name: r for r in ladder}
    skills = {name: r.skill_acc for name, r in at.items()}
    floors = {name: r.strongest(r.floor_acc) for name, r in at.items()}
    readings = tuple(
        Reading(name, skills[name].estimate(), None if k is None else at[name].floor_acc[k].value)
        for name in ("gt_centre", "gt_class", "one_to_one")
        for k in [floors[name]]
    )
    chosen = speaking(readings)
    best = skills["gt_class"] if chosen is None else skills[chosen.rung]
    ranking = best.minus(skills["gt_class"])
    classification = skills["gt_class"].minus(skills["predicted_class"])
    lead = classification.minus(ranking)
    return judge(objects, chosen, ranking.estimate(), classification.estimate(), lead.estimate())


def localise(
    images: Iterable[tuple[DenseImage, Scene]],
    classes: Sequence[str],
    prior: Tensor,
    *,
    rule: Selection | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> LocalisationReport:
    """Judge raw outputs against truth, image by image; see :class:`LocalisationStudy` for the arguments."""
    study = LocalisationStudy(classes, prior, rule=rule, replicates=replicates, seed=seed)
    for image, truth in images:
        study.add(image, truth)
    return study.report()
