"""What a framework's C++ writes to stderr."""

from __future__ import annotations

import os

import pytest

from model_server.silence import silence


def test_native_words_do_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with silence():
        os.write(2, b"said by a library")
    os.write(2, b"said after it")
    assert capfd.readouterr().err == "said after it"


def test_exceptions_pass_and_leave_stderr_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), silence():
        _ = 1 // 0
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
