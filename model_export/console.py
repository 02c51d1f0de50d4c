"""Where reports are printed: as wide as the terminal, and as wide as tables need where there is none."""

from __future__ import annotations

import os
import sys
from typing import Final

from rich.console import Console

__all__ = ["LOG_WIDTH", "report_console"]

LOG_WIDTH: Final = 110


def report_console() -> Console:
    """Standard output. A pipe or a log file has no width of its own, unless COLUMNS gives it one."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else LOG_WIDTH)
