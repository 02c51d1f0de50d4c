"""FeatureEncoder: raw rows or columns to id matrices. The one piece of code that training, export and service share.

Encoding is `field.token` then `vocabulary.id`, and nothing else; this class only arranges fields in columns, checks
the names and says where a fault is. One id matrix a side: `context` (1 or N rows) and `candidate` (N rows).

Columns are encoded with one look-up call each; rows are turned into columns first, which makes them about 1.3 times
as dear at 39 fields and 100 rows, where the two steps value by value cost 4 to 6 times as much as columns
(`tests/service/features/bench_encoder.py` prints it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from service.features.codecs import LocatedError, NumericCodec, codec, numeric_block
from service.features.errors import FieldValueError, SchemaError, UnknownFieldError, describe
from service.features.fields import SIDES, Field, MultiValuedField, Side
from service.features.lookup import ID_BYTES
from service.features.plain import PlainEncoder
from service.features.store import Part, open_fields, save_fields, write_fields
from service.features.structure import RequestStructure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from service.features.codecs import Codec
    from service.features.schema import Use
    from service.features.vocabulary import AnyVocabulary

__all__ = ["ColumnSlice", "FeatureEncoder"]

_ROOTS: Final[dict[Side, str]] = {"context": "context", "candidate": "candidates"}


@dataclass(frozen=True, slots=True)
class ColumnSlice:
    """Where a field lies in its side's id matrix: columns first to first + width - 1."""

    name: str
    first: int
    width: int


def _matrix(columns: bytes, width: int, rows: int) -> NDArray[np.int32]:
    """Ids (rows, width), C-contiguous, from the bytes of width columns."""
    return np.frombuffer(columns, dtype=np.int32).reshape(width, rows).T.copy(order="C")


