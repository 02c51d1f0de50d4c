"""One input tensor's data: the protocol's datatypes, and how their elements become text or numbers.

A missing value is an empty text, a NaN, or null in JSON. Real numbers are taken in the precision they are declared in:
an FP32 holds float32(0.1) = 0.100000001490116..., in JSON as in binary, and that number is what a bucket's edges see.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import chain
from operator import ne
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

import msgspec
import numpy as np

from service.features.errors import FieldValueError, StructureError, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DATATYPES", "Datatype", "Tensor", "flat_data"]

_LENGTH_BYTES: Final = 4
# What packing a number raises if it does not fit; of an integer beyond float64 it is the latter.
_TOO_LARGE: Final = (OverflowError, struct.error)
_NAN: Final = math.nan
_NO_LENGTH: Final = "\0" * _LENGTH_BYTES
_length_at: Final = struct.Struct("<I").unpack_from


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the protocol that a field can take.

    Attributes:
        name: The protocol's name.
        family: What its elements are.
        code: Of its little-endian elements, for `struct` and for numpy; empty for text.
        bits: Width of an integer, else 0.
        signed: Whether an integer may be negative.
    """

    name: str
    family: Literal["text", "integer", "real"]
    code: str = ""
    bits: int = 0
    signed: bool = True

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)


# BOOL, FP16 and BF16 are missing: no field has values of a type whose text or precision depends on who wrote it.
DATATYPES: Final[dict[str, Datatype]] = {
    "BYTES": Datatype("BYTES", "text"),
    "FP32": Datatype("FP32", "real", "<f"),
    "FP64": Datatype("FP64", "real", "<d"),
    "INT8": Datatype("INT8", "integer", "<b", 8),
    "INT16": Datatype("INT16", "integer", "<h", 16),
    "INT32": Datatype("INT32", "integer", "<i", 32),
    "INT64": Datatype("INT64", "integer", "<q", 64),
    "UINT8": Datatype("UINT8", "integer", "<B", 8, signed=False),
    "UINT16": Datatype("UINT16", "integer", "<H", 16, signed=False),
    "UINT32": Datatype("UINT32", "integer", "<I", 32, signed=False),
    "UINT64": Datatype("UINT64", "integer", "<Q", 64, signed=False),
}
_FORMATS: Final = {name: struct.Struct(kind.code) for name, kind in DATATYPES.items() if kind.code}
_FP32: Final = _FORMATS["FP32"]
_DTYPES: Final = {name: np.dtype(kind.code) for name, kind in DATATYPES.items() if kind.code}
_BOUNDS: Final = {name: kind.bounds for name, kind in DATATYPES.items() if kind.bits}
# What most elements are in JSON.
_PLAIN_TYPES: Final[dict[str, type[object]]] = {
    name: {"text": str, "integer": int, "real": float}[kind.family] for name, kind in DATATYPES.items()
}
# Types that elements may have in JSON, and how they are called.
_JSON_TYPES: Final = {
    "text": (frozenset({str, type(None)}), "text or null"),
    "integer": (frozenset({int, type(None)}), "an integer or null"),
    "real": (frozenset({int, float, type(None)}), "a number or null"),
}


