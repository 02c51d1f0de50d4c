"""`reference.json`: what training saw, for the health of live features. Format "reaction-reference", version 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec

from service.bundle_format import strict_json
from service.bundle_format.manifest import BundleFormatError

__all__ = ["decode_reference"]

FORMAT: Final = "reaction-reference"
VERSION: Final = 1

_Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _ScoreHistogram(msgspec.Struct, frozen=True):
    edges: Annotated[list[float], msgspec.Meta(max_length=257)] = []
    counts: list[_Count] = []


class _IdHistogram(msgspec.Struct, frozen=True):
    ids: list[_Count] = []
    counts: list[_Count] = []
    other: _Count = 0


class _Field(msgspec.Struct, frozen=True):
    missing: _Ratio = 0.0
    out_of_vocabulary: _Ratio = 0.0
    truncated: _Ratio = 0.0
    histogram: _IdHistogram | msgspec.UnsetType = msgspec.UNSET


class _Reference(msgspec.Struct, frozen=True):
    """Members that the service reads, all of them optional; others are free."""

    rows: _Count = 0
    base_rate: _Ratio | None = None
    mean_score: _Ratio | None = None
    negative_sampling_rate: _Ratio | None = None
    score_histogram: _ScoreHistogram | msgspec.UnsetType = msgspec.UNSET
    fields: dict[str, _Field] = {}


def decode_reference(content: bytes, name: str) -> dict[str, Any]:
    """The statistics, as the file has them.

    Args:
        content: The whole file.
        name: What messages call it.

    Raises:
        BundleFormatError: No JSON, another format or version, a share that is none, or histograms that do not fit.
    """
    try:
        document = strict_json.loads(content)
    except ValueError as error:
        raise BundleFormatError(f"{name}: {error}") from error
    if not isinstance(document, dict):
        raise BundleFormatError(f"{name}: expected an object, got {type(document).__name__}")
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if document.get(key) != expected:
            got = repr(document.get(key))[:60]
            raise BundleFormatError(f"{name}, {key}: expected {expected!r}, got {got}")
    try:
        _check(msgspec.convert(document, _Reference))
    except ValueError as error:
        raise BundleFormatError(f"{name}: {error}") from error
    return document


def _check(reference: _Reference) -> None:
    scores = reference.score_histogram
    if scores is not msgspec.UNSET:
        edges = scores.edges
        if len(edges) != len(scores.counts) + 1 or not all(low < high for low, high in pairwise(edges)):
            raise ValueError("score_histogram: expected rising edges, one more than counts")
    for field, statistics in reference.fields.items():
        histogram = statistics.histogram
        if histogram is not msgspec.UNSET and len(histogram.ids) != len(histogram.counts):
            raise ValueError(f"fields, {field[:60]!a}, histogram: expected as many ids as counts")
