"""The wire types of `/score`: bytes to a typed request, scores to bytes.

msgspec decodes the body once; values stay as they are until their field's codec checks them. What a field may hold
is the feature encoder's to say; here is only the shape of the document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, UnsetType

from service.body_faults import explain_malformed, explain_misshapen, refuse_repeated_members
from service.errors import MalformedBodyError, ModelOutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "JSON",
    "MSGPACK",
    "REQUEST_ID_PATTERN",
    "ROUTING_KEY_LENGTH",
    "AnswerWriter",
    "Members",
    "ScoreBody",
    "decode",
    "rank",
]

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"

# Visible ASCII, because the id travels in a response header too.
REQUEST_ID_PATTERN: Final = r"^[!-~]{1,128}$"
ROUTING_KEY_LENGTH: Final = 256


class Members(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Members of a request beside the values themselves. An absent one is UNSET; null stands for the same.

    Attributes:
        top_k: How many places of the ranking to answer.
        request_id: The client's id of the request.
        routing_key: What a sticky split between versions hashes.
    """

    top_k: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    # In Python's dialect "$" also matches before a final newline.
    request_id: Annotated[str, Meta(pattern=REQUEST_ID_PATTERN[:-1] + r"\Z")] | UnsetType | None = UNSET
    routing_key: Annotated[str, Meta(min_length=1, max_length=ROUTING_KEY_LENGTH)] | UnsetType | None = UNSET


class ScoreBody(Members, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One ranking decision, as it came in.

    Attributes:
        candidates: One object a candidate, or one object of equally long arrays.
        context: Fields that all candidates share; absent or empty in the pointwise form.
    """

    candidates: list[dict[str, Any]] | dict[str, list[Any]]
    context: dict[str, Any] | UnsetType | None = UNSET

    def names(self) -> int:
        """Names in the objects of the document: the body's own members, the context's and the candidates'."""
        candidates, context = self.candidates, self.context
        count = len(candidates) if isinstance(candidates, dict) else sum(map(len, candidates))
        count += 1 if context is UNSET else 2
        if isinstance(context, dict):
            count += len(context)
        return count + (self.top_k is not UNSET) + (self.request_id is not UNSET) + (self.routing_key is not UNSET)


_decode_json = msgspec.json.Decoder(ScoreBody).decode
_decode_msgpack = msgspec.msgpack.Decoder(ScoreBody).decode


def decode(body: bytes, *, packed: bool) -> ScoreBody:
    """Read a request.

    Args:
        body: The whole body.
        packed: MessagePack, else JSON.

    Raises:
        MalformedBodyError: The bytes are no document, name a member twice (seen in JSON only), or nest too deeply.
        MemberError: The document has the wrong shape.
    """
    try:
        if packed:
            return _decode_msgpack(body)
        request = _decode_json(body)
        refuse_repeated_members(body, request.names())
    except msgspec.ValidationError as error:
        raise explain_misshapen(body, error, packed=packed) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise explain_malformed(body, error, packed=packed) from None
    except RecursionError:
        raise MalformedBodyError("The body is nested too deeply.", where="body") from None
    return request


class AnswerWriter:
    """Writes answers of one model.

    Args:
        model: The model's id.
    """

    def __init__(self, model: str) -> None:
        self._json_head = b'{"model":' + msgspec.json.encode(model) + b',"request_id":'
        self._msgpack_model = msgspec.msgpack.encode("model") + msgspec.msgpack.encode(model)

    def json(
        self,
        request_id: str,
        scores: NDArray[np.float32],
        ranking: NDArray[np.int64] | None,
        tokens: list[bytes] | None = None,
    ) -> bytes:
        """The answer as JSON; a score is the shortest text that reads back as the same float32.

        Raises:
            ModelOutputError: A score is not finite.
        """
        text = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
        if b"n" in text:  # orjson writes null for what is no finite number
            raise ModelOutputError("The model gave a score that is not finite.")
        parts = [self._json_head, msgspec.json.encode(request_id), b',"scores":', text]
        if ranking is not None:
            parts += [b',"ranking":', orjson.dumps(ranking, option=orjson.OPT_SERIALIZE_NUMPY)]
        if tokens is not None:  # in characters that need no quoting
            parts += [b',"feedback_tokens":["', b'","'.join(tokens), b'"]']
        parts.append(b"}")
        return b"".join(parts)

    def msgpack(
        self,
        request_id: str,
        scores: NDArray[np.float32],
        ranking: NDArray[np.int64] | None,
        tokens: list[bytes] | None = None,
    ) -> bytes:
        """The answer as MessagePack, scores as float 32.

        Raises:
            ModelOutputError: A score is not finite.
        """
        if not np.isfinite(scores).all():
            raise ModelOutputError("The model gave a score that is not finite.")
        packed = np.empty(len(scores), dtype=[("type", "u1"), ("value", ">f4")])
        packed["type"] = 0xCA
        packed["value"] = scores
        encode = msgspec.msgpack.encode
        parts = [
            bytes((0x83 + (ranking is not None) + (tokens is not None),)),  # a map of three to five members
            self._msgpack_model,
            encode("request_id"),
            encode(request_id),
            encode("scores"),
            b"\xdd" + len(scores).to_bytes(4, "big"),  # an array with a 32-bit length
            packed.tobytes(),
        ]
        if ranking is not None:
            parts += [encode("ranking"), encode(ranking.tolist())]
        if tokens is not None:
            parts += [encode("feedback_tokens"), encode([token.decode("ascii") for token in tokens])]
        return b"".join(parts)


def rank(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Indices of the `top_k` best candidates, best first; of equal scores the earlier candidate comes first."""
    return np.argsort(-scores, kind="stable")[:top_k]