class Tensor(msgspec.Struct, gc=False):
    """An input tensor whose name, datatype and shape have been checked.

    Attributes:
        name: Its field.
        datatype: Of its elements.
        rows: Rows, and width: elements of each.
        listed: A row is a list of values, be it of one; else it is one value.
        data: Elements in row-major order; None where they are binary.
        body: The request's body.
        offset: Where in it the binary data begins, and size: how many bytes it has.
    """

    name: str
    datatype: Datatype
    rows: int
    width: int
    listed: bool
    data: list[Any] | None
    body: bytes = b""
    offset: int = 0
    size: int = 0

    def texts(self) -> list[str | None]:
        """Elements as text, integers as their decimal text; None or "" where a value is missing.

        Raises:
            RequestError: An element of another type, or binary data of another form.
        """
        if self.datatype.family == "text":
            return self.checked_data() if self.data is not None else self._binary_texts()
        if self.data is not None:
            return [None if value is None else str(value) for value in self.checked_data()]
        return list(map(str, self._binary_numbers().tolist()))

    def array(self) -> NDArray[np.float64]:
        """Elements as float64, NaN where a value is missing; an FP32 in JSON that is beyond its range is infinite.

        Raises:
            RequestError: An element of another type, or binary data of another size.
        """
        if self.data is None:
            # A binary FP64 is taken as it is, where it lies.
            return self._binary_numbers().astype(np.float64, copy=False)
        values = self.checked_data()
        try:
            numbers = np.array(values, dtype=np.float64)
        except _TOO_LARGE:
            self._refuse(_beyond_fp32, values, f"a finite number in the range of {self.datatype.name}")
        return numbers.astype(np.float32).astype(np.float64) if self.datatype.name == "FP32" else numbers

    def numbers(self) -> list[int | float | None]:
        """Elements as they are, None where a value is missing.

        Raises:
            RequestError: An element of another type or beyond its range, or binary data of another size.
        """
        name = self.datatype.name
        if self.data is None:
            form = f"<{self.rows * self.width}{self.datatype.code[1:]}"
            self._check_size(_FORMATS[name].size)
            return _none_for_nan(struct.unpack_from(form, self.body, self.offset))
        values = self.checked_data()
        if name != "FP32":
            return values
        form = f"<{len(values)}f"
        try:
            return _none_for_nan(struct.unpack(form, struct.pack(form, *[_NAN if v is None else v for v in values])))
        except _TOO_LARGE:
            self._refuse(_beyond_fp32, values, "a finite number in the range of FP32")

    def one(self) -> str | int | float | None:
        """The only element of a tensor of one, as its field takes it; None or "" where it is missing.

        Raises:
            RequestError: See `texts` and `numbers`.
        """
        name = self.datatype.name
        if self.data is None:
            form = _FORMATS.get(name)
            if form is None:
                return self._binary_text()
            if self.size != form.size:
                self._check_size(form.size)
            (number,) = form.unpack_from(self.body, self.offset)
            return None if number != number else cast("float", number)  # noqa: PLR0124 - NaN is what differs from itself
        value: Any = self.data[0]
        kind: Any = type(value)  # so that the type checker learns nothing false from the comparison
        if kind is not _PLAIN_TYPES[name]:
            self.checked_data()
        elif name in _BOUNDS:
            low, high = _BOUNDS[name]
            if not low <= value <= high:
                self.checked_data()
        if name != "FP32" or value is None:
            return cast("str | int | float | None", value)
        try:
            return cast("float", _FP32.unpack(_FP32.pack(value))[0])
        except _TOO_LARGE:
            return self.numbers()[0]  # which refuses it

    def _binary_text(self) -> str | None:
        start = self.offset + _LENGTH_BYTES
        end = self.offset + self.size
        if self.size < _LENGTH_BYTES or _length_at(self.body, self.offset)[0] != end - start:
            return self._binary_texts()[0]
        try:
            return str(self.body[start:end], "utf-8")
        except UnicodeDecodeError:
            return self._binary_texts()[0]

    def checked_data(self) -> list[Any]:
        """The elements of the JSON form, once their types and ranges are those of the datatype."""
        data, datatype = self.data, self.datatype
        assert data is not None  # noqa: S101 - the callers have looked
        allowed, expected = _JSON_TYPES[datatype.family]
        if datatype.family == "text":
            try:
                "".join(data)  # the quickest way to see that all are text
            except TypeError:
                pass
            else:
                return data
        if not allowed.issuperset(map(type, data)):
            self._refuse(lambda value: type(value) not in allowed, data, f"{expected}, as {datatype.name} has")
        if datatype.family == "integer":
            low, high = _BOUNDS[datatype.name]

            def outside(value: Any) -> bool:
                return value is not None and not low <= value <= high

            if any(map(outside, data)):
                self._refuse(outside, data, f"an integer from {low} to {high}, as {datatype.name} has")
        return data

    def _refuse(self, wrong: Callable[[Any], bool], data: list[Any], expected: str) -> NoReturn:
        index = next(index for index, value in enumerate(data) if wrong(value))
        raise FieldValueError(f"inputs.{self.name}.data[{index}]", expected, describe(data[index]))

    def _check_size(self, itemsize: int) -> None:
        wanted = self.rows * self.width * itemsize
        if self.size != wanted:
            raise StructureError(
                f"inputs.{self.name}.parameters.binary_data_size",
                f"{wanted}, for {self.rows * self.width} elements of {self.datatype.name}",
                f"{self.size}",
            )

    def _binary_numbers(self) -> NDArray[Any]:
        dtype = _DTYPES[self.datatype.name]
        self._check_size(dtype.itemsize)
        return np.frombuffer(self.body, dtype, self.rows * self.width, self.offset)

    def _binary_texts(self) -> list[str | None]:
        """Texts that each follow their length in four bytes."""
        count = self.rows * self.width
        region = self.body[self.offset : self.offset + self.size]
        plain = region.decode("ascii") if region.isascii() else None  # then a part of it needs no decoding of its own
        if plain is not None and count > 1:
            alike = _texts_of_one_length(plain, count)
            if alike is not None:
                return alike
        found: list[str | None] = []
        add = found.append
        at = 0
        try:
            for _ in range(count):
                (length,) = _length_at(region, at)
                at += _LENGTH_BYTES
                end = at + length
                add(plain[at:end] if plain is not None else region[at:end].decode("utf-8"))
                at = end
        except struct.error:
            at = self.size + 1
        except UnicodeDecodeError:
            where = f"inputs.{self.name}.data[{len(found)}]"
            raise FieldValueError(where, "UTF-8 text", "bytes that are not UTF-8") from None
        if at != self.size:
            raise StructureError(
                f"inputs.{self.name}.parameters.binary_data_size",
                f"the bytes of {count} elements, each after its length",
                f"{self.size}, which hold {'fewer' if at > self.size else 'more'}",
            )
        return found


