"""PlainEncoder: the encoder's short way, for values that a typed decoder has let through and that came in column order.

It takes no names and says of no fault where it is: a caller that is refused goes the encoder's own way, which does.
Ids are the same by either; `tests/service/test_typed.py` holds them against each other.
"""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING

import numpy as np

from service.features.codecs import REFUSALS, LocatedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.features.codecs import Codec
    from service.features.fields import Side

__all__ = ["PlainEncoder", "RefusedError"]


class RefusedError(Exception):
    """A value that has no ids; the encoder's own way says which and why."""


class PlainEncoder:
    """Ids of values in column order.

    Args:
        codecs: Of each side, by field name in column order.
        widths: Columns of each side's id matrix.
    """

    def __init__(self, codecs: Mapping[Side, Mapping[str, Codec]], widths: Mapping[Side, int]) -> None:
        self.names: dict[Side, tuple[str, ...]] = {side: tuple(own) for side, own in codecs.items()}
        self._codecs = {side: tuple(own.values()) for side, own in codecs.items()}
        self._tables = {side: tuple(codec.table for codec in own.values()) for side, own in codecs.items()}
        self._widths = dict(widths)

    def row(self, side: Side, values: Sequence[object]) -> NDArray[np.int32]:
        """Ids of one row.

        Args:
            side: Whose fields.
            values: Text, numbers, None or arrays, one a field; never a boolean. What follows them is not looked at.

        Returns:
            int32 (1, width), read-only.

        Raises:
            RefusedError: A value has no ids.
        """
        try:
            found = b"".join(map(getitem, self._tables[side], values))
        except REFUSALS:
            raise RefusedError from None
        return np.frombuffer(found, dtype=np.int32).reshape(1, -1)

    def columns(self, side: Side, columns: Sequence[Sequence[object]], rows: int) -> NDArray[np.int32]:
        """Ids of columns.

        Args:
            side: Whose fields.
            columns: One a field, each of `rows` values such as `row` takes. What follows them is not looked at.
            rows: N, at least 1.

        Returns:
            int32 (N, width), C-contiguous.

        Raises:
            RefusedError: A value has no ids.
        """
        try:
            found = b"".join(
                [codec.plain_column(raws) for codec, raws in zip(self._codecs[side], columns, strict=False)]
            )
        except (*REFUSALS, LocatedError):
            raise RefusedError from None
        return np.frombuffer(found, dtype=np.int32).reshape(self._widths[side], rows).T.copy(order="C")
