"""Filling a feature store: once, by one or several processes, going on where it was."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.run import fill as fill_module
from boresight.run.config_refine import FeatureSettings
from boresight.run.fill import fill, image_files


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Nine images in folders, two of them the same picture; files as if they were an hour old."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(8):
        file = root / f"part{i % 2}" / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    (root / "part0" / "copy.png").write_bytes((root / "part0" / "0.png").read_bytes())
    (root / "notes.txt").write_text("no image")
    for file in root.rglob("*.png"):
        os.utime(file, (time.time() - 3600,) * 2)
    return root


def settings(store: Path, **more) -> FeatureSettings:
    return FeatureSettings(layers=(1,), store="disk", store_folder=str(store), store_mb=0, **more)


def items(store: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in store.rglob("*.safetensors")}


def test_every_picture_once_and_a_second_fill_reads_nothing(photos, tmp_path, monkeypatch):
    first = fill(photos, settings(tmp_path), quiet=True)
    assert (first["images"], first["computed"], first["decoded"], first["skipped"]) == (9, 8, 9, [])
    assert len(items(tmp_path)) == 8

    def never(file):
        raise AssertionError(f"{file} is decoded again")

    monkeypatch.setattr(fill_module, "read_rgb", never)
    second = fill(photos, settings(tmp_path), quiet=True)
    assert (second["images"], second["computed"], second["decoded"]) == (9, 0, 0)


def test_a_fill_that_was_stopped_goes_on(photos, tmp_path, monkeypatch):
    real, count = fill_module.read_rgb, []

    def stops(file):
        count.append(file)
        if len(count) > 5:
            raise KeyboardInterrupt
        return real(file)

    filler = fill_module.Filler(settings(tmp_path))
    files = image_files(photos)
    monkeypatch.setattr(fill_module, "read_rgb", stops)
    filler.take(files[:4])
    with pytest.raises(KeyboardInterrupt):
        filler.take(files[4:])
    monkeypatch.setattr(fill_module, "read_rgb", real)
    done = fill(photos, settings(tmp_path), quiet=True)
    assert done["decoded"] <= 5
    assert len(items(tmp_path)) == 8


def test_a_file_that_cannot_be_read_stops_or_is_left_out(photos, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for file in sorted(photos.rglob("*.png"))[:2]:
        (source / file.name).write_bytes(file.read_bytes())
    (source / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"bad\.png"):
        fill(source, settings(tmp_path / "a"), quiet=True)
    done = fill(source, settings(tmp_path / "b"), skip=True, quiet=True)
    assert (done["images"], done["computed"]) == (3, 2)
    assert "bad.png" in done["skipped"][0]


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match="no image files there"):
        fill(tmp_path, settings(tmp_path / "store"), quiet=True)


def test_two_processes_share_the_images_and_write_the_same_bytes(photos, tmp_path):
    fill(photos, settings(tmp_path / "one"), quiet=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
    words = ["cache", "fill", str(photos), "--encoder", "boresight-aerial", "--layers", "1", "--into"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "boresight", *words, str(tmp_path / "two"), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("{")]
    assert json.loads(line)["processes"] == 2
    assert items(tmp_path / "one") == items(tmp_path / "two")
    told = [json.loads(f.read_text()) for f in (tmp_path / "two" / "stats").glob("*.json")]
    assert sum(t["misses"] for t in told) == 8


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'boresight[ray]'"
)
def test_ray_writes_the_same_bytes(photos, tmp_path):
    fill(photos, settings(tmp_path / "one"), quiet=True)
    script = (
        "import sys\nfrom pathlib import Path\nfrom boresight.cli import main\n"
        f"sys.exit(main(['cache', 'fill', {str(photos)!r}, '--encoder', 'boresight-aerial', '--layers', '1', "
        f"'--into', {str(tmp_path / 'ray')!r}, '--engine', 'ray', '--json', '--quiet']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["images"], told["computed"]) == (9, 8)
    assert items(tmp_path / "one") == items(tmp_path / "ray")


def test_without_ray_its_engine_says_what_to_install(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install"):
        fill(photos, settings(tmp_path), engine="ray", quiet=True)


def test_the_command_line_fills_and_says_so(photos, tmp_path, capsys):
    words = ["cache", "fill", str(photos), "--encoder", "boresight-aerial", "--into", str(tmp_path / "store")]
    assert main([*words, "--storage", "int8", "--quiet"]) == 0
    assert "9 images, 8 computed" in capsys.readouterr().out
    assert main(["cache", "info", str(tmp_path / "store"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["items"] == 8
    assert told["recipes"][0]["about"]["encoder"] == "boresight-aerial"
    assert told["recipes"][0]["error"]["level0"][0] < 0.02


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--encoder", "zebra"], "features.name=zebra"),
        (["--encoder", "boresight-aerial", "--batch", "0"], "--batch 0: must be 1 or more"),
        (["--encoder", "boresight-aerial", "--storage", "fp8"], "fp8"),
    ],
)
def test_mistakes_are_one_line(photos, tmp_path, capsys, more, told):
    assert main(["cache", "fill", str(photos), "--into", str(tmp_path / "store"), *more]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
