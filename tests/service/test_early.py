"""A signal while a process starts ends it in good order, whatever it is in the middle of."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HEAD = """
import ctypes, os, signal
from service.early import ended_by_signals
def told():
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):  # a handler runs between two steps of the interpreter
        pass
"""
WAYS = {
    "plain": "told()",
    # as native code does that calls back: the builder of pydantic's validators, for one
    "turned into another error": """
    try:
        told()
    except BaseException as error:
        raise ValueError("of its own") from error
""",
    "dropped": "ctypes.CFUNCTYPE(None)(told)()",
}


def run(body: str, name: str = "SIGTERM") -> subprocess.CompletedProcess[str]:
    code = f"{HEAD.format(name=name)}\nwith ended_by_signals():\n    {body}\nprint('served')\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("way", WAYS)
def test_it_ends_the_process_with_status_zero(way: str, name: str) -> None:
    ended = run(WAYS[way], name)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "ValueError" not in ended.stderr


def test_an_error_that_no_signal_was_behind_stays_what_it_is() -> None:
    ended = run("raise ValueError('of its own')")
    assert ended.returncode == 1
    assert "ValueError: of its own" in ended.stderr


def test_without_a_signal_all_goes_on() -> None:
    ended = run("pass")
    assert (ended.returncode, ended.stdout) == (0, "served\n")


def test_one_that_comes_right_after_ends_it_too() -> None:
    code = f"{HEAD.format(name=signal.SIGTERM.name)}\nwith ended_by_signals():\n    pass\ntold()\nprint('served')\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
