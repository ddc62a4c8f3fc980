"""The image browser of a page: up to 200 images with everything that a run says of them, as JSON for the page's script.

A page must stay small enough to be sent by mail: pictures, maps and marks each have their room, and what does not fit
is said. Nothing is loaded; all names travel as JSON in which no character can end the script element.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from boresight.core.types import Scene
from boresight.diagnose.emitted import BUCKETS
from boresight.report.cell_maps import CellMaps, cell_maps
from boresight.report.compact import fitting, patches
from boresight.report.frames import stretched
from boresight.report.image_set import KINDS, ImageSet, Mark, chosen_names
from boresight.report.judged_boxes import box_sets
from boresight.report.judged_points import point_sets
from boresight.report.judged_refined import refined_sets
from boresight.report.reading import FrameStore, RunData

IMAGES = 200
PICTURES = 3_600_000
"""Characters of all pictures together."""
MAPS = 700_000
MARKS = 20_000
"""Marks of a page at most, but for those that stand for an object."""
UNSCORED = (
    "A localiser learns no score, so every box that it emits counts: those that meet no object are shown where their "
    "kind is asked for."
)
MAKERS = {"text": box_sets, "localise": box_sets, "refine": refined_sets}
"""How images of a system are judged; all others are points."""


@dataclass(frozen=True)
class Making:
    """How a page's browser is made.

    Attributes:
        quiet: no progress.
        map_seconds: how long maps of cells may be computed; 0: there are none.
    """

    quiet: bool = True
    map_seconds: float = 60.0


@dataclass(frozen=True)
class Browser:
    """What the template needs: ``data`` is None where there is nothing to browse, and ``notes`` says why."""

    data: Markup | None
    lead: str
    notes: tuple[str, ...]


def browser(runs: Sequence[RunData], store: FrameStore, making: Making) -> Browser:
    """The browser of runs of one kind. UserError when a file of a run is damaged."""
    sets: list[ImageSet] = []
    notes: list[str] = []
    for run in runs:
        made, said = MAKERS.get(run.detector, point_sets)(run, store)
        sets += [s for s in made if s.names]
        notes += said
    return browser_of(sets, notes, making)


def browser_of(sets: Sequence[ImageSet], notes: Sequence[str], making: Making) -> Browser:
    """The browser of sets that are made already."""
    if not sets:
        return Browser(None, "", tuple(notes))
    groups: dict[int, list[ImageSet]] = {}
    for one in sets:
        groups.setdefault(id(one.frames), []).append(one)
    images: list[dict[str, Any]] = []
    pictures: list[Image.Image] = []
    shown: list[tuple[ImageSet, list[str], int]] = []
    sentences = []
    rooms = shares([len(members[0].names) for members in groups.values()], IMAGES)
    for members, room in zip(groups.values(), rooms, strict=True):
        names = chosen_names(members, room)
        sentences.append(_lead(members, names))
        first, index = len(images), {n: i for i, n in enumerate(members[0].frames.names)}
        for name in names:
            scene = members[0].frames[index[name]]
            picture = _picture(scene, members[0].kind)
            images.append(_image(scene) | _patches(picture, members, scene))
            pictures.append(picture)
        shown += [(one, names, first) for one in members]
    patched = sum(len(src) for image in images for _, _, src in image.get("patches", ()))
    made, longest = fitting(pictures, PICTURES - patched)
    for image, src in zip(images, made, strict=False):
        image["src"] = src
    drawn = max(10, MARKS // max(1, sum(len(names) for _, names, _ in shown)))
    if any(one.run.detector == "localise" for one in sets):
        notes = [*notes, UNSCORED]
    said = [*notes, *(note for one in sets for note in one.notes)]
    exported = []
    for one, names, first in shown:
        seconds = making.map_seconds / len(sets)
        maps, missing = cell_maps(one, names, room=MAPS // len(sets), seconds=seconds, quiet=making.quiet)
        said += [missing] if missing else []
        exported.append(_set(one, names, first, drawn, maps))
    sentences.append(_small(pictures, longest, len(made), sets[0].kind == "points"))
    data = {"kinds": KINDS, "buckets": BUCKETS, "images": images, "sets": exported}
    return Browser(script_json(data), " ".join(s for s in sentences if s), tuple(said))


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """What each gets of a room: as much as it wants where that leaves the others theirs, else equal parts."""
    given = [0] * len(wanted)
    left = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for number, i in enumerate(left):
        given[i] = min(wanted[i], (room - sum(given)) // (len(left) - number))
    return given


def script_json(data: Any) -> Markup:
    """JSON that can stand in a script element: no character in it can end one, or begin markup."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _lead(members: Sequence[ImageSet], names: Sequence[str]) -> str:
    """How many of the judged images are here, and why these."""
    total, what = len(members[0].names), "frames" if members[0].kind == "points" else "images"
    where = f"of the split {members[0].split}"
    if len(names) == total:
        return f"All {total} {what} {where} that were judged."
    worst = "boxes made worse" if members[0].kind == "refined" else "errors"
    return (
        f"{len(names)} of the {total} judged {what} {where}: half of them those with the most {worst} at the stored "
        "threshold, then the first ones that hold an object. The counts are those of all judged ones."
    )


