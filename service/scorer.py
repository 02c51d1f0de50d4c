"""Scorer: raw context and raw candidates to probabilities, the whole of what a request asks for.

Knows no web framework: the service calls it from its routes, export from its parity gate, tests from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime as ort

from service.bundle_format.manifest import BundleFormatError
from service.features import NoCandidatesError, RequestError, StructureError
from service.features.errors import describe
from service.features.structure import is_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.bundle import Bundle
    from service.bundle_format.manifest import Precision
    from service.features import Side

__all__ = ["Candidates", "Scorer", "ScorerError", "SelfTestError", "SelfTestReport"]

Candidates = Sequence[Mapping[str, object]] | Mapping[str, Sequence[object]]

_INPUTS: Final[dict[Side, str]] = {"context": "context_ids", "candidate": "candidate_ids"}
_FATAL: Final = 4
_OUTPUT: Final = "pctr"


class ScorerError(RuntimeError):
    """The graph did something that a checked bundle's graph does not do."""


class SelfTestError(ScorerError):
    """A golden row did not get its ids or its score."""


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """What a passed self-test saw.

    Attributes:
        rows: Golden rows scored.
        largest_difference: Largest absolute difference from the golden scores.
        tolerance: What it had to stay within.
    """

    rows: int
    largest_difference: float
    tolerance: float


