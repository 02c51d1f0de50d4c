"""TypedReader: the short way from a body to ids, by decoders made for one model's fields.

A decoder that knows the names reads an object straight into a tuple in column order: no key is made, none looked up.
What it does not take (an unknown name, a boolean, a value without ids) goes the general way, `service.wire` and
`FeatureEncoder`, which says what is wrong; both give the same ids for whatever either accepts.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from service.body_faults import refuse_repeated_members
from service.features.plain import RefusedError
from service.wire import Members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.features import FeatureEncoder

__all__ = ["Decoded", "TypedReader"]

# No boolean: a dictionary takes it for the number it equals.
_Value: TypeAlias = int | float | str | list[int | float | str | None] | None
_Single: TypeAlias = int | float | str | None
_CONTEXT_NAME: Final = b"context"

_values_of: Final = msgspec.structs.astuple


class Decoded:
    """A body that was decoded, its values in column order.

    Attributes:
        request: The members beside context and candidates.
        rows: N.
        context: Values of the context's fields; None in the pointwise form.
        tuples: Values of each candidate, where they came as rows.
        columns: One array a field, where they came as columns.
        names: Names of the body's own members, and of context and candidates.
        text: The body if it is JSON, to look for repeated names in; MessagePack is taken at its word.
    """

    __slots__ = ("columns", "context", "names", "request", "rows", "text", "tuples")

    def __init__(self, request: Members, names: int, text: bytes | None) -> None:
        self.request = request
        self.names = names
        self.text = text
        self.rows = 0
        self.context: Sequence[Any] | None = None
        self.tuples: list[Sequence[Any]] = []
        self.columns: Sequence[Any] = ()

    def check(self) -> None:
        """Put None where nothing came, and look for repeated names.

        Raises:
            MalformedBodyError: A name is there twice.
        """
        names = self.names
        if self.context is not None:
            self.context, came = _filled(self.context, None)
            names += came
        if self.tuples:
            rows = [_filled(values, None) for values in self.tuples]
            self.tuples = [values for values, _ in rows]
            names += sum(came for _, came in rows)
        else:
            self.columns, came = _filled(self.columns, [None] * self.rows)
            names += came
        if self.text is not None:
            refuse_repeated_members(self.text, names)


def _filled(values: Sequence[Any], nothing: object) -> tuple[Sequence[Any], int]:
    absent = values.count(UNSET)
    if absent:
        values = [nothing if value is UNSET else value for value in values]
    return values, len(values) - absent


class _Shape:
    """Names in the order in which an object's values are laid out: those the model reads, then those it ignores."""

    def __init__(self, kind: str, encoder: FeatureEncoder, read: Iterable[str], ignored: Iterable[str]) -> None:
        self.read = tuple(read)
        self.used = len(self.read)
        names = [*self.read, *ignored]
        types = [_Value if encoder.field(name).kind == "multi_valued" else _Single for name in names]
        places = [f"f{place}" for place in range(len(names))]  # a name need be no identifier
        rename = dict(zip(places, names, strict=True))
        self.row = msgspec.defstruct(
            f"{kind}Row",
            [(place, kind | UnsetType, UNSET) for place, kind in zip(places, types, strict=True)],
            rename=rename,
            forbid_unknown_fields=True,
            gc=False,
        )
        self.columns = msgspec.defstruct(
            f"{kind}Columns",
            [(place, list[kind] | UnsetType, UNSET) for place, kind in zip(places, types, strict=True)],  # type: ignore[valid-type]
            rename=rename,
            forbid_unknown_fields=True,
            gc=False,
        )


class _Form:
    """Decoders of one form of request: with a context that all candidates share, or without (pointwise)."""

    def __init__(self, candidates: _Shape, context: _Shape | None) -> None:
        self.candidates = candidates
        self.context = context
        body = msgspec.defstruct(
            "Body",
            [
                ("candidates", list[candidates.row] | candidates.columns),  # type: ignore[name-defined]
                ("context", None | UnsetType, UNSET) if context is None else ("context", context.row),
            ],
            bases=(Members,),
            kw_only=True,
            forbid_unknown_fields=True,
            gc=False,
        )
        self.json: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode
        self.msgpack: Callable[[bytes], Any] = msgspec.msgpack.Decoder(body).decode


