"""Stores equal rows of a table once: ids are translated to rows of the smaller table by one more look-up.

Training lets rare values of a field share rows (`training.towers.row_sharing`), so most rows of a large table may be
copies of some hundred. What an id reads is the same bit by bit; a table is left as it is where that saves little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from model_export.passes._gathers import node, replace_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model_export.graph import Array, Graph
    from model_export.passes._gathers import LookUp, Place

WORTH: Final = 0.25
"""Share of a table's bytes that must be saved: the look-up more is paid at every request."""
_WORD_BYTES: Final = 8
_CHUNK_ROWS: Final = 1 << 18


def share_rows(graph: Graph) -> Graph:
    """Return the graph with every distinct row stored once, where that saves enough."""
    found = {name: distinct(table) for name, table in graph.tables.items() if table.ndim > 1}
    places = {name: place for name, place in found.items() if place is not None}
    if not places:
        return graph

    def tables(name: str, table: Array) -> dict[str, Array]:
        if name not in places:
            return {name: table}
        first, row_of = places[name]
        return {name: table[first], f"{name}_rows": row_of}

    def look_up(place: Place) -> LookUp:
        if place.table not in places:
            return [node("Gather", [place.table, place.ids], place.output, axis=0)], []
        rows = f"{place.output}_row_of"
        return [
            node("Gather", [f"{place.table}_rows", place.ids], rows, axis=0),
            node("Gather", [place.table, rows], place.output, axis=0),
        ], []

    return replace_tables(graph, tables, look_up)


def distinct(table: Array) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
    """Find a table's distinct rows.

    Args:
        table: (V, d).

    Returns:
        (U,) the first occurrence of each, in their order, and (V,) int32 which of them a row is; None where it is not
        worth it.
    """
    keys = _keys(table)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    first, row_of = first[order], rank[inverse]
    row_bytes = table.itemsize * table.shape[1]
    if len(first) * row_bytes + row_of.nbytes > (1.0 - WORTH) * table.nbytes:
        return None
    # Keys are hashes: rows of one key are compared.
    bits = _bits(table)
    for start in range(0, len(table), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        if not np.array_equal(bits[part], bits[first[row_of[part]]]):
            return None  # two rows of one hash in 2^64: not worth a second try
    return first, row_of


def _bits(table: Array) -> NDArray[np.uint8]:
    """A table's bytes, (V, bytes of a row)."""
    return np.ascontiguousarray(table).view(np.uint8).reshape(len(table), -1)


def _keys(table: Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: its words, multiplied by odd numbers of chance and mixed."""
    bits = _bits(table)
    words = -(-bits.shape[1] // _WORD_BYTES)
    odd = np.random.default_rng(0).integers(0, 1 << 63, words, np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.zeros(len(table), np.uint64)
    for start in range(0, len(table), _CHUNK_ROWS):
        part = bits[start : start + _CHUNK_ROWS]
        padded = np.zeros((len(part), words * _WORD_BYTES), np.uint8)
        padded[:, : part.shape[1]] = part
        for word, factor in zip(padded.view(np.uint64).T, odd, strict=True):
            mixed = keys[start : start + len(part)] * np.uint64(31) + word * factor
            keys[start : start + len(part)] = mixed ^ (mixed >> np.uint64(29))
    return keys
