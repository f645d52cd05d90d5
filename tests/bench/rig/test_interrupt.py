"""Ctrl-C, once and twice."""

import os
import signal

import pytest

from bench.rig.interrupt import WISHES, Interrupt


@pytest.mark.parametrize("wish", WISHES)
def test_the_first_signal_asks_and_the_second_one_insists(wish: signal.Signals) -> None:
    """A run ends by itself, with what it measured, unless it does not."""
    with Interrupt() as interrupt:
        assert not interrupt.asked
        os.kill(os.getpid(), wish)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), wish)


def test_afterwards_signals_mean_what_they_meant() -> None:
    """The handlers are put back, also after a failure."""
    before = [signal.getsignal(wish) for wish in WISHES]
    with pytest.raises(ZeroDivisionError), Interrupt():
        print(1 / 0)
    assert [signal.getsignal(wish) for wish in WISHES] == before
