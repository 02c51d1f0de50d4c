"""What is done to a file: flips, cuts, insertions. All of it by a seed, so that a finding can be had again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["KINDS", "damaged"]

# Numbers at which sizes, offsets and counts go wrong, little-endian in 1, 4 and 8 bytes.
_EDGES: Final = (0, 1, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_WIDTHS: Final = (1, 4, 8)
_LONGEST_PIECE: Final = 64


def _flip(draw: Random, content: bytearray) -> None:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _byte(draw: Random, content: bytearray) -> None:
    content[draw.randrange(len(content))] ^= draw.randrange(1, 256)


def _several(draw: Random, content: bytearray) -> None:
    for _ in range(draw.randrange(2, 16)):
        _flip(draw, content)


def _edge(draw: Random, content: bytearray) -> None:
    width = draw.choice(_WIDTHS)
    at = draw.randrange(max(1, len(content) - width + 1))
    content[at : at + width] = (draw.choice(_EDGES) % (1 << 8 * width)).to_bytes(width, "little")


def _cut_end(draw: Random, content: bytearray) -> None:
    del content[draw.randrange(len(content)) :]


def _cut_piece(draw: Random, content: bytearray) -> None:
    at = draw.randrange(len(content))
    del content[at : at + draw.randrange(1, _LONGEST_PIECE)]


def _insert(draw: Random, content: bytearray) -> None:
    at = draw.randrange(len(content) + 1)
    content[at:at] = draw.randbytes(draw.randrange(1, _LONGEST_PIECE))


def _repeat(draw: Random, content: bytearray) -> None:
    at = draw.randrange(len(content))
    piece = content[at : at + draw.randrange(1, _LONGEST_PIECE)]
    content[at:at] = piece


def _wipe(draw: Random, content: bytearray) -> None:
    at = draw.randrange(len(content))
    end = min(len(content), at + draw.randrange(1, _LONGEST_PIECE))
    content[at:end] = bytes([draw.choice((0, 255))]) * (end - at)


KINDS: Final[dict[str, Callable[[Random, bytearray], None]]] = {
    "flip": _flip,
    "byte": _byte,
    "several flips": _several,
    "edge number": _edge,
    "cut end": _cut_end,
    "cut piece": _cut_piece,
    "insert": _insert,
    "repeat": _repeat,
    "wipe": _wipe,
}


def damaged(kind: str, draw: Random, content: bytes) -> bytes:
    """Content with one damage of a kind; the same content comes back where the draw changes nothing.

    Args:
        kind: A key of `KINDS`.
        draw: Where the damage lies.
        content: One byte at least.
    """
    changed = bytearray(content)
    KINDS[kind](draw, changed)
    return bytes(changed)
