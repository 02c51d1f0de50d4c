"""Whether requests can be recorded where they are to be, said at the start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from service.settings import Settings

__all__ = ["check_place"]


def check_place(settings: Settings) -> None:
    """Make the directory of recorded requests, if there is to be one.

    Raises:
        SettingsError: It cannot be made, or nothing can be written there.
    """
    directory = settings.record_directory
    if directory is None or not settings.record_ratio:
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"REACTION_RECORD_DIRECTORY: expected a directory, got {error}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SettingsError(f"REACTION_RECORD_DIRECTORY: expected a directory to write to, got {directory}")
