"""What recorded requests are scored by once more: a bundle in this process, or a service by HTTP."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from service.errors import ServiceError
from service.features.errors import RequestError
from service.openinference.pipeline import InferPipeline, InferWork
from service.pipeline import Pipeline, Work
from service.recording.records import MSGPACK
from service.versions.loading import load_model
from service.versions.store import served_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from service.bundle import Precision
    from service.recording.records import Recorded

__all__ = ["BundleDoor", "DoorError", "UnscorableError", "UrlDoor"]

SCORE: Final = "/score"
_SECONDS: Final = 120.0
_DEADLINE_MS: Final = "600000"
_LONGEST_QUOTE: Final = 300
_NO_LIMIT: Final = 1 << 40


class DoorError(RuntimeError):
    """Nothing can be scored here: no service, no model, or answers that are none."""


class UnscorableError(ValueError):
    """A request that is refused; the message says why."""


class BundleDoor:
    """Scores in this process, by the service's own stages.

    Args:
        path: A bundle, or a store with a current version.
        precision: What the model's tables hold.
        keys_file: Public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        BundleError, ScorerError, StoreError: It cannot be served.

    Attributes:
        model: Id of the model.
        where: What reports call it.
    """

    def __init__(self, path: Path, *, precision: Precision = "float32", keys_file: Path | None = None) -> None:
        scorer = load_model(served_bundle(path), threads=1, precision=precision, keys_file=keys_file).scorer
        self.model = scorer.bundle.manifest.model_id
        self.where = str(path)
        self._score = Pipeline(scorer, max_candidates=_NO_LIMIT)
        self._infer = InferPipeline(scorer, max_candidates=_NO_LIMIT)

    def score(self, recorded: Recorded) -> NDArray[np.float32]:
        """Scores (N,) of a recorded request.

        Raises:
            UnscorableError: This model does not take it.
        """
        body, request_id = recorded.body, recorded.request_id
        try:
            if recorded.path == SCORE:
                packed = recorded.content_type == MSGPACK
                work = Work(body, request_id=request_id, packed=packed, answer_packed=packed)
                self._score.run(work)
                return work.scores
            infer = InferWork(body, request_id=request_id, header_length=recorded.header_length)
            self._infer.run(infer)
        except (RequestError, ServiceError) as error:
            raise UnscorableError(str(error)) from None
        return infer.scores

    def close(self) -> None:
        """Nothing is open."""


class UrlDoor:
    """Sends requests to a service, one after the other.

    Args:
        url: `http://HOST[:PORT]` or https.
        key: API key to show; None for none.

    Raises:
        DoorError: No service there, or none that serves a model.

    Attributes:
        model: Id of the model that it serves at the beginning.
        where: What reports call it.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DoorError(f"--url: expected http://HOST[:PORT], got {url[:_LONGEST_QUOTE]!a}")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.hostname, parts.port, timeout=_SECONDS)
        self._prefix = parts.path.rstrip("/")
        self._key = {} if key is None else {"x-api-key": key}
        self.where = url
        status, body = self._ask("GET", "/model", None, {})
        if status != http.client.OK:
            raise DoorError(f"{url}/model: expected 200, got {status} {_short(body)}")
        self.model = str(_member(_document(body, "/model"), "id"))

    def score(self, recorded: Recorded) -> NDArray[np.float32]:
        """Scores (N,) of a recorded request.

        Raises:
            UnscorableError: It is refused.
            DoorError: There is no answer, or none with scores.
        """
        infer = recorded.path != SCORE
        headers = {"content-type": recorded.content_type, "accept": "application/json"}
        headers["x-request-deadline-ms"] = _DEADLINE_MS
        if recorded.header_length is not None:
            headers["inference-header-content-length"] = str(recorded.header_length)
        # A path of the protocol names the model, which may be another one here.
        path = f"/v2/models/{self.model}/infer" if infer else SCORE
        status, body = self._ask("POST", path, recorded.body, headers)
        if status != http.client.OK:
            if status in (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE, http.client.UNAUTHORIZED):
                raise DoorError(f"{self.where}{path}: expected scores, got {status} {_short(body)}")
            raise UnscorableError(f"{status}: {_reason(body)}")
        if infer:
            return self._inferred(body)
        return np.array(_member(_document(body, path), "scores"), np.float32)

    def _inferred(self, body: bytes) -> NDArray[np.float32]:
        try:
            document, end = json.JSONDecoder().raw_decode(body.decode("utf-8", "surrogateescape"))
            (output,) = document["outputs"]
            if "data" in output:
                return np.array(output["data"], np.float32)
            return np.frombuffer(body[end:], "<f4")
        except (ValueError, KeyError, TypeError) as error:
            raise DoorError(f"{self.where}: expected an answer with scores, got {_short(body)} ({error})") from None

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        for attempt in range(2):
            try:
                self._connection.request(method, self._prefix + path, body, {**headers, **self._key})
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()  # a kept connection may have ended meanwhile: once more, on a new one
                if attempt:
                    raise DoorError(f"{self.where}: expected an answer, got {error!r}") from None
        raise AssertionError

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _document(body: bytes, path: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise DoorError(f"{path}: expected JSON, got {_short(body)}") from None


def _member(document: Any, name: str) -> Any:
    if not isinstance(document, dict) or name not in document:
        raise DoorError(f"expected an answer with {name!r}, got {str(document)[:_LONGEST_QUOTE]}")
    return document[name]


def _reason(body: bytes) -> str:
    """What a problem document, or the protocol's error, says."""
    try:
        document = msgspec.json.decode(body)
        return str(document.get("detail") or document["error"])
    except (msgspec.DecodeError, AttributeError, KeyError):
        return _short(body)


def _short(body: bytes) -> str:
    return repr(body[:_LONGEST_QUOTE])
