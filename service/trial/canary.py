"""A canary: it scores the requests whose routing key is in its share, and whatever it does not answer, the other does.

Both versions are in every worker, so that a connection's requests may go either way, and the share is one cell of the
supervisor: it begins, grows and ends in all workers at one moment. The choice needs nothing of either version's
fields: a key in the body is read by a decoder that skips all else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from service.counts.cells import SHARE
from service.logging import get_logger
from service.pipeline import ManyRowsError, Stages, WorkT
from service.trial.split import in_share, key_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.counts.cells import Cells
    from service.pipeline import Work
    from service.runtime import Model

__all__ = ["ARMS", "Canary", "Split"]

ARMS: Final = ("canary", "primary", "no_key", "fell_back")
"""What becomes of a request while a canary has a share: `no_key` and `fell_back` are answered by the primary."""

# It is taken out once so many requests fell back, less one for every so many that it answered.
_MOST_FAULTS: Final = 10.0
_FORGIVEN: Final = 0.02

_log: Final = get_logger("service.trial")


class Canary:
    """Counts of one worker, and when to take the canary out; all but `share` on the event loop.

    Args:
        cells: Counts shared with the supervisor.
        model: The canary.
        give_up: Called once, with what the canary said last, where it fails too often.
    """

    def __init__(self, cells: Cells, model: Model, give_up: Callable[[str], None]) -> None:
        self._supervisor = cells.supervisor
        self._values = cells.values
        self._arms = {arm: cells.take(arm_cell(model.label, arm), 1) for arm in ARMS}
        self._give_up = give_up
        self._faults = 0.0
        self._model = model

    def share(self) -> float:
        """Of the routing keys that it scores now."""
        return 0.0 if self._supervisor is None else self._supervisor[SHARE]

    def count(self, primary: Model, work: Work) -> Model:
        """Count what became of a request, and take the canary out if it fails too often; the model that it is for."""
        self._values[self._arms[work.arm]] += 1.0
        if work.arm == "canary":
            self._faults = max(0.0, self._faults - _FORGIVEN)
            return self._model
        if work.arm == "fell_back" and self._faults < _MOST_FAULTS:
            self._faults += 1.0
            _log.warning("canary_failed", request_id=work.request_id, error=work.fault)
            if self._faults >= _MOST_FAULTS:
                self._give_up(work.fault)
        return primary


def arm_cell(label: str, arm: str) -> str:
    """Name of the cell that counts an arm."""
    return f"canary {arm} {label}"


class Split(Stages[WorkT]):
    """Runs a request by the primary's stages or the canary's. Safe to call from several threads.

    Args:
        primary: Stages of the version that the rest goes to.
        canary: Those of the one on trial.
        state: Share and counts.
        versions: Names of both, as an answer's header says them.
        in_body: Whether bodies of this form can hold a routing key.
    """

    def __init__(
        self,
        primary: Stages[WorkT],
        canary: Stages[WorkT],
        state: Canary,
        versions: tuple[bytes, bytes],
        *,
        in_body: bool,
    ) -> None:
        self._infer = primary.infer
        self._primary = primary
        self._canary = canary
        self._state = state
        self._versions = versions
        self._in_body = in_body

    def run(self, work: WorkT) -> None:
        """Fill in the answer of a request; see `Stages.run`."""
        share = self._state.share()
        if share:
            self._route(work, share)
            if work.arm == "canary":
                try:
                    self._canary.run(work)
                except ManyRowsError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, the other version answers
                    fault = f"{type(error).__name__}: {error}"
                else:
                    work.version = self._versions[1]
                    return
                _begin_again(work)
                self._primary.run(work)  # what this refuses too is the client's fault
                work.arm, work.fault, work.version = "fell_back", fault, self._versions[0]
                return
        self._primary.run(work)
        work.version = self._versions[0]

    def read(self, work: WorkT) -> None:
        """As the primary does: nobody asks for a part."""
        self._primary.read(work)

    def write(self, work: WorkT) -> None:
        """As the primary does: nobody asks for a part."""
        self._primary.write(work)

    def _route(self, work: WorkT, share: float) -> None:
        key = work.routing_key
        if key is None and self._in_body:
            work.inflate()
            key = key_in(work.body, packed=work.packed)
        if key is None:
            work.arm = "no_key"
        else:
            work.arm = "canary" if in_share(key, share) else "primary"


def _begin_again(work: Any) -> None:
    """Forget what a version made of a request."""
    work.arm = "primary"
    work.started = work.decoded = work.encoded = work.inferred = 0.0
    work.top_k = 0
    work.feedback = None
    work.deflated = False
