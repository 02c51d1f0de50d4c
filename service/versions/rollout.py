"""Which version every worker is to serve: looks at what is deployed, and takes back what turns out bad.

A version is proven by the first worker that serves it: a process of its own has read it, checked its digests and scored
its golden rows, while others served. Until then, whatever goes wrong means that it is refused. Later failures are tried
again, and if they stay, all workers go back to the version before. At the start there is nobody who serves: then the
version before the current one is tried, and the last that was proven. What all serve is noted in the store as `good`.

A canary is one half of what every worker serves. One half changes at a time, so that what fails is known; its share
of the traffic is told apart, and only while all have it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from service.bundle_format.manifest import BundleError
from service.logging import get_logger
from service.trial.trial import Trial
from service.versions.proven import Proven
from service.versions.store import StoreError, deployed, fallbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.versions.store import Deployed

__all__ = ["CRASHED", "GOOD_OUTCOMES", "Outcome", "Rollout", "reason_of"]

GOOD_OUTCOMES: Final = ("loaded", "trial_began", "trial_ended")
_ATTEMPTS: Final = 3
_CRASHES: Final = 2
CRASHED: Final = "crashed"
"""The kind of error of a process that ended without saying why."""
_RETRY_SECONDS: Final = 2.0
# Kinds of errors, as a label's values: few, whatever a bundle does.
_REASONS: Final = {
    "BundleMissingError": "missing",
    "BundleCorruptError": "corrupt",
    "BundleFormatError": "format",
    "BundleChangedError": "changed",
    "BundlePrecisionError": "precision",
    "BundleSignatureError": "signature",
    "SelfTestError": "golden_rows",
    "ScorerError": "graph",
    "StoreError": "no_version",
    "CanaryFailedError": "failed",
    CRASHED: "crashed",
    "timeout": "timeout",
}

_log: Final = get_logger("service.workers.supervisor")


def reason_of(kind: str) -> str:
    """The label of a kind of error."""
    return _REASONS.get(kind, "other")


def _same(one: Deployed, other: Deployed | None) -> bool:
    """Whether two are the same version, whatever is tried beside them."""
    return other is not None and one.manifest_sha256 == other.manifest_sha256 and one.path == other.path


def _kind_of(error: Exception) -> str:
    return "BundleMissingError" if isinstance(error, OSError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a change of versions ended.

    Attributes:
        outcome: "loaded", "refused" (nothing was changed), "undone" (all went back), or "fell_back" (at the start, to
            the version before); of a trial "trial_began", "trial_refused" or "trial_ended".
        version: Which version it was.
        reason: Why; empty if it was loaded.
        detail: What was expected and what came.
        at: When, in seconds of the epoch.
        seconds: How long it took, from when it began; 0 where a look found it.
    """

    outcome: str
    version: str
    reason: str
    detail: str
    at: float
    seconds: float


