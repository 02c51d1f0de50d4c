"""Fields: how a raw value becomes a token. The first of the contract's two pure steps.

A field is a frozen declaration. `token(raw)` gives the text that the vocabulary numbers, or None where the value is
missing; a multi-valued field gives `tokens(raw)`. One value has one token, whatever it came in: text is taken as it
is, an integer becomes its decimal text, so `"007"`, `"7"` and `7` are two tokens. Floats and booleans in a
categorical field are refused, because their text depends on who wrote them (`1.0`, `1`, `1e0`, `true`).

Numbers are bucketised here, in float64 and in Python, never in the graph: float32 puts some integers in another
bucket.
"""

from __future__ import annotations

import math
import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, get_args

from service.features.errors import FieldValueError, SchemaError, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CategoricalField",
    "Field",
    "MultiValuedField",
    "NumericField",
    "Pooling",
    "RawValue",
    "Side",
]

Side = Literal["context", "candidate"]
Pooling = Literal["sum", "mean"]
RawValue: TypeAlias = "str | int | float | list[str | int] | tuple[str | int, ...] | None"

SIDES: Final[tuple[Side, ...]] = get_args(Side)

# 640 decimal digits: the lowest limit Python's int-to-text conversion can be set to, so that an integer has the same
# token (or is refused) under every interpreter setting.
LONGEST_INT_DIGITS: Final = 640
LARGEST_INT: Final = 10**LONGEST_INT_DIGITS

# Stricter than float(): no spaces, underscores, "nan", "inf" or digits other than 0-9. No text matches it in two ways,
# which keeps a search linear in the length of a text made to be slow.
NUMBER_PATTERN: Final = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_is_number = re.compile(NUMBER_PATTERN).fullmatch

LARGEST_MAX_VALUES: Final = 1024
_LONG: Final = 1024  # so many elements of an array are looked at together


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8: false where it holds a lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text_token(raw: object, where: str, expected: str) -> str:
    """Token of one categorical value; "" stays "" (missing). Types are checked first: 1 == 1.0 == True."""
    if isinstance(raw, str):
        if not is_utf8(raw):
            raise FieldValueError(where, "text without lone surrogates", describe(raw))
        return str.__str__(raw)  # an exact str: an enum's own __str__ would say its name
    if isinstance(raw, int) and not isinstance(raw, bool):
        if not -LARGEST_INT < raw < LARGEST_INT:
            raise FieldValueError(where, f"an integer of at most {LONGEST_INT_DIGITS} digits", describe(raw))
        return f"{raw:d}"
    raise FieldValueError(where, expected, describe(raw))


def _are_tokens(elements: Sequence[object]) -> bool:
    """Whether a long array holds nothing but text and integers as they may be; what is wrong with it, others say.

    A million elements fit into one request: a name for each, in case it is refused, takes a second.
    """
    kinds = set(map(type, elements))
    if not kinds <= {str, int}:
        return False
    texts = [element for element in elements if type(element) is str]
    numbers = [element for element in elements if type(element) is int]
    return is_utf8("".join(texts)) and (not numbers or (min(numbers) > -LARGEST_INT and max(numbers) < LARGEST_INT))


def _check_common(name: object, side: object) -> None:
    """Refuse a name or a side that no request could address.

    Raises:
        SchemaError: The name is empty, no text or not UTF-8, or the side is neither context nor candidate.
    """
    if not isinstance(name, str) or not name or not is_utf8(name):
        raise SchemaError(f"field name: expected non-empty UTF-8 text, got {describe(name)}")
    if side not in SIDES:
        raise SchemaError(f"field {name!r}, side: expected one of {', '.join(SIDES)}, got {describe(side)}")


def _check_constant(field: Field) -> None:
    """Refuse a serving constant that the field itself could not encode."""
    try:
        field.tokens(field.serving_constant)
    except FieldValueError as error:
        raise SchemaError(
            f"field {field.name!r}, serving_constant: expected {error.expected}, got {error.got}"
        ) from error


def _checked_edges(name: str, edges: Iterable[object]) -> tuple[float, ...]:
    """Edges as plain float64.

    Raises:
        SchemaError: One that is no finite number, or not above the one before it.
    """
    checked: list[float] = []
    for position, edge in enumerate(edges):
        where = f"field {name!r}, edges[{position}]"
        number = isinstance(edge, (int, float)) and not isinstance(edge, bool)
        if not number or not -sys.float_info.max <= edge <= sys.float_info.max:  # type: ignore[operator]
            raise SchemaError(f"{where}: expected a finite number, got {describe(edge)}")
        checked.append(float(edge))  # type: ignore[arg-type]
        if position and checked[position] <= checked[position - 1]:
            raise SchemaError(f"{where}: expected more than the edge before it, got {describe(edge)}")
    return tuple(checked)


@dataclass(frozen=True, slots=True)
class CategoricalField:
    """One value out of many: text or an integer.

    Attributes:
        name: Key in requests and column in raw data.
        side: `context` (shared by the candidates of a request) or `candidate`.
        serving_constant: None for an ordinary field. Otherwise the field exists in training only (a position, say)
            and serving reads this value for every row; `""` stands for "missing".
    """

    kind: ClassVar[str] = "categorical"
    width: ClassVar[int] = 1
    reserved: ClassVar[int] = 2

    name: str
    side: Side
    serving_constant: RawValue = None

    def __post_init__(self) -> None:
        _check_common(self.name, self.side)
        _check_constant(self)

    @property
    def training_only(self) -> bool:
        """Whether requests may not carry this field."""
        return self.serving_constant is not None

    def token(self, raw: object) -> str | None:
        """Token of a raw value, None where it is missing (None or `""`).

        Raises:
            FieldValueError: A float, boolean, array, over-long integer or text with a lone surrogate.
        """
        if raw is None:
            return None
        return _text_token(raw, self.name, "text or an integer") or None

    def tokens(self, raw: object) -> tuple[str, ...]:
        """The token as a tuple of none or one, so that fitting treats all kinds alike."""
        token = self.token(raw)
        return () if token is None else (token,)


