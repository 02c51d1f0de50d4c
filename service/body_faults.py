"""Finding out what is wrong with a body. Only the look for repeated members runs on good bodies too."""

from __future__ import annotations

import json
import math
import re
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.errors import MalformedBodyError, MemberError
from service.features.errors import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "explain_malformed",
    "explain_misshapen",
    "numbers_out_of_range",
    "read_text_numbers",
    "refuse_repeated_members",
]

MEMBERS: Final = ("candidates", "context", "request_id", "routing_key", "top_k")

_BYTE_OF: Final = re.compile(r"\s*\(byte (\d+)\)")
# Escapes in the order they stand: pairs are passed over, what is left of the surrogates is alone.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# What Python and JavaScript write where JSON has no number.
_NO_NUMBER: Final = re.compile(rb"(?:NaN|-?Infinity)(?![A-Za-z0-9_])")
_WRONG_TYPE: Final = re.compile(r"Expected `(\w+)`, got `(\w+)`(?: - at `\$\.?(.*)`)?")
_TYPES: Final = {
    "object": "an object",
    "array": "an array",
    "str": "text",
    "int": "an integer",
    "float": "a float",
    "bool": "a boolean",
    "null": "null",
}
_LONGEST_INTEGER: Final = 640
_LONGEST_QUOTE: Final = 60
# Reading a body again takes many times its length; of a longer one the decoder's own message has to do.
_LONGEST_EXPLAINED: Final = 262_144
# What may stand before the colon after a member's name.
_BEFORE_COLON: Final = (b'":', b" :", b"\n:", b"\t:", b"\r:")


class _OutOfRangeNumber(str):
    """Text of a number no float64 or integer token can hold."""

    __slots__ = ()


def refuse_repeated_members(body: bytes, names: int) -> None:
    """Refuse a JSON body that names a member twice; parsers differ in which of the two they keep.

    A document has one colon outside of text for each member, and decoded objects hold each name once. So as many
    names as colons means that none is repeated. Colons inside of text make the count too high: then only those that
    can follow a name are counted, and if they are too many still, the body is read again, the slow way.

    Args:
        body: A well-formed JSON document.
        names: Names in all its decoded objects together.

    Raises:
        MalformedBodyError: A name is there twice.
    """
    if body.count(b":") == names or sum(map(body.count, _BEFORE_COLON)) == names:
        return

    def pairs(members: list[tuple[str, Any]]) -> None:
        seen = set()
        for name, _ in members:
            if name in seen:
                raise MalformedBodyError(
                    f"The body names a member twice: {name!r}.", where=name, expected="each name once", got="it twice"
                )
            seen.add(name)

    json.loads(body, object_pairs_hook=pairs)


def explain_malformed(body: bytes, error: Exception, *, packed: bool) -> MalformedBodyError:
    """Say where a body stops being a document.

    Args:
        body: The whole body.
        error: What the decoder raised: a `msgspec.DecodeError` or a `UnicodeDecodeError`.
        packed: MessagePack, else JSON.
    """
    if not body:
        return MalformedBodyError("The body is empty.", where="byte 0", expected="a document", got="nothing")
    if isinstance(error, UnicodeDecodeError):
        # The error counts from the start of its string; in a packed body not even the whole can be decoded.
        position = None if packed else _first_not_utf8(body)
        return _malformed("text is not UTF-8", position, "UTF-8 text")
    reason = str(error)
    place = _BYTE_OF.search(reason)
    if place is None:
        # The decoder takes the half of a surrogate pair for the end of the body.
        lone = next((escape.start() for escape in _ESCAPE.finditer(body) if escape["lone"]), None)
        if lone is not None:
            return _malformed("a surrogate escape has no partner", lone, "Unicode text")
        return _malformed("the body ends inside of the document", len(body), "a whole document")
    reason = (
        _BYTE_OF.sub("", reason).removeprefix("JSON is malformed: ").removeprefix("MessagePack data is malformed: ")
    )
    # The decoder has stepped over the first trailing byte when it complains.
    position = int(place[1]) - (reason == "trailing characters")
    literal = None if packed else _no_number(body, position)
    if literal is not None:
        start, got = literal
        return MalformedBodyError(
            f"The body cannot be read: expected a number, got {got} at byte {start}.",
            where=f"byte {start}",
            expected="a number",
            got=got,
        )
    return _malformed(reason, position, "a valid document")


def _no_number(body: bytes, position: int) -> tuple[int, str] | None:
    """Start and text of the literal NaN, Infinity or -Infinity at which a JSON decoder stopped, if it is one."""
    start = position - (body[position - 1 : position] == b"-")  # the decoder has stepped over the sign
    found = _NO_NUMBER.match(body, start)
    return None if found is None else (start, found[0].decode())


