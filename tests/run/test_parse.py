from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.errors import UserError
from boresight.run.config import PointSettings
from boresight.run.parse import flatten, nested, parse_settings, read_yaml, settings_from
from boresight.run.ranges import check_ranges


def error_of(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_settings(PointSettings, arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def error_in(tmp_path, text: str) -> str:
    """The error that a file of settings causes; it must name the file."""
    file = tmp_path / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    message = error_of("--config", str(file))
    assert str(file) in message
    return message.replace(str(file), "F")


# --- keys ------------------------------------------------------------------------------------------------------------


def test_an_unknown_argument_names_its_neighbour():
    assert error_of("--train.lernig_rate", "1") == (
        "unknown argument `--train.lernig_rate`: did you mean `train.learning_rate`?"
    )
    assert "did you mean `train.learning_rate`?" in error_of("--lernig_rate=1")


def test_an_argument_without_its_group_is_told_the_group():
    assert error_of("--top_k", "4").endswith("did you mean `decode.top_k`?")


def test_an_argument_that_is_near_nothing_says_where_to_look():
    assert "--print_config" in error_of("--zzzzzz", "1")
    assert "`stray`" in error_of("stray")


def test_an_abbreviation_is_no_key():
    """argparse would take `--train.step` for `--train.steps`."""
    assert "did you mean `train.steps`?" in error_of("--train.step", "5")


def test_an_unknown_key_in_a_file_names_its_neighbour(tmp_path):
    assert error_in(tmp_path, "train: {lernig_rate: 1}") == (
        "F: unknown key `train.lernig_rate`: did you mean `learning_rate`?"
    )
    assert error_in(tmp_path, "trian: {steps: 1}") == "F: unknown key `trian`: did you mean `train`?"


@pytest.mark.parametrize("text", ["height: 3", "train: {height: 3}", "head: {height: 3}"])
def test_a_key_in_the_wrong_group_is_told_its_own(tmp_path, text):
    assert error_in(tmp_path, text).endswith("did you mean `data.height`?")


def test_a_key_that_is_near_nothing_lists_what_there_is(tmp_path):
    message = error_in(tmp_path, "decode: {zzzzzz: 3}")
    assert "`decode.zzzzzz`" in message
    assert "refine, top_k, window, tolerance" in message


def test_keys_that_are_no_words_are_unknown(tmp_path):
    assert "unknown key `train.1`" in error_in(tmp_path, "train: {1: 2}")


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.steps", "abc", "int"),
        ("train.steps", "1.5", "int"),
        ("train.learning_rate", "fast", "float"),
        ("head.deformable", "perhaps", "bool"),
        ("head.level", "p9", "one of 'p1', 'p2', 'p3', 'p4'"),
        ("target.window", "7", "one of 3, 4, 5 or null"),
        ("encoder.widths", "[4, 4, 8]", "tuple with 4 elements"),
    ],
)
def test_a_wrong_type_names_key_value_and_type(tmp_path, key, value, expected):
    group, name = key.split(".")
    wanted = f"`{key}` = {value}: expected {expected}"
    assert error_of(f"--{key}", value) == wanted
    assert error_in(tmp_path, f"{group}: {{{name}: {value}}}") == f"F: {wanted}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", "0"),
        ("train.batch", "-2"),
        ("train.warmup", "-1"),
        ("train.seed", "-1"),
        ("data.seed", "-1"),
        ("train.ema", "1.5"),
        ("head.prior", "0"),
        ("head.prior", "1"),
        ("data.val_share", "1"),
        ("decode.window", "4"),
        ("loss.ohem_ratio", "-1"),
        ("augment.scale", "[2.0, 1.0]"),
        ("augment.scale", "[0.0, 1.0]"),
        ("target.sigmas", "[1.0, -1.0, 1.0]"),
        ("train.learning_rate", "nan"),
        ("train.clip", "inf"),
    ],
)
def test_a_number_outside_its_range_names_key_and_file(tmp_path, key, value):
    assert f"`{key}` = " in error_of(f"--{key}", value)
    group, name = key.split(".")
    assert f"F: `{key}` = " in error_in(tmp_path, f"{group}: {{{name}: {value.replace('nan', '.nan')}}}")


def test_steps_of_sigma_must_fit_their_breaks():
    message = error_of("--target.schedule=steps", "--target.sigmas=[1.0, 0.8]")
    assert "`target.sigmas`" in message
    assert "3 numbers" in message
    parse_settings(PointSettings, ["--target.schedule=linear", "--target.sigmas=[1.0, 0.8]"])


def test_nothing_is_no_number(tmp_path):
    assert "F: `train.steps` = None" in error_in(tmp_path, "train: {steps: null}")
    file = tmp_path / "good.yaml"
    file.write_text("target: {window: null}")
    assert parse_settings(PointSettings, ["--config", str(file)]).target.window is None


