"""Recorded requests scored once more, and how far the scores are from those that were answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from service.recording.doors import UnscorableError
from service.recording.records import files_of, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from service.recording.records import Recorded

__all__ = ["Report", "Version", "replay"]

_MOST_EXAMPLES: Final = 5


class Door(Protocol):
    """What scores."""

    model: str
    where: str

    def score(self, recorded: Recorded) -> NDArray[np.float32]:
        """Scores (N,) of a request."""


@dataclass(slots=True)
class Version:
    """What became of the requests that one version had scored.

    Attributes:
        model, manifest_sha256, precision: The version, as recorded.
        requests: Of it that were scored again.
        candidates: In them.
        differing: Requests of which a score is not the same float32.
        beyond: Requests of which a score is further away than the tolerance.
        largest: Largest absolute difference.
        total: Sum of the absolute differences.
    """

    model: str
    manifest_sha256: str
    precision: str
    requests: int = 0
    candidates: int = 0
    differing: int = 0
    beyond: int = 0
    largest: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Mean absolute difference of a candidate's score."""
        return self.total / self.candidates if self.candidates else 0.0


@dataclass(slots=True)
class Report:
    """What a replay found.

    Attributes:
        files: Files that were read.
        requests: Requests in them.
        incomplete: Last lines without their end.
        unscorable: Requests that were refused.
        versions: By what scored them first.
        examples: Of refused and of differing ones: where, which request, what is wrong.
    """

    files: int = 0
    requests: int = 0
    incomplete: int = 0
    unscorable: int = 0
    versions: dict[tuple[str, str, str], Version] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def beyond(self) -> int:
        """Requests with a score further away than the tolerance."""
        return sum(version.beyond for version in self.versions.values())

    def document(self, *, against: str, model: str, tolerance: float) -> dict[str, Any]:
        """All of it, as JSON has it.

        Args:
            against: What scored again.
            model: Id of its model.
            tolerance: What counts as the same.
        """
        versions = [
            {
                "model": version.model,
                "manifest_sha256": version.manifest_sha256,
                "precision": version.precision,
                "requests": version.requests,
                "candidates": version.candidates,
                "differing": version.differing,
                "beyond_tolerance": version.beyond,
                "largest_difference": version.largest,
                "mean_difference": version.mean,
            }
            for version in self.versions.values()
        ]
        return {
            "against": against,
            "model": model,
            "tolerance": tolerance,
            "files": self.files,
            "requests": self.requests,
            "incomplete_lines": self.incomplete,
            "unscorable": self.unscorable,
            "beyond_tolerance": self.beyond,
            "versions": versions,
            "examples": self.examples,
        }


def replay(places: Sequence[Path], door: Door, *, tolerance: float) -> Report:
    """Score every request of files, or of directories of them.

    Args:
        places: Files and directories.
        door: What scores.
        tolerance: Largest absolute difference of a score that still counts as the same.

    Raises:
        RecordsError: A file is none of recorded requests, or broken.
        DoorError: The service does not answer.
        OSError: A file cannot be read.
    """
    report = Report()
    for path in [path for place in places for path in files_of(place)]:
        report.files += 1
        for number, recorded in read_file(path):
            if recorded is None:
                report.incomplete += 1
                continue
            report.requests += 1
            why = _once_more(report, recorded, door, tolerance)
            if why and len(report.examples) < _MOST_EXAMPLES:
                report.examples.append(f"{path}, line {number}, request {recorded.request_id}: {why}")
    return report


def _once_more(report: Report, recorded: Recorded, door: Door, tolerance: float) -> str:
    """Compare one request; what is wrong with it, or nothing."""
    try:
        scores = door.score(recorded)
    except UnscorableError as error:
        report.unscorable += 1
        return f"not scored by {door.model}: {error}"
    key = recorded.model, recorded.manifest_sha256, recorded.precision
    version = report.versions.setdefault(key, Version(*key))
    answered = np.array(recorded.scores, np.float32)
    version.requests += 1
    version.candidates += len(answered)
    if scores.shape != answered.shape:
        version.differing += 1
        version.beyond += 1
        return f"expected {len(answered)} scores, got {len(scores)}"
    differences = np.abs(scores.astype(np.float64) - answered)
    largest = float(differences.max(initial=0.0))
    version.differing += largest > 0
    version.total += float(differences.sum())
    version.largest = max(version.largest, largest)
    if largest <= tolerance:
        return ""
    version.beyond += 1
    worst = int(differences.argmax())
    return f"candidate {worst}: answered {answered[worst]:.9g}, now {scores[worst]:.9g}"
