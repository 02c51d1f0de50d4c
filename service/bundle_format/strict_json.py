"""JSON of artefacts, read so that no two readers can take it for different documents.

The common readers let a name stand twice and take the last; they let NaN and numbers without end through, and nest as
deeply as their stack allows.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

__all__ = ["DEEPEST", "loads"]

DEEPEST: Final = 64


def loads(content: bytes) -> Any:
    """The document.

    Args:
        content: UTF-8.

    Raises:
        ValueError: No JSON, a name given twice in one object, NaN, infinity, a number outside of float64, an integer
            of more digits than Python reads, or nesting deeper than `DEEPEST`.
    """
    try:
        document = json.loads(
            content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError(str(error)) from error
    _refuse_depth(document)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"expected each name once in an object, got {max(names, key=names.count)[:60]!a} twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a number in the float64 range, got {text[:60]}")
    return number


def _refuse_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"expected at most {DEEPEST} levels, got more")
