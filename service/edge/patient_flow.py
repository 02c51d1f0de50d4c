"""When a connection is read on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sized

__all__ = ["PatientFlow"]


class PatientFlow(FlowControl):
    """Reads on only when all requests that came in have begun.

    uvicorn reads on with every answer, and each time as much as the kernel holds: a client that sends far ahead would
    have its requests pile up here. None that has begun needs what is not read yet, as long as others wait behind it.

    Args:
        transport: The connection's.
        queue: Requests that wait for the answers before theirs.

    Attributes:
        held: Nothing is read on at all.
    """

    def __init__(self, transport: asyncio.Transport, queue: Sized) -> None:
        super().__init__(transport)
        self._queue = queue
        self.held = False

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._queue and not self.held:
            super().resume_reading()