def _session(path: str, threads: int) -> ort.InferenceSession:
    """A session that takes the threads it is given and no more.

    Raises:
        BundleFormatError: ONNX Runtime cannot load the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL  # what goes wrong is raised; it need not be on stderr as well
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A spinning thread burns the quota its neighbours need, and small work gains nothing from it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Else the file's name decides, and the other format is read with fewer checks.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise BundleFormatError(f"{path}: expected a graph that ONNX Runtime can load, got {error}") from error


class Scorer:
    """A bundle, ready to score. Safe to call from several threads.

    Args:
        bundle: What to score with.
        threads: Threads of one call within ONNX Runtime, at least 1. (Its own default, 0, takes all cores of the host.)
        precision: What the tables hold; only that graph is loaded.

    Raises:
        BundlePrecisionError: The bundle holds no such graph.
        BundleChangedError: A file changed between its digest and its use.
        BundleFormatError: The graph does not load, or its inputs and output are not the manifest's.
        ValueError: `threads` is below 1.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, precision: Precision = "float32") -> None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        self.bundle = bundle
        self.encoder = bundle.encoder
        self.precision = precision
        self._variant = bundle.variant(precision)
        self._session = _session(str(self._variant.path), threads)
        self._check_graph()
        bundle.refuse_changed()
        # What `InferenceSession.run` does around this call, naming what is absent, takes a fifth of a one-row call; the
        # self-test goes this way too. Its third argument, made once, saves making one a call.
        inner = getattr(self._session, "_sess", None)
        self._run = self._session.run if inner is None else inner.run
        self._options = ort.RunOptions()

    def _check_graph(self) -> None:
        name = self._variant.path
        try:
            inputs = {node.name: (node.type, node.shape) for node in self._session.get_inputs()}
            outputs = [(node.name, node.type) for node in self._session.get_outputs()]
        except UnicodeDecodeError as error:  # of names and of dimensions that have one
            raise BundleFormatError(f"{name}: expected names in UTF-8, got {error}") from error
        if set(inputs) != set(_INPUTS.values()):
            raise BundleFormatError(f"{name}: expected inputs {sorted(_INPUTS.values())}, got {sorted(inputs)}")
        for side, key in _INPUTS.items():
            (kind, shape), width = inputs[key], self.encoder.width(side)
            if kind != "tensor(int32)" or len(shape) != 2 or shape[1] != width:  # noqa: PLR2004
                raise BundleFormatError(
                    f"{name}, {key}: expected tensor(int32) of shape (rows, {width}), got {kind} {shape}"
                )
        if outputs != [(_OUTPUT, "tensor(float)")]:
            raise BundleFormatError(f"{name}: expected the output {_OUTPUT!r}, tensor(float), got {outputs}")

    def encode(
        self, context: Mapping[str, object] | None, candidates: Candidates
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of a request.

        Args:
            context: Raw values that all candidates share. None or empty: each candidate carries the fields of both
                sides (pointwise form).
            candidates: One object a candidate, or one array a field, all of one length.

        Returns:
            context_ids (1, Cc), or (N, Cc) in the pointwise form, and candidate_ids (N, Ci); int32.

        Raises:
            RequestError: See the tree in `service.features.errors`; `where` reads `candidates[3].price_band` or
                `candidates.price_band[3]`.
        """
        if context is not None and not isinstance(context, Mapping):
            raise StructureError("context", "an object", describe(context))
        shared = not context
        encoder = self.encoder
        if isinstance(candidates, Mapping):
            count = _column_length(candidates)
            candidate_ids = encoder.encode_columns("candidate", candidates, count, shared=shared)
            if shared:
                context_ids = encoder.encode_columns("context", candidates, count, root="candidates", shared=True)
                return context_ids, candidate_ids
        else:
            if not is_array(candidates):
                raise StructureError("candidates", "an array of objects or an object of arrays", describe(candidates))
            if not candidates:
                raise NoCandidatesError("candidates", "at least one", "none")
            candidate_ids = encoder.encode_rows("candidate", candidates, shared=shared)
            if shared:
                context_ids = encoder.encode_rows("context", candidates, root="candidates", shared=True)
                return context_ids, candidate_ids
        return encoder.encode_rows("context", [context or {}]), candidate_ids

    def run(self, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of encoded candidates, shape (N,).

        Args:
            context_ids: int32 (1, Cc) or (N, Cc).
            candidate_ids: int32 (N, Ci).

        Raises:
            ScorerError: The graph's answer has another shape or type.
        """
        feeds = {"context_ids": context_ids, "candidate_ids": candidate_ids}
        scores = self._run([_OUTPUT], feeds, self._options)[0]
        if not isinstance(scores, np.ndarray) or scores.shape != (len(candidate_ids),):
            raise ScorerError(f"{_OUTPUT}: expected shape ({len(candidate_ids)},), got {np.shape(scores)}")
        return scores

    def score(self, context: Mapping[str, object] | None, candidates: Candidates) -> NDArray[np.float32]:
        """Probability of a click for each candidate, shape (N,), in the order given.

        Raises:
            RequestError: See `encode`.
        """
        return self.run(*self.encode(context, candidates))

    def self_test(self) -> SelfTestReport:
        """Encode and score the golden rows through every form, and compare ids exactly, scores within tolerance.

        It also warms the session up.

        Raises:
            SelfTestError: Ids or a score differ, or a row cannot be encoded or scored at all.
        """
        try:
            return self._self_test()
        except ScorerError:
            raise
        except RequestError as error:
            raise SelfTestError(f"golden rows: {error}") from error
        except Exception as error:  # ONNX Runtime's share no base but Exception
            raise SelfTestError(f"golden rows: expected scores, got {type(error).__name__}: {error}") from error

    def _self_test(self) -> SelfTestReport:
        golden = self.bundle.golden
        tolerance = self._variant.tolerance
        wanted_context = np.array([row.context_ids for row in golden], dtype=np.int32)
        wanted_candidate = np.array([row.candidate_ids for row in golden], dtype=np.int32)
        wanted = np.array([row.pctr for row in golden], dtype=np.float64)
        context_ids, candidate_ids = self.encode(None, [{**row.context, **row.candidate} for row in golden])
        sides: tuple[tuple[Side, NDArray[np.int32], NDArray[np.int32]], ...] = (
            ("context", context_ids, wanted_context.reshape(context_ids.shape)),
            ("candidate", candidate_ids, wanted_candidate.reshape(candidate_ids.shape)),
        )
        for side, got, expected in sides:
            for row, column in np.argwhere(got != expected):
                field = next(c.name for c in self.encoder.columns(side) if c.first <= column < c.first + c.width)
                raise SelfTestError(
                    f"golden row {row}, field {field!r}: expected id {expected[row, column]}, got {got[row, column]}"
                )
        worst = 0.0
        alone = [self.score(row.context, [row.candidate])[0] for row in golden]
        for form, scores in (("pointwise", self.run(context_ids, candidate_ids)), ("one by one", np.array(alone))):
            differences = np.abs(scores.astype(np.float64) - wanted)
            row = int(np.argmax(np.where(np.isfinite(differences), differences, np.inf)))
            if not differences[row] <= tolerance:
                raise SelfTestError(
                    f"golden row {row}, {form}: expected score {float(wanted[row])!r} within {tolerance:g}, "
                    f"got {float(scores[row])!r}"
                )
            worst = max(worst, float(differences[row]))
        return SelfTestReport(len(golden), worst, tolerance)


def _column_length(columns: Mapping[str, Sequence[object]]) -> int:
    """N of the columnar form.

    Raises:
        NoCandidatesError: No column, or columns of no value.
        StructureError: The first column is no array; the encoder checks the others.
    """
    for name, values in columns.items():
        if not is_array(values):
            raise StructureError(f"candidates.{name}", "an array", describe(values))
        if values:
            return len(values)
        break
    raise NoCandidatesError("candidates", "at least one", "none")
