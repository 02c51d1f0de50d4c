"""The candidate: which version of a store is on trial beside the current one, and how. `candidate.json` in the store.

Written aside and renamed, so that whoever looks sees the trial before or the one after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CANDIDATE", "Candidate", "CandidateError", "Mode", "read_candidate"]

CANDIDATE: Final = "candidate.json"
_LARGEST: Final = 1 << 16

Mode = Literal["canary", "shadow"]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class CandidateError(ValueError):
    """The file says something that it may not say."""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A version on trial.

    Attributes:
        format: What the file is.
        version: Of the format.
        name: Of the version on trial.
        mode: It scores a share of the requests, or all of them off the response path.
        share: Of the routing keys that a canary scores.
        tolerance: A shadow's score differs if it is further than this from the one that was answered.
    """

    name: str
    mode: Mode
    share: Share = 0.0
    tolerance: Share = 0.01
    format: Literal["reaction-candidate"] = "reaction-candidate"
    version: Literal[1] = 1

    def document(self) -> bytes:
        """As it is written."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def facts(self) -> dict[str, Any]:
        """For the admin API and the list of versions."""
        how = {"share": self.share} if self.mode == "canary" else {"tolerance": self.tolerance}
        return {"version": self.name, "mode": self.mode, **how}


def read_candidate(root: Path) -> Candidate | None:
    """The candidate of the store at a path; None where there is none.

    Raises:
        CandidateError: The file is no candidate's.
        OSError: It cannot be read.
    """
    path = root / CANDIDATE
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=Candidate)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CandidateError(f"{path}: expected a candidate, got {error}") from None
