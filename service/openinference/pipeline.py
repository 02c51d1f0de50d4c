"""One inference request from bytes to bytes, in the stages of `service.pipeline`: decode, encode, infer, write."""

from __future__ import annotations

import re
from time import perf_counter
from typing import TYPE_CHECKING, Final

from service.openinference.answer import InferWriter, wants_binary
from service.openinference.document import decode, split
from service.openinference.encode import TensorEncoder
from service.pipeline import ManyRowsError, Stages, Work
from service.wire import REQUEST_ID_PATTERN

if TYPE_CHECKING:
    from service.scorer import Scorer

__all__ = ["InferPipeline", "InferWork"]

_fits_a_header: Final = re.compile(REQUEST_ID_PATTERN).fullmatch


class InferWork(Work):
    """One inference request on its way.

    Attributes:
        header_length: Bytes of the JSON part of the body; None where it is the whole body.
        answer_header_length: The same of the answer.
        binary: Whether scores are answered as bytes.
        client_id: The client's id of the request, if it gave one.
    """

    __slots__ = ("answer_header_length", "binary", "client_id", "header_length")

    def __init__(self, body: bytes, *, request_id: str, header_length: int | None) -> None:
        super().__init__(body, request_id=request_id, packed=False, answer_packed=False)
        self.header_length = header_length
        self.answer_header_length: int | None = None
        self.binary = False
        self.client_id: str | None = None


class InferPipeline(Stages[InferWork]):
    """Runs inference requests against one model.

    Args:
        scorer: The model.
        max_candidates: Most candidates in one request.
    """

    def __init__(self, scorer: Scorer, *, max_candidates: int) -> None:
        super().__init__(scorer)
        self._max_candidates = max_candidates
        self._encode = TensorEncoder(scorer.encoder, max_candidates=max_candidates).encode
        self._write = InferWriter(scorer.bundle.manifest.model_id).write

    def read(self, work: InferWork) -> None:
        """Decode and encode: fill in everything up to the ids.

        Raises:
            MalformedBodyError: The body is no document.
            RequestError: The document cannot be scored.
        """
        work.started = perf_counter()
        work.inflate()
        request = decode(split(work.body, work.header_length))
        if request.id:
            work.client_id = request.id
            if _fits_a_header(request.id):
                work.request_id = request.id
        work.binary = wants_binary(request)
        rows = max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=0)
        if work.most_rows < rows <= self._max_candidates:  # more are refused below
            raise ManyRowsError(rows)
        work.decoded = perf_counter()
        work.context_ids, work.candidate_ids = self._encode(request, work.body, work.header_length)
        work.encoded = perf_counter()

    def write(self, work: InferWork) -> None:
        """Write the answer from the scores.

        Raises:
            ModelOutputError: A score is not finite.
        """
        work.answer, work.answer_header_length = self._write(work.client_id, work.scores, binary=work.binary)
        work.deflate()
