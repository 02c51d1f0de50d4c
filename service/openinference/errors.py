"""The protocol's own error form: `{"error": "..."}`, with a status that a client can act on."""

from __future__ import annotations

from typing import Final

import msgspec

from service.errors import problem_bytes, problem_of
from service.features.errors import RequestError

__all__ = ["OPEN_INFERENCE_PATHS", "UnknownModelError", "error_bytes", "message_bytes", "status_of"]

# Under this path every error is in the protocol's form.
OPEN_INFERENCE_PATHS: Final = "/v2"


class UnknownModelError(RequestError):
    """A model or a version that is not served."""


# Looked up along the exception's ancestors; whatever is not here has the status it has everywhere.
STATUSES: Final[dict[type[Exception], int]] = {
    UnknownModelError: 404,
    RequestError: 400,  # the protocol knows no 422
}


def status_of(error: BaseException) -> int:
    """The status that an error is answered with."""
    for ancestor in type(error).__mro__:
        status = STATUSES.get(ancestor)
        if status is not None:
            return status
    return problem_of(error).status


def error_bytes(error: BaseException) -> bytes:
    """The answer to an error as UTF-8 JSON; says where, expected and got. Nothing of an unexpected one gets out."""
    return message_bytes(msgspec.json.decode(problem_bytes(error))["detail"])


def message_bytes(message: str) -> bytes:
    """The form itself."""
    return msgspec.json.encode({"error": message})