@dataclass(frozen=True, slots=True)
class NumericField:
    """A number, seen through buckets.

    Attributes:
        name: Key in requests and column in raw data.
        side: `context` or `candidate`.
        edges: Ascending finite float64 bucket edges; bucket k holds edges[k-1] <= v < edges[k].
        serving_constant: See `CategoricalField`.
    """

    kind: ClassVar[str] = "numeric"
    width: ClassVar[int] = 1
    reserved: ClassVar[int] = 2

    name: str
    side: Side
    edges: tuple[float, ...]
    serving_constant: RawValue = None

    def __post_init__(self) -> None:
        _check_common(self.name, self.side)
        object.__setattr__(self, "edges", _checked_edges(self.name, self.edges))
        _check_constant(self)

    @property
    def training_only(self) -> bool:
        """Whether requests may not carry this field."""
        return self.serving_constant is not None

    def number(self, raw: object) -> float | None:
        """The float64 a raw value stands for, None where it is missing.

        Raises:
            FieldValueError: Neither number nor numeric text, or outside the finite float64 range.
        """
        if raw is None:
            return None
        if isinstance(raw, str):
            if not raw:
                return None
            if _is_number(raw) is None:
                raise FieldValueError(self.name, "a number or numeric text", describe(raw))
        elif isinstance(raw, bool) or not isinstance(raw, (int, float)):
            raise FieldValueError(self.name, "a number or numeric text", describe(raw))
        try:
            value = float(raw)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise FieldValueError(self.name, "a finite number in the float64 range", describe(raw))
        return value

    def token(self, raw: object) -> str | None:
        """Number of the bucket a raw value falls in, as decimal text; None where it is missing.

        Raises:
            FieldValueError: See `number`.
        """
        value = self.number(raw)
        return None if value is None else str(bisect_right(self.edges, value))

    def tokens(self, raw: object) -> tuple[str, ...]:
        """The token as a tuple of none or one, so that fitting treats all kinds alike."""
        token = self.token(raw)
        return () if token is None else (token,)


@dataclass(frozen=True, slots=True)
class MultiValuedField:
    """Several values of one vocabulary: tags, genres.

    Attributes:
        name: Key in requests and column in raw data.
        side: `context` or `candidate`.
        max_values: Columns in the side's id matrix; values past it are cut off, and counted.
        pooling: How the model joins the embeddings of the values.
        separator: What splits the text form; an array needs none.
        serving_constant: See `CategoricalField`.
    """

    kind: ClassVar[str] = "multi_valued"
    reserved: ClassVar[int] = 3

    name: str
    side: Side
    max_values: int
    pooling: Pooling = "sum"
    separator: str = "|"
    serving_constant: RawValue = None

    def __post_init__(self) -> None:
        _check_common(self.name, self.side)
        count: object = self.max_values
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= LARGEST_MAX_VALUES:
            raise SchemaError(
                f"field {self.name!r}, max_values: expected an integer from 1 to {LARGEST_MAX_VALUES}, "
                f"got {describe(count)}"
            )
        if self.pooling not in get_args(Pooling):
            raise SchemaError(f"field {self.name!r}, pooling: expected sum or mean, got {describe(self.pooling)}")
        separator: object = self.separator
        if not isinstance(separator, str) or not separator or not is_utf8(separator):
            raise SchemaError(f"field {self.name!r}, separator: expected non-empty text, got {describe(separator)}")
        if isinstance(self.serving_constant, list):
            object.__setattr__(self, "serving_constant", tuple(self.serving_constant))
        _check_constant(self)

    @property
    def width(self) -> int:
        """Columns in the side's id matrix."""
        return self.max_values

    @property
    def training_only(self) -> bool:
        """Whether requests may not carry this field."""
        return self.serving_constant is not None

    def tokens(self, raw: object, most: int | None = None) -> tuple[str, ...]:
        """Tokens of a raw value in its own order, not yet cut to `max_values`; empty where it is missing.

        Text is split at the separator, elements of an array are taken whole, empty elements are skipped. A lone
        integer is an array of one, so that a column of single values reads the same from every format.

        Args:
            raw: The value. All of it is checked.
            most: How many tokens, from the first; None for all.

        Raises:
            FieldValueError: Neither text nor an array of text and integers; `where` names the element.
        """
        if raw is None:
            return ()
        if isinstance(raw, (list, tuple)):
            if len(raw) > _LONG and _are_tokens(raw):
                return tuple(islice(filter(None, (e if type(e) is str else str(e) for e in raw)), most))
            elements = (
                _text_token(element, f"{self.name}[{position}]", "text or an integer")
                for position, element in enumerate(raw)
            )
            return tuple(token for token in elements if token)[:most]
        text = _text_token(raw, self.name, "text, or an array of text and integers")
        return tuple(islice(filter(None, text.split(self.separator)), most))


Field: TypeAlias = CategoricalField | NumericField | MultiValuedField