def _first_not_utf8(body: bytes) -> int | None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def _malformed(reason: str, position: int | None, expected: str) -> MalformedBodyError:
    where = "body" if position is None else f"byte {position}"
    at = "" if position is None else f" at byte {position}"
    return MalformedBodyError(f"The body cannot be read: {reason}{at}.", where=where, expected=expected, got=reason)


def explain_misshapen(body: bytes, error: Exception, *, packed: bool) -> MemberError:
    """Say which member of a well-formed body has the wrong name, type or value.

    Args:
        body: The whole body.
        error: What the decoder raised; its text is the answer if nothing better is found.
        packed: MessagePack, else JSON.
    """
    fallback = _first_fault(str(error))
    if len(body) > _LONGEST_EXPLAINED:
        return fallback
    try:
        document = msgspec.msgpack.decode(body) if packed else read_text_numbers(body)
        return next(chain(numbers_out_of_range(document, ""), _shape_faults(document)), fallback)
    except (ValueError, RecursionError):
        return fallback


def _first_fault(reason: str) -> MemberError:
    """What the decoder's own message says of a body that breaks off later, or that cannot be read again."""
    wrong = _WRONG_TYPE.fullmatch(reason)
    if wrong is not None and {wrong[1], wrong[2]} <= _TYPES.keys():
        return MemberError(wrong[3] or "body", _TYPES[wrong[1]], _TYPES[wrong[2]])
    return MemberError("body", "a scoring request", f"one with a fault ({reason})")


def read_text_numbers(body: bytes) -> Any:
    """Read JSON; numbers that do not fit stay text of their own type."""

    def integer(text: str) -> Any:
        return int(text) if len(text) <= _LONGEST_INTEGER else _OutOfRangeNumber(text)

    def real(text: str) -> Any:
        return float(text) if math.isfinite(float(text)) else _OutOfRangeNumber(text)

    return json.loads(body, parse_int=integer, parse_float=real)


def numbers_out_of_range(value: Any, where: str) -> Iterator[MemberError]:
    """Every number of a document from `read_text_numbers` that no float64 or integer token can hold."""
    if isinstance(value, _OutOfRangeNumber):
        shown = value if len(value) <= _LONGEST_QUOTE else f"{value[:_LONGEST_QUOTE]}... ({len(value)} characters)"
        yield MemberError(where, "a number in the float64 range", shown)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from numbers_out_of_range(member, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from numbers_out_of_range(element, f"{where}[{index}]")


def _shape_faults(document: Any) -> Iterator[MemberError]:
    if not isinstance(document, dict):
        yield MemberError("body", "an object", describe(document))
        return
    for name in document:
        if name not in MEMBERS:
            shown = name if isinstance(name, str) else describe(name)
            yield MemberError(shown, f"one of {', '.join(MEMBERS)}", "an unknown member")
    yield from _candidate_faults(document)
    context = document.get("context")
    if context is not None and not isinstance(context, dict):
        yield MemberError("context", "an object or null", describe(context))
    elif context is not None:
        yield from _name_faults("context", context)
    top_k = document.get("top_k")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        yield MemberError("top_k", "an integer of at least 1", describe(top_k))
    request_id = document.get("request_id")
    if request_id is not None:
        yield MemberError("request_id", "1 to 128 visible ASCII characters", describe(request_id))
    routing_key = document.get("routing_key")
    if routing_key is not None:
        yield MemberError("routing_key", "text of 1 to 256 characters", describe(routing_key))


def _candidate_faults(document: dict[Any, Any]) -> Iterator[MemberError]:
    form = "an array of objects, or an object of arrays"
    if "candidates" not in document:
        yield MemberError("candidates", form, "nothing")
        return
    candidates = document["candidates"]
    if isinstance(candidates, list):
        for index, row in enumerate(candidates):
            if not isinstance(row, dict):
                yield MemberError(f"candidates[{index}]", "an object", describe(row))
            else:
                yield from _name_faults(f"candidates[{index}]", row)
    elif isinstance(candidates, dict):
        yield from _name_faults("candidates", candidates)
        for name, column in candidates.items():
            if not isinstance(column, list):
                yield MemberError(f"candidates.{name}", "an array", describe(column))
    else:
        yield MemberError("candidates", form, describe(candidates))


def _name_faults(where: str, names: dict[Any, Any]) -> Iterator[MemberError]:
    for name in names:
        if not isinstance(name, str):
            yield MemberError(where, "names that are text", describe(name))
