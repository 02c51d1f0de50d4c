"""`golden.jsonl`: real raw rows with the ids and the score that they must get."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from service.bundle_format import strict_json
from service.bundle_format.manifest import BundleFormatError, Inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GoldenRow", "decode_golden", "encode_golden"]

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A raw row and what it must become, one line of `golden.jsonl`.

    Attributes:
        context: Raw values of the context side by field name.
        candidate: Raw values of the candidate side.
        context_ids: Their ids in the layout of the bundle's encoder.
        candidate_ids: The same for the candidate side.
        pctr: Score of the unfused model, with all corrections that the graph's bias holds.
    """

    context: dict[str, Any]
    candidate: dict[str, Any]
    context_ids: list[_Id]
    candidate_ids: list[_Id]
    pctr: float


def encode_golden(rows: Iterable[GoldenRow], name: str) -> bytes:
    """Content of the file. Raw values come back exactly: text, integers of any size, and float64.

    Raises:
        BundleFormatError: A value that JSON cannot hold, such as NaN.
    """
    # The standard library's json, for integers of any size; ASCII, so that no reader splits at U+2028.
    try:
        lines = [json.dumps(msgspec.structs.asdict(row), allow_nan=False, separators=(",", ":")) for row in rows]
    except (TypeError, ValueError) as error:
        raise BundleFormatError(f"{name}: expected values that JSON can hold, got {error}") from error
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def decode_golden(content: bytes, name: str, widths: Inputs) -> tuple[GoldenRow, ...]:
    """Rows of the file's content.

    Args:
        content: The whole file.
        name: What messages call it.
        widths: How many ids a row must have.

    Raises:
        BundleFormatError: No JSON, other keys, other widths, a score that is no probability, or no row.
    """
    rows: list[GoldenRow] = []
    for number, line in enumerate(content.splitlines(), 1):
        where = f"{name}, line {number}"
        try:
            row = msgspec.convert(strict_json.loads(line), GoldenRow)
        except ValueError as error:  # msgspec's, json's and UTF-8's errors are all of this type
            raise BundleFormatError(f"{where}: {error}") from error
        got = Inputs(context_ids=len(row.context_ids), candidate_ids=len(row.candidate_ids))
        if got != widths:
            raise BundleFormatError(f"{where}: expected as many ids as {widths}, got {got}")
        if not 0.0 <= row.pctr <= 1.0:
            raise BundleFormatError(f"{where}, pctr: expected a probability, got {row.pctr!r}")
        rows.append(row)
    if not rows:
        raise BundleFormatError(f"{name}: expected one row or more, got none")
    return tuple(rows)
