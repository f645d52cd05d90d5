"""Ctrl-C, once and twice."""

import os
import signal

import pytest

from bench.rig.interrupt import WISHES, Interrupt


@pytest.mark.parametrize("wish", WISHES)
def test_the_first_signal_only_asks(wish: signal.Signals) -> None:
    """The run ends by itself, with what it measured."""
    with Interrupt() as interrupt:
        assert not interrupt.asked
        os.kill(os.getpid(), wish)
        assert interrupt.asked


def test_the_second_signal_insists() -> None:
    """For a run that does not end."""
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant() -> None:
    """The handlers are put back, also after a failure."""
    before = [signal.getsignal(wish) for wish in WISHES]
    with pytest.raises(ZeroDivisionError), Interrupt():
        print(1 / 0)
    assert [signal.getsignal(wish) for wish in WISHES] == before
