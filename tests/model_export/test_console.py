"""How wide reports are: as the terminal, as COLUMNS says, and as tables need where nobody reads along."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from model_export.console import LOG_WIDTH

SHOW = "from model_export.console import report_console; print(report_console().width)"


@pytest.mark.parametrize(("columns", "width"), [(None, LOG_WIDTH), ("80", 80)])
def test_a_pipe_is_as_wide_as_tables_need_unless_columns_says_otherwise(columns: str | None, width: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {} if columns is None else {"COLUMNS": columns}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == width


def test_a_terminal_gives_its_own_width() -> None:
    code = (
        "import fcntl, os, pty, struct, sys, termios\n"
        "main, other = pty.openpty()\n"
        "fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 97, 0, 0))\n"
        "for number in (0, 1, 2): os.dup2(other, number)\n"
        "from model_export.console import report_console\n"
        "width = report_console().width\n"
        "sys.exit(width)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    done = subprocess.run([sys.executable, "-c", code], env=environment | {"TERM": "xterm"}, check=False)
    assert done.returncode == 97
