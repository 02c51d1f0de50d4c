"""The secrets that sign feedback tokens: read once at start, never logged, several at once while they are rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SecretError", "read_secrets"]

_SHORTEST: Final = 16
_MOST: Final = 8


class SecretError(ValueError):
    """Secrets that cannot be used; the message says what is wrong, and nothing of what they are."""


def read_secrets(given: str, file: Path | None) -> tuple[bytes, ...]:
    """The secrets, the one that signs first.

    Args:
        given: Secrets with blanks between them; empty for none.
        file: A file of the same, such as a mounted secret; None for none.

    Raises:
        SecretError: There are secrets in both places, too many, or one that is short; or the file cannot be read.
    """
    if file is None:
        text, place = given, "REACTION_FEEDBACK_SECRET"
    else:
        place = "REACTION_FEEDBACK_SECRET_FILE"
        if given:
            raise SecretError(f"{place}: expected this or REACTION_FEEDBACK_SECRET, got both")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(f"{place}: expected a file of text, got {type(error).__name__}") from None
        if not text.strip():
            raise SecretError(f"{place}: expected secrets, got an empty file")
    secrets = tuple(word.encode() for word in text.split())
    if len(secrets) > _MOST:
        raise SecretError(f"{place}: expected at most {_MOST} secrets, got {len(secrets)}")
    for number, secret in enumerate(secrets, 1):
        if len(secret) < _SHORTEST:
            raise SecretError(f"{place}: expected at least {_SHORTEST} bytes, got {len(secret)} in secret {number}")
    return secrets
