from __future__ import annotations

import io
import sys

import pytest

from boresight.run import progress
from boresight.run.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_when_piped(capsys, clock):
    with Progress(4, label="run", interval=10) as bar:
        for i in range(4):
            clock[0] += 6
            bar.step(2, f"loss {i}")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("run 2/4 · loss 1 · 0.3 img/s · 12 s left")  # 12 s for two steps, and two to come
    assert lines[1].startswith("run 4/4 · loss 3")
    assert len(lines) == 2
    assert "\x1b" not in err


def test_a_resumed_run_counts_its_own_steps(capsys, clock):
    with Progress(10, done=8, label="run", interval=0) as bar:
        clock[0] += 5
        bar.step(1)
    assert "run 9/10" in (err := capsys.readouterr().err)
    assert "5 s left" in err


def test_the_last_line_always_comes(capsys, clock):
    with Progress(2, label="run", interval=1e9) as bar:
        bar.step(1)
        bar.step(1)
    assert capsys.readouterr().err.splitlines()[-1].startswith("run 2/2")


def test_a_note_is_kept_until_the_next(capsys, clock):
    with Progress(3, label="run", interval=0) as bar:
        bar.step(1, "loss 1")
        bar.step(1)
        bar.step(1, "loss 3")
    assert ["loss 1" in line for line in capsys.readouterr().err.splitlines()] == [True, True, False]


def test_steps_can_be_counted(capsys, clock):
    with Progress(10, label="study", unit="step", interval=0) as bar:
        clock[0] += 2
        bar.advance(4, 0, "a")
    assert "study 4/10 · a · 2.0 step/s · 3 s left" in capsys.readouterr().err


def test_quiet_says_nothing(capsys, clock):
    with Progress(1, quiet=True) as bar:
        bar.step(1, "loss")
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with Progress(2, label="run") as bar:
        bar.step(3, "loss [0.5]")
        bar.step(3)
    shown = screen.getvalue()
    assert "2/2" in shown
    assert "loss [0.5]" in shown
    assert "\x1b[" in shown
    assert capsys.readouterr().out == ""


def test_a_bar_is_taken_down_on_an_error(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ZeroDivisionError), Progress(2, label="run") as bar:
        raise ZeroDivisionError
    assert bar.bar.finished or not bar.bar.live.is_started
