"""The structure of a request: names, then shapes, before any value is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from service.features.errors import (
    MisplacedFieldError,
    RaggedColumnsError,
    StructureError,
    UnknownFieldError,
    describe,
)
from service.features.fields import SIDES, Field, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.features.schema import Use

__all__ = ["RequestStructure", "is_array"]

_LONGEST_NAME: Final = 60  # characters of a name that an error shows
_MOST_NAMES: Final = 8


def is_array(values: object) -> bool:
    """Whether a value is an array: text is a sequence too, and none."""
    if isinstance(values, (list, tuple)):
        return True
    return isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray))


class RequestStructure:
    """Which names a request may carry on which side.

    Args:
        fields: Every field of the schema by name.
        uses: What is done with each of them.
    """

    def __init__(self, fields: Mapping[str, Field], uses: Mapping[str, Use]) -> None:
        self._fields = fields
        self._uses = uses
        self._accepted: dict[Side, frozenset[str]] = {
            side: frozenset(name for name, field in fields.items() if field.side == side and uses[name] != "refused")
            for side in SIDES
        }

    def check_columns(
        self, side: Side, columns: Mapping[str, Sequence[object]], rows: int, root: str, *, shared: bool
    ) -> None:
        """Refuse columns that are no arrays of `rows` values each, under names of the side.

        Raises:
            RequestError: `where` starts with root.
        """
        if not isinstance(columns, Mapping):
            raise StructureError(root, "an object of arrays", describe(columns))
        if not columns.keys() <= self._accepted[side]:
            self._check_names(columns, side, root, shared=shared)
        for name, values in columns.items():
            if not is_array(values):
                raise StructureError(f"{root}.{name}", "an array", describe(values))
            if len(values) != rows:
                raise RaggedColumnsError(f"{root}.{name}", f"{rows} values", f"{len(values)}")

    def transposed(
        self, side: Side, rows: Sequence[Mapping[str, object]], place: Callable[[int], str], *, shared: bool
    ) -> dict[str, Sequence[object]]:
        """Columns of a side's fields, from objects with names of the side.

        Args:
            side: Whose fields.
            rows: One object a row.
            place: What to call the row of an index.
            shared: Pass over fields of the other side.

        Raises:
            RequestError: A row that is no object, or a name that the side does not have.
        """
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise StructureError(place(index), "an object", describe(row))
        if not rows:
            return {}
        accepted, first = self._accepted[side], rows[0]
        if not first.keys() <= accepted:
            self._check_names(first, side, place(0), shared=shared)
        # Most requests have the same names in every row, those of the other side included: a row that lacks one of
        # them may have one of this side instead.
        names = first.keys()
        if all(row.keys() == names for row in rows):
            return {name: list(map(itemgetter(name), rows)) for name in first if name in accepted}
        for index, row in enumerate(rows):
            if not row.keys() <= accepted:
                self._check_names(row, side, place(index), shared=shared)
        return {name: [row.get(name) for row in rows] for name in accepted}

    def _check_names(self, names: Iterable[object], side: Side, where: str, *, shared: bool) -> None:
        for name in names:
            if not isinstance(name, str):
                raise UnknownFieldError(where, "names that are text", describe(name))
            if name not in self._fields:
                raise UnknownFieldError(
                    _member(where, name), self._known(name, side, shared=shared), "an unknown field"
                )
            if self._uses[name] == "refused":
                raise UnknownFieldError(f"{where}.{name}", "nothing: the field exists in training only", "a value")
            if self._fields[name].side != side and not shared:
                raise MisplacedFieldError(
                    f"{where}.{name}", f"a field of the {side} side", f"one of the {self._fields[name].side} side"
                )

    def _known(self, name: str, side: Side, *, shared: bool) -> str:
        """The accepted name nearest to an unknown one, or the first few of all."""
        names = [
            known for known in self._fields if any(known in self._accepted[s] for s in (SIDES if shared else [side]))
        ]
        near = get_close_matches(name, names, 1) if len(name) <= _LONGEST_NAME else []
        if near:
            return f"a field of the schema, the nearest is {describe(near[0])}"
        if not names:
            return "no field: the model reads none here"
        more = f", ... ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
        return f"one of {', '.join(_shown(known) for known in names[:_MOST_NAMES])}{more}"


def _shown(name: str) -> str:
    """A name as it is if that is short and printable, else quoted and cut."""
    if name.isprintable() and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]!r}" + ("..." if len(name) > _LONGEST_NAME else "")


def _member(where: str, name: str) -> str:
    """The place of a member: `candidates[0].name`, or `candidates[0]['...']` where the name is long or odd."""
    shown = _shown(name)
    return f"{where}.{name}" if shown == name else f"{where}[{shown}]"
