"""API keys: who may ask. Off unless keys are given; then every route but the probes asks for one.

Several keys are good at once, so that one can be changed for another without a moment in which a client has none. What
is kept of them, and compared, are SHA-256 digests: all of them, each in a time that depends on nothing. A file of keys
is looked at again once a second while requests come; one that cannot be used any more leaves the keys as they were.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from service.logging import get_logger
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from service.errors import UnauthorizedError
    from service.settings import Settings

__all__ = ["OPEN_PATHS", "ApiKeys"]

# An orchestrator's and a balancer's probes hold no secrets, and tell none.
OPEN_PATHS: Final = frozenset(("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"))

_LOOK_SECONDS: Final = 1.0
_LARGEST_FILE: Final = 1 << 20
_SHORTEST_KEY: Final = 16
_is_key = re.compile(r"[!-+\--~]{16,512}").fullmatch  # visible ASCII without commas
_SCHEME: Final = b"bearer "
_CHALLENGE: Final = (("www-authenticate", 'Bearer realm="reaction"'),)

_log: Final = get_logger("service.edge.api_keys")


class ApiKeys:
    """The keys that are good now.

    Args:
        listed: Keys by themselves, separated by commas or white space.
        path: File with one key a line; `#` begins a comment. None for no file.

    Raises:
        SettingsError: No key, or one that is none. The message holds no key.
    """

    def __init__(self, listed: str, path: Path | None) -> None:
        self._listed = _digests("REACTION_API_KEYS", listed.replace(",", " "))
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._look_at = monotonic() + _LOOK_SECONDS
        if path is not None:
            with suppress(OSError):
                self._seen = _stamp(path)
        self._digests = self._read()

    @classmethod
    def of(cls, settings: Settings) -> ApiKeys | None:
        """Those of the settings; None where everyone may ask.

        Raises:
            SettingsError: They cannot be used.
        """
        listed = settings.api_keys
        if listed is None and settings.api_keys_file is None:
            return None
        return cls("" if listed is None else listed.get_secret_value(), settings.api_keys_file)

    def now(self) -> tuple[bytes, ...]:
        """Digests of the keys that are good now: the same object until they change."""
        if self._path is not None and monotonic() >= self._look_at:
            self._look(self._path)
        return self._digests

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Let a request in, or not.

        Args:
            headers: Of the request, names in lower case.

        Raises:
            UnauthorizedError: It brings no key, several, or one that is not good.
        """
        keys = self.now()
        shown = [key for name, value in headers if (key := _key_in(name, value)) is not None]
        if len(shown) != 1:
            raise _unauthorized("no key" if not shown else f"{len(shown)} keys")
        digest = hashlib.sha256(shown[0]).digest()
        good = False
        for known in keys:  # all of them: time tells nothing of which it was
            good |= hmac.compare_digest(known, digest)
        if not good:
            raise _unauthorized("a key that is not known")

    def _look(self, path: Path) -> None:
        """Read the file again if it has changed."""
        self._look_at = monotonic() + _LOOK_SECONDS
        try:
            stamp = _stamp(path)
        except OSError:
            stamp = ()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._digests = self._read()
        except SettingsError as error:
            _log.error("api_keys_kept", file=str(path), error=str(error), keys=len(self._digests))
            return
        _log.info("api_keys_read", file=str(path), keys=len(self._digests))

    def _read(self) -> tuple[bytes, ...]:
        """Digests of all keys there are now.

        Raises:
            SettingsError: None, or a file that cannot be used.
        """
        try:
            digests = self._listed + (() if self._path is None else _read(self._path))
        except OSError as error:
            raise SettingsError(f"REACTION_API_KEYS_FILE: expected a file of keys, got {error}") from None
        if not digests:
            raise SettingsError("REACTION_API_KEYS: expected at least one key, got none")
        return digests


def _key_in(name: bytes, value: bytes) -> bytes | None:
    """The key that a header shows; None where it shows none."""
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization" and value[: len(_SCHEME)].lower() == _SCHEME:
        return value[len(_SCHEME) :].strip()
    return None


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced, also by a link's new end (as Kubernetes does with secrets)."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _read(path: Path) -> tuple[bytes, ...]:
    """Digests of a file's keys.

    Raises:
        OSError: It cannot be read.
        SettingsError: A line holds no key.
    """
    if not path.is_file():  # a pipe would be waited for
        raise OSError(f"{os.fspath(path)!r}: no regular file")
    with path.open("rb") as file:
        text = file.read(_LARGEST_FILE + 1)
    if len(text) > _LARGEST_FILE:
        raise SettingsError(f"REACTION_API_KEYS_FILE: expected at most {_LARGEST_FILE} bytes, got more")
    lines = text.decode("utf-8", "replace").splitlines()
    return _digests("REACTION_API_KEYS_FILE", " ".join(line.partition("#")[0] for line in lines))


def _digests(variable: str, text: str) -> tuple[bytes, ...]:
    """Digests of keys between white space.

    Raises:
        SettingsError: One is none: too short to be a secret, say. The message says which, not what.
    """
    keys = text.split()
    for place, key in enumerate(keys, 1):
        if not _is_key(key):
            expected = f"keys of {_SHORTEST_KEY} to 512 visible ASCII characters"
            raise SettingsError(f"{variable}: expected {expected}, got something else as number {place}")
    return tuple(hashlib.sha256(key.encode()).digest() for key in dict.fromkeys(keys))


def _unauthorized(got: str) -> UnauthorizedError:
    from service.errors import UnauthorizedError  # noqa: PLC0415 - brings numpy, which a supervisor does without

    expected = "a key, as Authorization: Bearer or as X-API-Key"
    return UnauthorizedError(f"Expected {expected}, got {got}.", headers=_CHALLENGE, expected=expected, got=got)
