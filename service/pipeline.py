"""One scoring request from bytes to bytes, without any transport: decode, encode, infer, write.

Routes, the benchmark's in-process floor and tests run this same code.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from service.edge.compression import compress, decompress, takes_gzip
from service.edge.counted import refuse_too_many
from service.errors import MemberError
from service.typed import TypedReader
from service.wire import AnswerWriter, decode, rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.feedback.desk import Issued, TokenMaker
    from service.scorer import Scorer
    from service.wire import Members

__all__ = ["ANY_ROWS", "ManyRowsError", "Pipeline", "RequestIds", "Stages", "Work"]

ANY_ROWS: Final = sys.maxsize


class RequestIds:
    """Makes ids for requests that bring none: a random start of this process, then a running number."""

    def __init__(self) -> None:
        self._start = os.urandom(8).hex()
        self._numbers = count(1)

    def __call__(self) -> str:
        """The next id."""
        return f"{self._start}-{next(self._numbers):x}"


class ManyRowsError(Exception):
    """A request holds more candidates than are to be scored here and now.

    Args:
        rows: How many.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows} candidates")
        self.rows = rows


class Work:
    """One request on its way; filled from top to bottom, so that what is known when it fails can be counted.

    Attributes:
        body: The whole body.
        received: When its last byte was there, in seconds of `perf_counter`; 0.0 if never.
        packed: Whether the body is MessagePack, else JSON.
        answer_packed: Whether the answer is.
        request_id: The client's id, or one made for it.
        started, decoded, encoded, inferred: When each stage began or ended, in seconds of `perf_counter`; 0.0 if never.
        due: By when it wants its answer, in seconds of `perf_counter`; 0.0 if it does not say.
        lag: Seconds between stages that went to others. Marks are made as if these had passed before it was read,
            so that its stages say what they say without company: what comes after is earlier by so much.
        context_ids: int32 (1 or N, Cc); candidate_ids: int32 (N, Ci); scores: float32 (N,).
        top_k: How many places of the ranking the client wants; 0 for none.
        answer: Bytes of the answer.
        inflate_to: Most bytes of the body once it is inflated; None where it came as it is, or is inflated already.
        compressed: Whether it came compressed and is inflated.
        accept_encoding: Encodings of the answer that the client takes, as its header says.
        deflate_from: An answer of at least so many bytes is compressed if the client takes that.
        deflated: Whether the answer is compressed.
        traceparent: The header of that name, as it came; empty where none did.
        feedback: Tokens in the answer; None where it was not drawn.
        routing_key: What a sticky split hashes, as its header says; None where it does not.
        arm: While there is a split, one of `service.trial.canary.ARMS`; else empty.
        fault: Why the canary did not answer, where it fell back.
        version: Name of the version that scored, where there may be two.
        most_rows: With more candidates than these it is not to be scored here and now.
    """

    __slots__ = (
        "accept_encoding",
        "answer",
        "answer_packed",
        "arm",
        "body",
        "candidate_ids",
        "compressed",
        "context_ids",
        "decoded",
        "deflate_from",
        "deflated",
        "due",
        "encoded",
        "fault",
        "feedback",
        "inferred",
        "inflate_to",
        "lag",
        "most_rows",
        "packed",
        "received",
        "request_id",
        "routing_key",
        "scores",
        "started",
        "top_k",
        "traceparent",
        "version",
    )

    context_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __init__(self, body: bytes, *, request_id: str, packed: bool, answer_packed: bool) -> None:
        self.body = body
        self.packed = packed
        self.answer_packed = answer_packed
        self.request_id = request_id
        self.received = self.started = self.decoded = self.encoded = self.inferred = self.lag = self.due = 0.0
        self.top_k = 0
        self.answer = b""
        self.inflate_to: int | None = None
        self.compressed = False
        self.accept_encoding = b""
        self.deflate_from = 0
        self.deflated = False
        self.feedback: Issued | None = None
        self.routing_key: bytes | None = None
        self.arm = self.fault = ""
        self.most_rows = ANY_ROWS
        self.version = self.traceparent = b""

    def inflate(self) -> None:
        """Replace a compressed body by what it holds.

        Raises:
            MalformedBodyError: It is damaged.
            InflatedBodyError: It holds too much.
        """
        if self.inflate_to is not None:
            self.body = decompress(self.body, self.inflate_to)
            self.inflate_to = None
            self.compressed = True

    def deflate(self) -> None:
        """Compress the answer if it is long and the client takes it so."""
        if self.accept_encoding and len(self.answer) >= self.deflate_from and takes_gzip(self.accept_encoding):
            self.answer = compress(self.answer)
            self.deflated = True