class FeatureEncoder:
    """Fields and their vocabularies, ready to encode.

    Args:
        fields: Fields that have columns, in column order within their side.
        vocabularies: One for each of these fields, no more.
        ignored: Fields a request may carry without effect.
        refused: Training-only fields, refused by name.

    Raises:
        SchemaError: A repeated name, a vocabulary too many or too few, or one that reserves the wrong number of ids.
    """

    def __init__(
        self,
        fields: Iterable[Field],
        vocabularies: Mapping[str, AnyVocabulary],
        *,
        ignored: Iterable[Field] = (),
        refused: Iterable[Field] = (),
    ) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self.ignored: tuple[Field, ...] = tuple(ignored)
        self.refused: tuple[Field, ...] = tuple(refused)
        everything = (*self.fields, *self.ignored, *self.refused)
        self._fields: dict[str, Field] = {field.name: field for field in everything}
        if len(self._fields) != len(everything):
            names = [field.name for field in everything]
            raise SchemaError(f"fields: expected distinct names, got {max(names, key=names.count)!r} twice")
        self._uses: dict[str, Use] = {field.name: "encoded" for field in self.fields}
        self._uses |= {field.name: "ignored" for field in self.ignored}
        self._uses |= {field.name: "refused" for field in self.refused}
        odd = {field.name for field in self.fields} ^ set(vocabularies)
        if odd:
            raise SchemaError(f"vocabularies: expected one for each encoded field, got a difference in {sorted(odd)}")
        for field in self.fields:
            if vocabularies[field.name].reserved != field.reserved:
                raise SchemaError(
                    f"field {field.name!r}: expected a vocabulary that reserves {field.reserved} ids, "
                    f"got {vocabularies[field.name].reserved}"
                )
        self._vocabularies = dict(vocabularies)
        self._codecs = {field.name: codec(field, vocabularies[field.name]) for field in self.fields}
        self._columns: dict[Side, tuple[ColumnSlice, ...]] = {side: self._layout(side) for side in SIDES}
        self._numeric = {
            side: {
                column.name: found
                for column in self._columns[side]
                if isinstance(found := self._codecs[column.name], NumericCodec)
            }
            for side in SIDES
        }
        self._names = {side: [column.name for column in self._columns[side]] for side in SIDES}
        self._widths = {side: sum(column.width for column in self._columns[side]) for side in SIDES}
        self._structure = RequestStructure(self._fields, self._uses)

    def _layout(self, side: Side) -> tuple[ColumnSlice, ...]:
        slices: list[ColumnSlice] = []
        first = 0
        for field in self.fields:
            if field.side == side:
                slices.append(ColumnSlice(field.name, first, field.width))
                first += field.width
        return tuple(slices)

    def field(self, name: str) -> Field:
        """The field of a name, whatever its use.

        Raises:
            UnknownFieldError: No such field.
        """
        try:
            return self._fields[name]
        except KeyError:
            raise UnknownFieldError("field", "a name of the schema", describe(name)) from None

    def vocabulary(self, name: str) -> AnyVocabulary:
        """The vocabulary of an encoded field.

        Raises:
            UnknownFieldError: No such field, or one without columns.
        """
        try:
            return self._vocabularies[name]
        except KeyError:
            raise UnknownFieldError("field", "the name of an encoded field", describe(name)) from None

    def columns(self, side: Side) -> tuple[ColumnSlice, ...]:
        """Layout of a side's id matrix, in column order."""
        return self._columns[side]

    def width(self, side: Side) -> int:
        """Number of columns of a side's id matrix."""
        return self._widths[side]

    # ---- encoding

    def encode_values(self, name: str, values: Sequence[object]) -> NDArray[np.int32]:
        """Ids of values of one field, shape (n, width of the field).

        Raises:
            FieldValueError: A value without a token; `where` reads `name[index]`.
        """
        found = self._column(name, values, lambda name, index: f"{name}[{index}]")
        return _matrix(found, self.field(name).width, len(values))

    def encode_columns(
        self,
        side: Side,
        columns: Mapping[str, Sequence[object]],
        rows: int,
        *,
        root: str | None = None,
        shared: bool = False,
    ) -> NDArray[np.int32]:
        """Ids of one side, from one array a field. An absent array is a column of missing values.

        Args:
            side: Which side.
            columns: Arrays by field name, each of `rows` values.
            rows: N.
            root: What `where` starts with; `context` or `candidates` if None.
            shared: The columns hold both sides (pointwise form): pass over those of the other.

        Returns:
            int32 (N, width), C-contiguous.

        Raises:
            RequestError: See the tree in `errors`; `where` reads `candidates.price_band[3]`.
        """
        root = _ROOTS[side] if root is None else root
        self._structure.check_columns(side, columns, rows, root, shared=shared)
        return self._columns_matrix(side, columns, rows, lambda name, index: f"{root}.{name}[{index}]")

    def encode_rows(
        self, side: Side, rows: Sequence[Mapping[str, object]], *, root: str | None = None, shared: bool = False
    ) -> NDArray[np.int32]:
        """Ids of one side, from one object a row. An absent key is a missing value.

        Args:
            side: Which side.
            rows: N objects.
            root: What `where` starts with; `context` or `candidates` if None. One row of the context has no index.
            shared: The rows hold both sides (pointwise form): pass over the fields of the other.

        Returns:
            int32 (N, width), C-contiguous.

        Raises:
            RequestError: See the tree in `errors`; `where` reads `candidates[3].price_band` or `context.hour`.
        """
        alone = root is None and side == "context" and len(rows) == 1
        start = _ROOTS[side] if root is None else root

        def place(index: int) -> str:
            return start if alone else f"{start}[{index}]"

        columns = self._structure.transposed(side, rows, place, shared=shared)
        return self._columns_matrix(side, columns, len(rows), lambda name, index: f"{place(index)}.{name}")

    def codec(self, name: str) -> Codec:
        """What turns raw values of an encoded field into ids, for doors that have columns of their own kind.

        Raises:
            UnknownFieldError: No such field, or one without columns.
        """
        try:
            return self._codecs[name]
        except KeyError:
            raise UnknownFieldError("field", "the name of an encoded field", describe(name)) from None

    def truncated(self, name: str, values: Sequence[object]) -> NDArray[np.bool_]:
        """Which values of a field lose elements to its `max_values`, shape (n,).

        Raises:
            FieldValueError: A value without tokens.
        """
        field = self.field(name)
        if not isinstance(field, MultiValuedField):
            return np.zeros(len(values), dtype=np.bool_)
        more = [len(field.tokens(raw, field.max_values + 1)) > field.max_values for raw in values]
        return np.array(more, dtype=np.bool_)

    def _column(self, name: str, values: Sequence[object], place: Callable[[str, int], str]) -> bytes:
        try:
            return self._codecs[name].column(values)
        except LocatedError as located:
            error = located.error
            element = error.where.removeprefix(name)  # "[2]" where an element of an array is at fault
            raise FieldValueError(place(name, located.index) + element, error.expected, error.got) from None

    def _columns_matrix(
        self, side: Side, columns: Mapping[str, Sequence[object]], rows: int, place: Callable[[str, int], str]
    ) -> NDArray[np.int32]:
        if rows == 1:
            alone = self._row_matrix(side, {name: values[0] for name, values in columns.items()})
            if alone is not None:
                return alone
        numeric = [name for name in self._numeric[side] if name in columns]
        block = numeric_block([self._numeric[side][name] for name in numeric], [columns[name] for name in numeric])
        done = {} if block is None else dict(zip(numeric, block, strict=True))
        parts = [
            done[name]
            if name in done
            else self._column(name, columns[name], place)
            if name in columns
            else self._absent(name, rows)
            for name in self._names[side]
        ]
        return _matrix(b"".join(parts), self._widths[side], rows)

    def _absent(self, name: str, rows: int) -> bytes:
        """Ids of a column of missing values."""
        missing = self._codecs[name].missing
        return b"".join(missing[at : at + ID_BYTES] * rows for at in range(0, len(missing), ID_BYTES))

    def _row_matrix(self, side: Side, row: Mapping[str, object]) -> NDArray[np.int32] | None:
        """The matrix of a single row without the detour over columns, or None where a value is refused."""
        codecs, get = self._codecs, row.get
        try:
            parts = [codecs[name].one(get(name)) for name in self._names[side]]
        except FieldValueError:
            return None
        return np.frombuffer(bytearray(b"").join(parts), dtype=np.int32).reshape(1, -1)

    # ---- what an encoder is made of

    def for_serving(self, dropped: Collection[str] = ()) -> FeatureEncoder:
        """The encoder a bundle carries: columns of used fields only.

        A dropped field is accepted and ignored, so that clients need not change when a retraining drops one. A
        training-only field is refused by name, dropped or not.

        Raises:
            UnknownFieldError: A dropped name is no field.
        """
        for name in dropped:
            self.field(name)
        used = [field for field in self.fields if not field.training_only and field.name not in dropped]
        return FeatureEncoder(
            used,
            {field.name: self._vocabularies[field.name] for field in used},
            ignored=(
                *self.ignored,
                *(field for field in self.fields if not field.training_only and field.name in dropped),
            ),
            refused=(*self.refused, *(field for field in self.fields if field.training_only)),
        )

    def save(self, directory: Path) -> None:
        """Write `features.json` and `vocabularies/` into an existing directory.

        Raises:
            FileExistsError: One of the files is there already.
        """
        save_fields(directory, self._parts())

    @classmethod
    def open(cls, directory: Path, *, verified: Mapping[str, str] | None = None) -> FeatureEncoder:
        """Read an encoder back, after checking size and SHA-256 of every file that `features.json` names.

        Args:
            directory: Holds `features.json` and `vocabularies/`.
            verified: SHA-256 by relative path of files the caller has digested already; these are compared, not
                digested again.

        Raises:
            SchemaError: A missing, changed or ill-formed file, or a path that leaves the directory.
        """
        opened = open_fields(directory, verified)
        encoder = cls(
            [part.field for part in opened.parts if part.use == "encoded"],
            {part.field.name: part.vocabulary for part in opened.parts if part.vocabulary is not None},
            ignored=[part.field for part in opened.parts if part.use == "ignored"],
            refused=[part.field for part in opened.parts if part.use == "refused"],
        )
        encoder.__dict__["digest"] = opened.digest
        return encoder

    @cached_property
    def plain(self) -> PlainEncoder:
        """The short way, for values in column order that a typed decoder has let through."""
        codecs = {side: {name: self._codecs[name] for name in self._names[side]} for side in SIDES}
        return PlainEncoder(codecs, self._widths)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `features.json`, which holds the digests of the vocabularies."""
        return write_fields(self._parts(), lambda _name, _content: None)

    def _parts(self) -> list[Part]:
        return [
            Part(field, self._uses[field.name], self._vocabularies.get(field.name))
            for field in (*self.fields, *self.ignored, *self.refused)
        ]
