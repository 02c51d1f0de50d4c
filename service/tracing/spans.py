"""A request as spans in the JSON form of the OpenTelemetry protocol (OTLP 1.x, `ExportTraceServiceRequest`).

Ids are hexadecimal text there, and 64-bit numbers are text. The form is small and needs no library.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Traced", "encode_export", "spans_of"]

_INTERNAL: Final = 1
_SERVER: Final = 2
_ERROR: Final = 2
_SERVER_FAULT: Final = 500
_STAGES: Final = ("queue", "decode", "encode", "infer", "respond")


class Traced(NamedTuple):
    """A request that is over.

    Attributes:
        trace_id, parent_id: Its trace, and the span that caused it; the latter empty at the root.
        span_id: Its own.
        route: What it is counted as.
        status: Of its answer.
        wall_ns: When it was over, nanoseconds since 1970.
        marks: The same and its stages' beginnings in seconds of `perf_counter`: received, started, decoded, encoded,
            inferred, ended; 0.0 where a stage was not reached.
        facts: Further attributes.
    """

    trace_id: str
    parent_id: str
    span_id: str
    route: str
    status: int
    wall_ns: int
    marks: tuple[float, ...]
    facts: Mapping[str, str | int]


def spans_of(traced: Traced) -> list[dict[str, Any]]:
    """The request's span, and one a stage that it went through."""
    *begins, ended = traced.marks

    def at(mark: float) -> str:
        return str(traced.wall_ns - round((ended - mark) * 1e9))

    begun = [mark for mark in begins if mark]
    request = {
        "traceId": traced.trace_id,
        "spanId": traced.span_id,
        "name": f"POST {traced.route}",
        "kind": _SERVER,
        "startTimeUnixNano": at(begun[0]) if begun else str(traced.wall_ns),
        "endTimeUnixNano": str(traced.wall_ns),
        "attributes": _attributes(
            {
                "http.request.method": "POST",
                "http.route": traced.route,
                "http.response.status_code": traced.status,
                **traced.facts,
            }
        ),
    }
    if traced.parent_id:
        request["parentSpanId"] = traced.parent_id
    if traced.status >= _SERVER_FAULT:
        request["status"] = {"code": _ERROR}
    spans = [request]
    for place, name in enumerate(_STAGES):
        begin, end = traced.marks[place], traced.marks[place + 1]
        if begin and end:
            stage = {"traceId": traced.trace_id, "spanId": new_id(8), "parentSpanId": traced.span_id, "name": name}
            spans.append({**stage, "kind": _INTERNAL, "startTimeUnixNano": at(begin), "endTimeUnixNano": at(end)})
    return spans


def encode_export(spans: Iterable[Mapping[str, Any]], resource: Mapping[str, str | int]) -> bytes:
    """A body for a collector's `/v1/traces`.

    Args:
        spans: As of `spans_of`.
        resource: Attributes of this process.
    """
    scope = {"scope": {"name": "service.tracing"}, "spans": list(spans)}
    return msgspec.json.encode(
        {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}
    )


def new_id(size: int) -> str:
    """A random id of so many bytes, in hexadecimal digits; never all zeros, which stands for none."""
    while True:
        number = os.urandom(size)
        if any(number):
            return number.hex()


def _attributes(facts: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(fact)} if isinstance(fact, int) else {"stringValue": fact}}
        for key, fact in facts.items()
    ]
