"""Feedback tokens: what was scored, by which model, when; signed, so that it need be stored nowhere.

    base64url( head | model id | MAC )
    head: version and flags (1 byte), second of issue (4), nonce (8), place of the candidate (4), score (float32)

The MAC is keyed BLAKE2b (RFC 7693, section 2.9), 12 bytes: whoever guesses has a chance of 2^-96 a try. It names the
token too: its first 8 bytes tell tokens apart, for no two have the same nonce and place.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from hashlib import blake2b
from hmac import compare_digest
from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from service.errors import ForgedTokenError, MalformedTokenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LONGEST_TOKEN", "Keyring", "Token"]

_HEAD: Final = Struct(">BIQIf")
_VERSION: Final = 0x10
_SHOWN: Final = 0x01
_FLAGS: Final = 0x0F
_MAC_BYTES: Final = 12
_IDENTITY_BYTES: Final = 8
_NONCES: Final = 1 << 64
_PERSON: Final = b"reaction-fb-1"
_LONGEST_MODEL: Final = 128
LONGEST_TOKEN: Final = (_HEAD.size + _LONGEST_MODEL + _MAC_BYTES + 2) // 3 * 4
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/", b"+/**")  # a star is in no alphabet


class Token(NamedTuple):
    """What a token says.

    Attributes:
        model: Id of the model that gave the score.
        second: When it was issued, in whole seconds since 1970 (UTC).
        place: The candidate's place in the request.
        score: Its score, a float32.
        shown: It was taken for shown as it was issued; else it is once an event says so.
        identity: Tells it from all others, 64 bits.
    """

    model: str
    second: int
    place: int
    score: float
    shown: bool
    identity: int


class Keyring:
    """Signs and verifies tokens. Safe to use from several threads.

    Args:
        secrets: At least one; the first signs, all verify.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        # Of a fixed length, whatever the secrets are: BLAKE2b takes keys of up to 64 bytes.
        keys = [blake2b(secret, digest_size=32, person=_PERSON).digest() for secret in secrets]
        self._keyed = [blake2b(digest_size=_MAC_BYTES, key=key, person=_PERSON) for key in keys]
        self._nonces = count(int.from_bytes(os.urandom(8), "big"))

    def sign(self, model: str, second: int, scored: Iterable[tuple[int, float]], *, shown: bool) -> list[bytes]:
        """Make tokens for candidates of one request.

        Args:
            model: Id of the model.
            second: Now, in whole seconds since 1970.
            scored: Place and score of each candidate.
            shown: Whether they are taken for shown.

        Returns:
            A token each, in ASCII that needs no quoting in JSON or a URL.
        """
        nonce, name, keyed = next(self._nonces) % _NONCES, model.encode(), self._keyed[0]
        flags = _VERSION | _SHOWN if shown else _VERSION
        tokens = []
        for place, score in scored:
            data = _HEAD.pack(flags, second, nonce, place, score) + name
            mac = keyed.copy()
            mac.update(data)
            tokens.append(_text_of(data + mac.digest()))
        return tokens

    def read(self, text: str) -> Token:
        """What a token says.

        Raises:
            MalformedTokenError: It is none.
            ForgedTokenError: None of the secrets has signed it.
        """
        if len(text) > LONGEST_TOKEN:
            raise _malformed(f"{len(text)} characters")
        try:
            coded = text.encode("ascii").translate(_FROM_URL)
            data = a2b_base64(coded + b"=" * (-len(coded) % 4), strict_mode=True)
        except (Base64Error, UnicodeEncodeError):
            raise _malformed("other characters") from None
        # One text a token: the last character may have bits to spare.
        if len(data) <= _HEAD.size + _MAC_BYTES or data[0] & ~_FLAGS != _VERSION or _text_of(data) != text.encode():
            raise _malformed("something else")
        signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not self._has_signed(signed, mac):
            raise ForgedTokenError("token: expected one that this service has signed, got another.", where="token")
        flags, second, _, place, score = _HEAD.unpack_from(signed)
        identity = int.from_bytes(mac[:_IDENTITY_BYTES], "big")
        return Token(signed[_HEAD.size :].decode(), second, place, score, bool(flags & _SHOWN), identity)

    def _has_signed(self, data: bytes, mac: bytes) -> bool:
        for keyed in self._keyed:
            own = keyed.copy()
            own.update(data)
            if compare_digest(own.digest(), mac):
                return True
        return False


def _text_of(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URL, b"=")


def _malformed(got: str) -> MalformedTokenError:
    expected = "a feedback token"
    return MalformedTokenError(f"token: expected {expected}, got {got}.", where="token", expected=expected, got=got)
