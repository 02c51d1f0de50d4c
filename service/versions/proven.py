"""What a service says of a version that all its workers serve: the store's link `good` leads to it.

A supervisor writes it, so it waits for nobody: where the store is locked it comes again, and where the store cannot be
written to, as where pods may only read it, that is logged once and nothing else comes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.logging import get_logger
from service.versions.store import Store, StoreError, is_store

if TYPE_CHECKING:
    from pathlib import Path

    from service.versions.store import Deployed

__all__ = ["Proven"]

_log: Final = get_logger("service.versions")


class Proven:
    """Notes what was proven.

    Args:
        bundle: A bundle, of which there is nothing to note, or a store of them.
    """

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._noted: Path | None = None
        self._told = False

    def note(self, version: Deployed) -> None:
        """All workers serve a version; may be said again and again, and costs nothing then."""
        if version.path == self._noted:
            return
        try:
            if is_store(self._bundle) and not Store(self._bundle).prove(version.version):
                return
        except (OSError, StoreError) as error:
            if not self._told:
                self._told = True
                _log.warning("good_not_noted", version=version.version, error=str(error))
        self._noted = version.path
