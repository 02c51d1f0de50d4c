"""The header `traceparent`: which trace a request is part of (W3C Trace Context, section 3.2)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["TRACEPARENT", "TraceContext", "read_traceparent"]

TRACEPARENT: Final = b"traceparent"
_SAMPLED: Final = 1
# Later versions may say more after the flags; this one may not.
_form: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Where a request stands.

    Attributes:
        trace_id: Of the whole trace, 32 hexadecimal digits.
        span_id: Of the span that caused it, 16 hexadecimal digits.
        sampled: Whether the caller records it.
    """

    trace_id: str
    span_id: str
    sampled: bool


def read_traceparent(value: bytes) -> TraceContext | None:
    """What a header says; None where it says nothing that may be relied on, as the standard asks."""
    found = _form.fullmatch(value.strip())
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    return TraceContext(found[2].decode(), found[3].decode(), bool(int(found[4], 16) & _SAMPLED))