class TypedReader:
    """Reads the requests of one model.

    Args:
        encoder: The model's serving encoder.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._plain = encoder.plain
        context, candidate = self._plain.names["context"], self._plain.names["candidate"]
        ignored = {side: [f.name for f in encoder.ignored if f.side == side] for side in ("context", "candidate")}
        everything = chain.from_iterable(ignored.values())
        self._split = len(context)
        self._ranking = _Form(
            _Shape("Candidate", encoder, candidate, ignored["candidate"]),
            _Shape("Context", encoder, context, ignored["context"]),
        )
        self._pointwise = _Form(_Shape("Pointwise", encoder, (*context, *candidate), everything), None)

    def decode(self, body: bytes, *, packed: bool) -> Decoded | None:
        """Decode a body.

        Args:
            body: The whole body.
            packed: MessagePack, else JSON.

        Returns:
            None where the general way has to be gone.

        Raises:
            MalformedBodyError: A name is there twice.
        """
        first, second = self._ranking, self._pointwise
        if _CONTEXT_NAME not in body:
            first, second = second, first
        for form in (first, second):
            try:
                request = (form.msgpack if packed else form.json)(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            return _laid_out(form, request, None if packed else body)
        return None

    def encode(self, decoded: Decoded) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Encode what was decoded.

        Returns:
            context_ids int32 (1 or N, Cc) and candidate_ids (N, Ci), or None where the general way has to be gone.

        Raises:
            MalformedBodyError: A name is there twice.
        """
        try:
            return self._encoded(decoded)
        except RefusedError:
            pass
        decoded.check()
        try:
            return self._encoded(decoded)
        except RefusedError:
            return None

    def _encoded(self, decoded: Decoded) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of both sides.

        Raises:
            RefusedError: A value has no ids, or nothing came where a value is looked for.
        """
        plain, rows, split = self._plain, decoded.rows, self._split
        if rows == 1 and decoded.tuples:
            row = decoded.tuples[0]
            if decoded.context is not None:
                return plain.row("context", decoded.context), plain.row("candidate", row)
            return plain.row("context", row), plain.row("candidate", row[split:])
        columns = list(zip(*decoded.tuples, strict=True)) if decoded.tuples else decoded.columns
        if decoded.context is not None:
            return plain.row("context", decoded.context), plain.columns("candidate", columns, rows)
        return plain.columns("context", columns, rows), plain.columns("candidate", columns[split:], rows)


def _laid_out(form: _Form, request: Any, text: bytes | None) -> Decoded | None:
    """Values in column order, or None where the general way has to be gone.

    Args:
        form: By which the request was decoded.
        request: The decoded body.
        text: The body if it is JSON, to look for repeated names in.

    Raises:
        MalformedBodyError: A name is there twice.
    """
    given, context = request.candidates, form.context
    names = 1 + (request.top_k is not UNSET) + (request.request_id is not UNSET) + (request.routing_key is not UNSET)
    decoded = Decoded(request, names + (request.context is not UNSET), text)
    expected = decoded.names
    if context is not None:
        decoded.context = _values_of(request.context)
        if decoded.context.count(UNSET) == len(decoded.context):
            return None  # an empty context stands for none
        expected += context.used
    if type(given) is list:
        decoded.rows = len(given)
        decoded.tuples = list(map(_values_of, given))
        expected += decoded.rows * form.candidates.used
    else:
        decoded.columns = _values_of(given)
        lengths = {len(column) for column in decoded.columns if column is not UNSET}
        decoded.rows = lengths.pop() if len(lengths) == 1 else 0
        expected += form.candidates.used
    if not decoded.rows:
        return None
    # Most requests name what the model reads in every row, and nothing else: then there are as many colons. Should it
    # be by chance, a value is wanting where it is looked for, and `encode` checks.
    if text is not None and text.count(b":") != expected:
        decoded.check()
    return decoded
