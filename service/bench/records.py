"""What a run may do, and what it writes down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ABANDONED", "FOREVER", "MALFORMED", "RESET", "TIMEOUT", "Limits", "Records"]

FOREVER: Final = 1 << 62

# Outcomes beside the HTTP status, which is positive.
ABANDONED: Final = 0
RESET: Final = -1
TIMEOUT: Final = -2
MALFORMED: Final = -3


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a run goes.

    Attributes:
        connections: Most connections open at once.
        warm: Connections opened before the first arrival.
        timeout_ns: From when it was due until a request is given up, and its connection closed.
        give_up_ns: Age of the oldest unanswered request at which the run is ended, the server being overloaded.
    """

    connections: int = 256
    warm: int = 16
    timeout_ns: int = 10_000_000_000
    give_up_ns: int = FOREVER


@dataclass(frozen=True, slots=True)
class Records:
    """What happened to every arrival; times in ns from the start of the run.

    Attributes:
        began_ns: The start of the run on the network's clock (`time.perf_counter_ns` for the real one).
        due: (N,) when it had to be sent.
        taken: (N,) when the generator came to it; -1 never. `taken - due` is the generator's own lag.
        sent: (N,) when its first byte went out; -1 never. `sent - taken` is the wait for a connection.
        ended: (N,) when its answer was complete, or it failed; -1 neither.
        outcome: (N,) the HTTP status, or one of this module's outcomes.
        pauses: (P, 2) start and length of each time the generator itself stood still.
        busy_ns: From the first measured arrival to the last, time in which the generator was neither waiting nor
            spinning; never less than the processor time its work took.
        cpu_ns: Processor time of the process in that span, spinning included.
        span_ns: Length of that span.
        connections: Connections opened.
        received_bytes: Bytes of all answers, heads included.
        overloaded: The run was ended before its time.
    """

    began_ns: int
    due: NDArray[np.int64]
    taken: NDArray[np.int64]
    sent: NDArray[np.int64]
    ended: NDArray[np.int64]
    outcome: NDArray[np.int64]
    pauses: NDArray[np.int64]
    busy_ns: int
    cpu_ns: int
    span_ns: int
    connections: int
    received_bytes: int
    overloaded: bool