def _texts_of_one_length(region: str, count: int) -> list[str | None] | None:
    """The texts of a region, if all that are not empty have one length of less than 128: what ids mostly have.

    A split at that length's four bytes takes half the time of stepping from text to text. If each part is a text and
    then lengths of zero, it is what stepping would have found, whatever the texts hold.

    Returns:
        The texts, or None: then they are to be stepped through.
    """
    given = region.lstrip("\0")
    empty, odd = divmod(len(region) - len(given), _LENGTH_BYTES)
    found: list[str | None] = [""] * empty
    length = ord(given[0]) if given and not odd else 0
    full, rest = divmod(len(region) - _LENGTH_BYTES * count, length or 1)
    head = f"{chr(length)}\0\0\0"
    if not length or rest or region.count(head) != full:
        return None
    for part in given.split(head)[1:]:
        if len(part) == length:
            found.append(part)
            continue
        empty, odd = divmod(len(part) - length, _LENGTH_BYTES)
        if odd or empty < 0 or part[length:] != _NO_LENGTH * empty:
            return None
        found.append(part[:length])
        found += [""] * empty
    return found if len(found) == count else None


def _none_for_nan(values: tuple[Any, ...]) -> list[int | float | None]:
    if any(map(ne, values, values)):  # NaN is what differs from itself
        return [None if math.isnan(value) else value for value in values]
    return list(values)


def _beyond_fp32(value: Any) -> bool:
    try:
        _FP32.pack(value or 0)
    except _TOO_LARGE:
        return True
    return False


def flat_data(name: str, data: list[Any], rows: int, width: int) -> list[Any]:
    """Elements of the JSON form in row-major order, whether they came flat or nested.

    Args:
        name: Of the tensor.
        data: The elements.
        rows: How many there are.
        width: Elements of each.

    Raises:
        StructureError: Not as many elements as the shape says, or rows of another length.
    """
    count = rows * width
    if len(data) == count and type(data[0]) is not list:
        return data
    if len(data) == rows and all(type(row) is list and len(row) == width for row in data):
        return list(chain.from_iterable(data))
    raise StructureError(f"inputs.{name}.data", f"{count} elements, as its shape says", _extent(data))


def _extent(data: list[Any]) -> str:
    if data and all(type(row) is list for row in data):
        lengths = sorted({len(row) for row in data})
        return f"{len(data)} arrays of {' to '.join(map(str, {lengths[0], lengths[-1]}))}"
    return f"{len(data)}"
