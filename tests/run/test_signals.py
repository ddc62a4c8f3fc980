from __future__ import annotations

import signal
import threading

import pytest

from boresight.run import signals
from boresight.run.signals import stop_requests


def test_the_first_signal_asks_and_a_second_interrupt_stops(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        try:
            signal.raise_signal(signal.SIGINT)  # at once: a launcher that passes on what the terminal sent
        except KeyboardInterrupt:
            pytest.fail("one Ctrl-C was taken for two")
        monkeypatch.setattr(signals, "ONE_REQUEST", 0.0)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nobody_asks():
    answers = []

    def work():
        with stop_requests() as asked:
            answers.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