def _small(pictures: Sequence[Image.Image], longest: int, made: int, points: bool) -> str:
    """Whether pictures are reduced or missing."""
    if made < len(pictures):
        return f"The last {len(pictures) - made} have no picture, to keep the page small."
    except_ = ", but for the parts around targets and detections" if points else ""
    if any(max(p.size) > longest for p in pictures):
        return f"Pictures are reduced to {longest} pixels{except_}; marks are exact."
    return ""


def _image(scene: Scene) -> dict[str, Any]:
    height, width = scene.size
    return {"name": scene.name, "width": width, "height": height, "src": "", "truth": _truth(scene)}


def _truth(scene: Scene) -> list[list[float]]:
    """``[x0, y0, x1, y1, label, 1 for one that need not be found]`` of every truth."""
    if scene.boxes is not None and scene.labels is not None:
        boxes, labels = scene.boxes.tolist(), scene.labels.tolist()
        ignore = [False] * len(boxes) if scene.ignore is None else scene.ignore.tolist()
    elif scene.points is not None:
        boxes = torch.cat((scene.points.xy, scene.points.xy), 1).tolist()
        labels, ignore = scene.points.labels.tolist(), scene.points.ignore.tolist()
    else:
        return []
    return [
        [*(round(v, 2) for v in box), label, int(dim)] for box, label, dim in zip(boxes, labels, ignore, strict=True)
    ]


def _picture(scene: Scene, kind: str) -> Image.Image:
    """The image as it is looked at: frames of points grey and stretched."""
    if kind == "points":
        grey = stretched(np.asarray(scene.image.float().mean(0).numpy()))
        return Image.fromarray(np.round(grey * 255).astype(np.uint8))
    shown = scene.image[:3] if len(scene.image) >= 3 else scene.image[:1].expand(3, -1, -1)
    return Image.fromarray(shown.float().clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _patches(picture: Image.Image, members: Sequence[ImageSet], scene: Scene) -> dict[str, Any]:
    """Of points the parts around targets and detections as they are: two pixels do not survive a reduced picture."""
    if members[0].kind != "points":
        return {}
    places = [] if scene.points is None else [(x, y) for x, y in scene.points.xy.tolist()]
    for one in members:
        passed = [m for m in one.marks.get(scene.name, ()) if m.score >= one.threshold]
        places += [m.box[:2] for m in sorted(passed, key=lambda m: -m.score)]
    return {"patches": patches(np.asarray(picture), places)}


def _set(one: ImageSet, names: Sequence[str], first: int, drawn: int, maps: dict[str, CellMaps]) -> dict[str, Any]:
    shown = [_shown(one, name, first + k, drawn, maps.get(name)) for k, name in enumerate(names)]
    return {
        "name": f"{one.run.name} · {one.split}",
        "kind": one.kind,
        "threshold": one.threshold,
        "classes": one.classes,
        "judged": len(one.names),
        "stored": one.stored,
        "regret": bool(one.regret),
        "displacement": bool(one.displacement),
        "quiet": one.run.detector == "localise",
        "drawn": drawn,
        "table": one.table.to_dict(),
        "shown": shown,
    }


def _shown(one: ImageSet, name: str, image: int, drawn: int, maps: CellMaps | None) -> dict[str, Any]:
    """One image as this set has it: every mark that stands for an object, of the others the ``drawn`` surest.

    ``below`` is the score of the best mark that is left out.
    """
    marks = sorted(one.marks.get(name, ()), key=lambda m: -m.score)
    others = [m for m in marks if not m.tells]
    left_out = {id(m) for m in others[drawn:]}
    told: dict[str, Any] = {
        "image": image,
        "marks": [_mark(m, one.table.single) for m in marks if id(m) not in left_out],
        "below": others[drawn].score if len(others) > drawn else None,
        "regret": _round(one.regret.get(name)),
        "displacement": _round(one.displacement.get(name)),
    }
    if maps is not None:
        told["maps"] = {"stride": maps.stride, "classes": maps.by_class, "target": maps.target}
    return told


def _mark(mark: Mark, single: bool) -> list[Any]:
    """``[x0, y0, x1, y1, score, label, kind, fit, object, bucket, lost]``, then changes or what was refined, if any."""
    score = float(str(np.float32(mark.score))) if single else mark.score
    row: list[Any] = [*(round(v, 1 if mark.refined or mark.box[0] != mark.box[2] else 2) for v in mark.box), score]
    row += [mark.label, KINDS.index(mark.kind), _round(mark.fit), mark.object, mark.bucket, _round(mark.lost)]
    if mark.changes:
        row.append([[float(str(np.float32(s))), KINDS.index(k), o, _round(f)] for s, k, o, f in mark.changes])
    elif mark.refined is not None:
        row += [[round(v, 1) for v in mark.refined], _round(mark.fit_refined)]
    return row


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