WorkT = TypeVar("WorkT", bound=Work)


class Stages(ABC, Generic[WorkT]):
    """The stages of a request, whatever its form: read, infer, write. Safe to call from several threads.

    Args:
        scorer: The model.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._infer = scorer.run

    def run(self, work: WorkT) -> None:
        """Fill in the answer of a request: `read`, `infer`, `write`.

        Raises:
            MalformedBodyError: The body is no document.
            RequestError: The document cannot be scored.
            ModelOutputError: A score is not finite.
        """
        self.read(work)
        work.scores = self._infer(work.context_ids, work.candidate_ids)
        work.inferred = perf_counter()
        self.write(work)

    @abstractmethod
    def read(self, work: WorkT) -> None:
        """Decode and encode: fill in everything up to the ids."""

    def infer(self, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores (N,) of ids (1 or N, Cc) and (N, Ci); the requests they came from may be several."""
        return self._infer(context_ids, candidate_ids)

    @abstractmethod
    def write(self, work: WorkT) -> None:
        """Write the answer from the scores."""


class Pipeline(Stages[Work]):
    """Runs requests against one model.

    Args:
        scorer: The model.
        max_candidates: Most candidates in one request.
        tokens: Makes feedback tokens for answers that are drawn; None for none.
    """

    def __init__(self, scorer: Scorer, *, max_candidates: int, tokens: TokenMaker | None = None) -> None:
        super().__init__(scorer)
        self._typed = TypedReader(scorer.encoder)
        self._encode = scorer.encode
        self._writer = AnswerWriter(scorer.bundle.manifest.model_id)
        self._max_candidates = max_candidates
        self._tokens = tokens

    def read(self, work: Work) -> None:
        """Decode and encode: fill in everything up to the ids.

        Raises:
            MalformedBodyError: The body is no document.
            RequestError: The document cannot be scored.
        """
        work.started = perf_counter()
        work.inflate()
        refuse_too_many(work.body, self._max_candidates, packed=work.packed)
        decoded = self._typed.decode(work.body, packed=work.packed)
        if decoded is None:
            self._read_generally(work)
            return
        self._note_members(work, decoded.request, decoded.rows)
        work.decoded = perf_counter()
        ids = self._typed.encode(decoded)
        if ids is None:
            self._read_generally(work)
            return
        work.context_ids, work.candidate_ids = ids
        work.encoded = perf_counter()

    def _read_generally(self, work: Work) -> None:
        """Decode and encode whatever came, by name; says what is wrong with it, and where."""
        request = decode(work.body, packed=work.packed)
        candidates = request.candidates
        rows = len(next(iter(candidates.values()), ())) if isinstance(candidates, dict) else len(candidates)
        self._note_members(work, request, rows)
        work.decoded = perf_counter()
        work.context_ids, work.candidate_ids = self._encode(request.context or None, candidates)
        work.encoded = perf_counter()

    def _note_members(self, work: Work, request: Members, rows: int) -> None:
        if request.request_id:
            work.request_id = request.request_id
        work.top_k = request.top_k or 0
        if rows > self._max_candidates:
            raise MemberError("candidates", f"at most {self._max_candidates}", f"{rows}")
        if rows > work.most_rows:
            raise ManyRowsError(rows)

    def write(self, work: Work) -> None:
        """Write the answer from the scores.

        Raises:
            ModelOutputError: A score is not finite.
        """
        ranking = rank(work.scores, work.top_k) if work.top_k else None
        write = self._writer.msgpack if work.answer_packed else self._writer.json
        if self._tokens is None or (issued := self._tokens.draw(work.scores, ranking)) is None:
            work.answer = write(work.request_id, work.scores, ranking)
        else:
            work.feedback = issued
            work.answer = write(work.request_id, work.scores, ranking, issued.tokens)
        work.deflate()