class Rollout:
    """The version that is served, and the one that is to be.

    Args:
        bundle: A bundle, or a store of them.
        count: Told the outcome and the reason of every change.

    Attributes:
        good: The version that all workers serve or served last.
        target: The version that all are to serve; `good` unless a change is under way.
        last: How the last change ended.
        refused: What is deployed was refused, and something else is served.
        ended: How many changes have ended.
        trial: What is on trial beside it.
    """

    def __init__(self, bundle: Path, count: Callable[[str, str], None]) -> None:
        self._bundle = bundle
        self._count = count
        self._refused: set[str] = set()
        self._unreadable = ""
        self._attempts = 0
        self._retry_at = 0.0
        self._began = 0.0
        self._took = 0.0  # by the change that is ending
        self._proven = Proven(bundle)
        self._crashes = 0
        self.refused = False
        self.ended = 0
        self.good: Deployed | None = None
        self.target: Deployed | None = None
        self.last: Outcome | None = None
        self.trial = Trial(bundle, self._refuse_trial)
        self._share = 0.0
        self._losses = 0  # of workers, since the canary's trial began
        self._looked = False

    def begin(self) -> None:
        """Read what is deployed at the start; whatever else is wrong with it, the first worker says."""
        try:
            self.good = self.target = deployed(self._bundle)
        except (OSError, BundleError, StoreError) as error:
            self._unreadable = str(error)
            self._fall_back(_kind_of(error), str(error))

    def start_failed(self, version: Deployed | None, kind: str, detail: str, *, sure: bool) -> bool:
        """A worker could not serve, and nobody has served yet.

        Args:
            version: What it was to serve.
            kind: Name of the error's class, or what else happened.
            detail: Its message.
            sure: It refused it; otherwise it may have ended for some other reason, and is believed the third time.

        Returns:
            Whether `target` is another version than that now.
        """
        if version != self.good:
            return True
        self._crashes += not sure
        if version is None or not (sure or self._crashes >= _ATTEMPTS):
            return False
        self._refused.add(version.manifest_sha256)
        return self._fall_back(kind, detail)

    def _fall_back(self, kind: str, detail: str) -> bool:
        before = next((it for it in fallbacks(self._bundle) if it.manifest_sha256 not in self._refused), None)
        if before is None:
            return False
        bad = self._bundle.name if self.good is None else self.good.version
        self.good = self.target = before
        self._end("fell_back", bad, kind, detail)
        return True

    def look(self, *, again: bool = False) -> None:
        """See whether another version is deployed.

        Args:
            again: Also take one that was refused before.
        """
        self._looked = True
        self._share = self.share
        self.trial.look(again=again)
        try:
            found = deployed(self._bundle)
        except (OSError, BundleError, StoreError) as error:
            if again or str(error) != self._unreadable:
                self._unreadable = str(error)
                self._end("refused", self._bundle.name, _kind_of(error), str(error))
            return
        self._unreadable = ""
        if found.manifest_sha256 in self._refused and not again and not _same(found, self.target):
            self.refused = True
            if self.good is None:
                return
            found = self.good
        else:
            self.refused = False
        found = self._with_canary(found)
        if found == self.target:
            return
        self._refused.discard(found.manifest_sha256)
        self.target, self._attempts, self._retry_at, self._began = found, 0, 0.0, monotonic()
        _log.info("reload_began", version=found.version, model=found.model_id, bundle=str(found.path))

    def _with_canary(self, found: Deployed) -> Deployed:
        """What all are to serve next on the way to what is deployed and tried."""
        wanted, good = self.trial.canary, self.good
        if good is not None and not _same(found, good) and (wanted is None or wanted != good.canary):
            wanted = None  # one after the other
        return replace(found, canary=wanted)

    @property
    def share(self) -> float:
        """Of the routing keys that the canary is to score now: none before every worker can, or once it is unwanted."""
        good, target = self.good, self.target
        if good is None or good.canary is None:
            return 0.0
        if target is not None and _same(target, good.canary):
            return self._share  # promoted, it keeps that until it has all
        return self.trial.share if good.canary == self.trial.canary else 0.0

    @property
    def may_start(self) -> bool:
        """Whether a process with the target may be started now; not shortly after one failed."""
        return monotonic() >= self._retry_at

    @property
    def due(self) -> float:
        """When one may be started (`monotonic`, seconds)."""
        return self._retry_at

    def done(self) -> None:
        """Every worker serves the target."""
        if self.target is not None and self.target != self.good:
            before, self.good = self.good, self.target
            self._took = monotonic() - self._began
            if not _same(self.good, before):
                self._end("loaded", self.good.version, "", "")
            elif self.good.canary is not None:
                self._losses = 0
                self._end("trial_began", self.good.canary.version, "", "")
            elif before is not None and before.canary is not None:
                self._end("trial_ended", before.canary.version, "", "")
            self.look()
        elif not self._looked:
            self.look()
        if self.good is not None:
            self._proven.note(self.good)

    def failed(self, kind: str, detail: str, *, proven: bool) -> None:
        """A process that was to serve the target did not come to it.

        Args:
            kind: Name of the error's class, or what else happened.
            detail: Its message.
            proven: Another worker serves the target.
        """
        target = self.target
        back = target is not None and target.canary is None and _same(target, self.good)
        if target is None or target == self.good or back:
            # On the way back to what was served: there is nothing else to serve.
            self._retry_at = monotonic() + _RETRY_SECONDS
            _log.error("reload_failed", reason=reason_of(kind), error=detail)
            return
        self._attempts += 1
        # Who ended without a word may have been killed by somebody; that is believed the second time.
        if self._attempts < (_ATTEMPTS if proven else _CRASHES if kind == CRASHED else 1):
            self._retry_at = monotonic() + _RETRY_SECONDS
            _log.warning("reload_retried", version=target.version, reason=reason_of(kind), error=detail)
            return
        good, self._retry_at, self._took = self.good, 0.0, monotonic() - self._began
        if target.canary is not None and _same(target, good):
            self.target = good
            self.trial.refuse(target.canary, kind, detail)
            self.look()
            return
        self._refused.add(target.manifest_sha256)
        self.target = good
        self._end("undone" if proven else "refused", target.version, kind, detail)

    def canary_failed(self, version: Deployed | None, detail: str) -> None:
        """A process that serves a version found that its canary fails too often: it is taken out.

        Args:
            version: What the process serves.
            detail: What the canary said last.
        """
        canary = None if version is None else version.canary
        if canary is not None and canary == self.trial.canary:
            self.trial.refuse(canary, "CanaryFailedError", detail)
            self.look()

    def lost(self, version: Deployed | None) -> None:
        """A worker ended unasked. Where that goes on, its canary may be why: it is taken out, and the next one tells.

        Args:
            version: What it served.
        """
        canary = None if version is None else version.canary
        if canary is None or canary != self.trial.canary:
            return
        self._losses += 1
        if self._losses >= _ATTEMPTS:
            self.trial.refuse(canary, CRASHED, f"expected workers that live, {self._losses} ended while it was tried")
            self.look()

    def status(self) -> dict[str, Any]:
        """What is served and what is to be, and how the last change ended."""
        return {
            "serves": None if self.good is None else self.good.version,
            "changing": self.target != self.good,
            "trial": self.trial.status(),
            "trial_refused": self.trial.fault if self.trial.refused else None,
            "share": self.share,
            "target": None if self.target is None else self.target.version,
            "deployed_refused": self.refused,
            "changes": self.ended,
            "last_change": None if self.last is None else asdict(self.last),
        }

    def _refuse_trial(self, version: str, kind: str, detail: str) -> None:
        self._end("trial_refused", version, kind, detail)

    def _end(self, outcome: str, version: str, kind: str, detail: str) -> None:
        reason = reason_of(kind) if kind else ""
        seconds, self._took = round(self._took, 3), 0.0
        self.last = Outcome(outcome, version, reason, detail, time(), seconds)
        self.ended += 1
        self._count(outcome, reason)
        if not outcome.startswith("trial_"):
            self.refused = outcome != "loaded"
        facts: dict[str, Any] = {"version": version, "seconds": seconds}
        if outcome in GOOD_OUTCOMES:
            _log.info(f"reload_{outcome}", **facts)
        else:
            served = None if self.good is None else self.good.version
            _log.error(f"reload_{outcome}", reason=reason, error=detail, serves=served, **facts)
