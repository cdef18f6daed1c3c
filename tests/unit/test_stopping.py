"""A signal ends the program as a signal, whatever the code does with it that it meets."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from deepmac_distill.stopping import Stopped, signals_raise


def test_an_error_of_code_that_dropped_the_signal_is_a_stop() -> None:
    with pytest.raises(Stopped) as stopped, signals_raise():
        with suppress(Stopped):  # as code in C does that asks Python for an attribute
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("an attribute is missing")
    assert stopped.value.number == signal.SIGTERM
    assert str(stopped.value.__cause__) == "an attribute is missing"


def test_an_error_without_a_signal_is_that_error() -> None:
    with pytest.raises(ValueError, match="mine"), signals_raise():
        raise ValueError("mine")