def test_every_key_that_may_be_null_is_known():
    """``check_ranges`` holds a list of them: it must not fall behind the dataclasses."""
    check_ranges(flatten(PointSettings()))
    optional = {
        f"{group.name}.{key}"
        for group in dataclasses.fields(PointSettings)
        if dataclasses.is_dataclass(group.default_factory)
        for key, hint in typing.get_type_hints(group.default_factory).items()
        if type(None) in typing.get_args(hint)
    }
    assert optional
    for key in flatten(PointSettings()):
        group, _, name = key.partition(".")
        if not name:
            continue
        part = dataclasses.replace(getattr(PointSettings(), group), **{name: None})
        whole = dataclasses.replace(PointSettings(), **{group: part})
        if key in optional:
            check_ranges(flatten(whole))
        else:
            with pytest.raises(UserError, match=f"`{key}` = None"):
                check_ranges(flatten(whole))


# --- files -----------------------------------------------------------------------------------------------------------


def test_bad_yaml_names_line_and_column(tmp_path):
    assert error_in(tmp_path, "train:\n  steps: [1,\n").startswith("F: line 3, column 1")
    assert error_in(tmp_path, "train:\n\tsteps: 1").startswith("F: line 2, column 1")


@pytest.mark.parametrize("text", ["", "- 1", "7", "just words"])
def test_a_file_must_be_a_mapping(tmp_path, text):
    assert error_in(tmp_path, text).startswith("F: a settings file is a mapping of keys, got")


@pytest.mark.parametrize("text", ["train: 5", "train: null", "train: [steps]"])
def test_a_group_must_be_a_mapping(tmp_path, text):
    assert "`train` holds keys of its own" in error_in(tmp_path, text)


def test_files_that_cannot_be_read_are_named(tmp_path):
    assert "none.yaml: no such file" in error_of("--config", "none.yaml")
    assert f"{tmp_path}: cannot be read" in error_of("--config", str(tmp_path))
    assert "--config needs a file" in error_of("--config")
    (tmp_path / "latin.yaml").write_bytes(b"data: {root: \xe9}")
    assert "latin.yaml: cannot be read" in error_of("--config", str(tmp_path / "latin.yaml"))


def test_yaml_cannot_run_code(tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text("data: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match=r"evil\.yaml"):
        read_yaml(file)


def test_later_arguments_win(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("train: {steps: 5, batch: 4}")
    words = ["--config", str(file)]
    assert parse_settings(PointSettings, [*words, "--train.steps", "6"]).train.steps == 6
    assert parse_settings(PointSettings, ["--train.steps", "6", *words]).train.steps == 5
    assert parse_settings(PointSettings, ["--train.steps", "6", f"--config={file}"]).train.batch == 4
    other = tmp_path / "b.yaml"
    other.write_text("train: {batch: 8}")
    both = parse_settings(PointSettings, [*words, "--config", str(other)]).train
    assert (both.steps, both.batch) == (5, 8)


def test_the_second_file_is_named_when_it_is_wrong(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {steps: 5}")
    (tmp_path / "b.yaml").write_text("train: {stpes: 5}")
    message = error_of("--config", str(tmp_path / "a.yaml"), f"--config={tmp_path / 'b.yaml'}")
    assert message.startswith(f"{tmp_path / 'b.yaml'}: unknown key")


# --- there and back --------------------------------------------------------------------------------------------------

number = st.floats(1e-12, 1e6)


@settings(max_examples=25)
@given(
    steps=st.integers(1, 10**9),
    rate=number,
    sigmas=st.lists(number, min_size=3, max_size=3),
    root=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20),
    window=st.sampled_from([None, 3, 4, 5]),
    trackers=st.lists(st.sampled_from(["wandb", "mlflow"]), max_size=2),
    flip=st.booleans(),
)
def test_settings_survive_yaml(steps, rate, sigmas, root, window, trackers, flip):
    base = PointSettings()
    given_ = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, root=root),
        augment=dataclasses.replace(base.augment, flip=flip),
        target=dataclasses.replace(base.target, sigmas=tuple(sigmas), window=window),
        train=dataclasses.replace(base.train, steps=steps, learning_rate=rate, trackers=tuple(trackers)),
    )
    text = yaml.safe_dump(nested(given_), sort_keys=False)
    assert settings_from(PointSettings, yaml.safe_load(text), origin="F") == given_


def test_flatten_and_nested_hold_every_key():
    flat = flatten(PointSettings())
    assert flat["train.steps"] == 1000
    assert flat["detector"] == "point"
    back = nested(PointSettings())
    assert back["encoder"]["widths"] == [16, 24, 32, 40]
    assert {f"{g}.{k}" for g, v in back.items() if isinstance(v, dict) for k in v} | {"detector"} == set(flat)


def test_settings_are_read_without_torch(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {steps: 5}")
    code = """
import sys
from boresight.run.config import PointSettings
from boresight.run.parse import parse_settings
assert parse_settings(PointSettings, ["--config", "a.yaml", "--train.batch", "4"]).train.steps == 5
heavy = {"torch", "numpy", "accelerate", "pyarrow", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", ["!!timestamp a", '!!int ""'])
def test_a_tag_that_does_not_fit_its_text_is_named(value):
    with pytest.raises(UserError, match=r"`train\.steps` = !!\w+ .*: cannot be read \(.*\); write the value itself"):
        parse_settings(PointSettings, ["--train.steps", value])
    with pytest.raises(UserError, match=r"x\.yaml: `train\.steps` = !!\w+ .*: cannot be read"):
        settings_from(PointSettings, {"train": {"steps": value}}, origin="x.yaml")
