"""Packed tokens: a vocabulary as three flat arrays, read from a mapped file without building anything.

`offsets` int64 (n + 1,) and `tokens` uint8 hold the tokens in id order: token i is the UTF-8 of
`tokens[offsets[i]:offsets[i + 1]]`, so it may hold any character, newlines and NUL included. `slots` int32 (2^k,),
at most half full, is an open-addressing hash table over them: the slot of a token is its xxHash64 (seed 0) modulo 2^k
or the next free one, and holds i + 1, or 0 where it is empty.

Workers share the pages of one file. Why a table of our own and no trie or key-value store: see `vocabulary`.
"""

from __future__ import annotations

from array import array
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from xxhash import xxh64_intdigest

from service.features.errors import SchemaError, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["PackedTokens"]

_CHUNK: Final = 1 << 16  # tokens at a time where a Python object a token would cost memory
_SAMPLE: Final = 1000
_CONTINUATION_MASK: Final = 0xC0  # of a UTF-8 byte that does not start a character ...
_CONTINUATION: Final = 0x80  # ... these are the two upper bits


class PackedTokens:
    """Tokens in id order, with a hash table where one was built.

    Args:
        offsets: int64 (n + 1,), rising strictly from 0.
        tokens: uint8, the bytes that offsets cuts.
        slots: int32 (2^k,), or None for tokens that are only stored.
    """

    def __init__(self, offsets: NDArray[np.int64], tokens: NDArray[np.uint8], slots: NDArray[np.int32] | None) -> None:
        self.offsets = offsets
        self.tokens = tokens
        self.slots = slots

    @classmethod
    def build(cls, tokens: Iterable[str], *, index: bool) -> PackedTokens:
        """Pack tokens, a chunk at a time.

        Args:
            tokens: In id order.
            index: Whether to build the hash table, which is also what finds repeated tokens.

        Raises:
            SchemaError: An empty, repeated or non-UTF-8 token.
        """
        lengths: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
        hashes: list[NDArray[np.uint64]] = []
        pieces: list[bytes] = []
        source = iter(tokens)
        while chunk := [_encoded(token) for token in islice(source, _CHUNK)]:
            lengths.append(np.array([len(token) for token in chunk], dtype=np.int64))
            pieces.append(b"".join(chunk))
            if index:
                hashes.append(np.array([xxh64_intdigest(token) for token in chunk], dtype=np.uint64))
        offsets = np.cumsum(np.concatenate(lengths))
        packed = cls(offsets, np.frombuffer(b"".join(pieces), dtype=np.uint8), None)
        if not index:
            return packed
        digests = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
        packed.refuse_repeated(digests)
        return cls(offsets, packed.tokens, _slots(digests))

    def refuse_repeated(self, digests: NDArray[np.uint64]) -> None:
        """Compare the tokens whose hashes are equal.

        Raises:
            SchemaError: Two of them are the same.
        """
        order = np.argsort(digests, kind="stable")
        equal = np.flatnonzero(digests[order[1:]] == digests[order[:-1]])
        seen: set[str] = set()
        for position in sorted({int(order[at + step]) for at in equal for step in (0, 1)}):
            token = self.token(position)
            if token in seen:
                raise SchemaError(f"vocabulary: expected distinct tokens, got {describe(token)} twice")
            seen.add(token)

    def __len__(self) -> int:
        return self.offsets.size - 1

    def token(self, position: int) -> str:
        """The token at a position in id order."""
        return str(self.tokens[self.offsets[position] : self.offsets[position + 1]].data, "utf-8")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            cuts = self.offsets[start : start + _CHUNK + 1].tolist()
            piece = self.tokens[cuts[0] : cuts[-1]].tobytes()
            for first, end in pairwise(cuts):
                yield piece[first - cuts[0] : end - cuts[0]].decode("utf-8")

    def finder(self) -> Callable[[bytes], int]:
        """Position of a token given as UTF-8, -1 where it is not among them.

        Raises:
            SchemaError: The tokens were packed without an index.
        """
        if self.slots is None:
            raise SchemaError("vocabulary: expected tokens with an index, got tokens without")
        # Locals of a closure, and memoryviews: an array would make an object of its own for every element.
        slots, cuts, content, mask = self.slots.data, self.offsets.data, self.tokens.data, self.slots.size - 1
        digest = xxh64_intdigest

        def find(token: bytes) -> int:
            slot = digest(token) & mask
            while found := slots[slot]:
                if content[cuts[found - 1] : cuts[found]] == token:
                    return int(found) - 1
                slot = (slot + 1) & mask
            return -1

        return find

    def finder_of_many(
        self, first: int, absent: int, other: Callable[[object], int]
    ) -> Callable[[Iterable[object]], bytes]:
        """Ids of raw values as native int32, one after the other.

        The search of `finder`, written out once more: without two calls a value it takes three fifths of the time.
        (Searching for all values a step at a time in numpy is no faster at 1000 values, and far slower at 100.)

        Args:
            first: Id of the token at position 0.
            absent: Id of a text that is not among the tokens.
            other: Gives the id of what is no text, or none that UTF-8 can encode, or empty; or raises.

        Raises:
            SchemaError: The tokens were packed without an index.
        """
        if self.slots is None:
            raise SchemaError("vocabulary: expected tokens with an index, got tokens without")
        slots, cuts, content, mask = self.slots.data, self.offsets.data, self.tokens.data, self.slots.size - 1
        digest, before = xxh64_intdigest, first - 1

        def find(raws: Iterable[object]) -> bytes:
            ids: list[int] = []
            add = ids.append
            for raw in raws:
                if raw.__class__ is not str or not raw:
                    add(other(raw))
                    continue
                try:
                    token = raw.encode()
                except UnicodeEncodeError:
                    add(other(raw))
                    continue
                slot = digest(token) & mask
                while found := slots[slot]:
                    if content[cuts[found - 1] : cuts[found]] == token:
                        add(found + before)
                        break
                    slot = (slot + 1) & mask
                else:
                    add(absent)
            return array("i", ids).tobytes()

        return find

    def check(self, name: str) -> None:
        """Refuse arrays that do not hold what this module says, before any look-up.

        All of it but one thing is checked in full: that the hash table leads to each token is tried on a thousand.

        Args:
            name: What messages call the file.

        Raises:
            SchemaError: Offsets that do not rise from 0 to the end of the bytes, bytes that are no UTF-8, or a hash
                table of another size or content.
        """
        offsets, blob = self.offsets, self.tokens
        if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != blob.size or (np.diff(offsets) <= 0).any():
            raise SchemaError(f"{name}: expected offsets rising from 0 to {blob.size}, got others")
        if ((blob[offsets[:-1]] & _CONTINUATION_MASK) == _CONTINUATION).any():
            raise SchemaError(f"{name}: expected UTF-8 tokens, got a cut inside a character")
        for start in range(0, len(self), _CHUNK):
            piece = blob[offsets[start] : offsets[min(start + _CHUNK, len(self))]].tobytes()
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError as error:
                raise SchemaError(f"{name}: expected UTF-8 tokens, got {error}") from error
        if self.slots is not None:
            self._check_slots(self.slots, name)

    def _check_slots(self, slots: NDArray[np.int32], name: str) -> None:
        if slots.size != _slot_count(len(self)):
            raise SchemaError(f"{name}: expected {_slot_count(len(self))} slots, got {slots.size}")
        taken = slots[slots != 0]
        reached = np.zeros(len(self), dtype=np.bool_)
        if taken.size == len(self) and (taken.size == 0 or (taken.min() > 0 and taken.max() <= len(self))):
            reached[taken - 1] = True
        # With each token in exactly one slot the table is at most half full, so every search ends.
        if not reached.all():
            raise SchemaError(f"{name}: expected a slot for each of {len(self)} tokens, got others")
        find = self.finder()
        for position in range(0, len(self), max(1, len(self) // _SAMPLE)):
            token = self.token(position)
            if find(token.encode("utf-8")) != position:
                raise SchemaError(f"{name}: expected a slot that leads to {describe(token)}, got none")


def _encoded(token: str) -> bytes:
    """UTF-8 of a token.

    Raises:
        SchemaError: It is empty, no text or not encodable.
    """
    try:
        encoded = token.encode("utf-8")
    except (UnicodeEncodeError, AttributeError):
        encoded = b""
    if not encoded:
        raise SchemaError(f"vocabulary: expected non-empty UTF-8 tokens, got {describe(token)}")
    return encoded


def _slot_count(tokens: int) -> int:
    """Slots of the table: a power of two, at least twice the tokens."""
    return 1 << max(1, (2 * tokens - 1).bit_length())


def _slots(digests: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Hash table of tokens with these hashes, filled in rounds over all tokens that still want a place.

    Where several want the same free slot the first in id order gets it, so the table is the same every time.
    """
    slots = np.zeros(_slot_count(digests.size), dtype=np.int32)
    mask = slots.size - 1
    waiting = np.arange(digests.size, dtype=np.int64)
    wanted = (digests & np.uint64(mask)).astype(np.int64)
    while waiting.size:
        places, first = np.unique(wanted, return_index=True)  # the first of each place, ids being in order
        settled = first[slots[places] == 0]
        slots[wanted[settled]] = waiting[settled] + 1
        left = np.ones(waiting.size, dtype=np.bool_)
        left[settled] = False
        waiting, wanted = waiting[left], (wanted[left] + 1) & mask
    return slots
