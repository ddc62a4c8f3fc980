"""The files under experiments/ are read by the program of today."""

from pathlib import Path

import pytest

from boresight.run.parse import read_yaml, settings_from
from boresight.run.study import read_study
from boresight.run.systems import settings_kind

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_experiment_can_be_read_and_opens_with_its_command(path):
    assert path.read_text(encoding="utf-8").startswith("# boresight ")
    content = read_yaml(path)
    if "variants" in content:
        study = read_study(path)
        assert study.reference in study.variants
        assert len(study.seeds) >= 3
    else:
        system = content.get("detector", "point")
        assert f"# boresight train {system} --config experiments/{path.name}" in path.read_text(encoding="utf-8")
        settings_from(settings_kind(system, path.name), content, origin=path.name)


def test_there_are_experiments():
    assert {"sirst_v1.yaml", "labels.yaml", "levels.yaml", "white.yaml"} <= {p.name for p in FILES}
