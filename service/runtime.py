"""The state of one serving process: what it is doing, and the model once there is one.

A bundle is loaded on a thread of its own while the server listens already, so that probes can say what they wait
for. Nothing is scored before the bundle's digests, its graph and its golden rows have been checked.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from service import VERSION
from service.admission import Gate
from service.bundle import BundleError
from service.coalesce import Coalescer
from service.edge.api_keys import ApiKeys
from service.errors import NotReadyError
from service.feedback.desk import Desk
from service.logging import get_logger, write_lines
from service.metrics import ServiceMetrics
from service.openinference.pipeline import InferPipeline, InferWork
from service.pipeline import Pipeline, RequestIds
from service.recording.recorder import Recorder
from service.scorer import ScorerError
from service.tracing.tracer import Tracer
from service.trial.canary import Canary, Split
from service.trial.feed import Feed
from service.versions.loading import load_model
from service.versions.store import StoreError, served_bundle
from service.workers.assignment import Assignment
from service.workers.boot import lower_this_thread
from service.workers.huge_pages import collapse
from service.workers.order import Part, Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.bundle import Manifest
    from service.counts.cells import Cells
    from service.metrics import ModelMetrics
    from service.pipeline import Stages, Work
    from service.scorer import Scorer
    from service.settings import Settings
    from service.versions.loading import LoadedModel
    from service.workers.plan import Plan

__all__ = ["Model", "Runtime", "Stage"]

Stage = Literal["starting", "ready", "failed", "draining", "stopping"]

_FLUSH_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.01

_log: Final = get_logger("service")


@dataclass(frozen=True, slots=True)
class Model:
    """The model that is served.

    Attributes:
        scorer: Raw values to scores.
        pipeline: Bytes to bytes.
        inference: The same in the Open Inference Protocol.
        metrics: Its counts.
        label: Its name in metrics and tokens.
        coalescer: Lets queued requests share calls of the model; None where they must not.
        canary: What takes a share of its requests; None for nothing.
    """

    scorer: Scorer
    pipeline: Stages[Work]
    inference: Stages[InferWork]
    metrics: ModelMetrics
    label: str
    coalescer: Coalescer | None = None
    canary: Canary | None = None

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.scorer.bundle.manifest


class Runtime:
    """Everything routes share.

    Args:
        settings: The process's settings.
        plan: Threads to use.
        assignment: This process's part; by default it serves alone.
        on_failure: Called on the event loop when no model could be loaded: the process is of no use then.

    Raises:
        SettingsError: The API keys cannot be used.

    Attributes:
        leaving: The process was told to end, perhaps before it listens.
        assignment: As given.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        assignment: Assignment | None = None,
        *,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.keys = ApiKeys.of(settings)
        self.assignment = Assignment() if assignment is None else assignment
        self.metrics = ServiceMetrics(self.assignment.cells)
        shadow = self.assignment.shadow
        self.feed = None if shadow is None else Feed(self.metrics.cells, shadow)
        self.feedback = self.metrics.feedback = Desk.open(settings, self.metrics.cells)
        self.recorder = Recorder.open(settings, self.metrics.cells)
        self.tracer = Tracer.open(settings, self.metrics.cells, VERSION)
        self.leaving = False
        self.new_request_id = RequestIds()
        self.stage: Stage = "starting"
        self.failure: str | None = None
        self.model: Model | None = None
        # The server's to set: how many requests it holds, those included that the application has not seen yet.
        self.in_flight: Callable[[], int] | None = None
        self.workers = ThreadPoolExecutor(plan.work_threads, thread_name_prefix="score")
        self.gate = Gate(
            self.workers, plan.work_threads, settings.queue_candidates, settings.deadline_seconds, self.metrics
        )
        self._on_failure = on_failure

    def start(self) -> None:
        """Begin to load the bundle; returns at once."""
        loop = asyncio.get_running_loop()
        # A daemon, so that a stop during a long load need not wait for its end.
        threading.Thread(target=self._load, args=(loop,), name="load", daemon=True).start()
        if self.metrics.cells.workers > 1:
            self._flush(loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count what is queued every second: another worker may be asked for the counts of this one."""
        self.metrics.flush()
        loop.call_later(_FLUSH_SECONDS, self._flush, loop)

    async def may_listen(self) -> None:
        """Return when connections may be taken: at once, except by a late worker."""
        # Polled, as a signal handler may end the wait.
        while self.assignment.late and self.stage == "starting" and not self.leaving:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)

    def listens(self) -> None:
        """Connections are taken from now on: one that came late serves only now."""
        if self.assignment.late and self.stage == "ready":
            self.assignment.tell(Told("ready"))

    @property
    def cells(self) -> Cells | None:
        """Counts shared with other workers; None where this process serves alone."""
        return self.assignment.cells

    def drain(self) -> None:
        """Tell probes that the service is about to end; this process scores on until it does."""
        if self.stage == "ready":
            self.stage = "draining"
        self.metrics.ready = False

    def retire(self) -> None:
        """Another process has taken this one's place: the service stays as ready as it is."""
        self.metrics.ready = False

    def stop(self) -> None:
        """Score nothing more."""
        self.stage = "stopping"
        self.metrics.ready = False
        self.metrics.flush()
        for beside in (self.recorder, self.tracer):
            if beside is not None:
                beside.close()
        write_lines()
        self.workers.shutdown(wait=False, cancel_futures=True)

    def ready_model(self) -> Model:
        """The model to score with.

        Raises:
            NotReadyError: There is none (yet).
        """
        if self.model is None:
            raise self.not_ready()
        return self.model

    def check_ready(self) -> Model:
        """The model, once all workers have one: whichever of them a client meets next must be able to score.

        Raises:
            NotReadyError: This worker, or at its start another one, does not score.
        """
        model = self.ready_model()
        if self.stage != "ready" or not self.metrics.all_started():
            raise self.not_ready()
        return model

    def not_ready(self) -> NotReadyError:
        """Why requests are not scored."""
        reasons = {
            "starting": "the bundle is being read and checked",
            "failed": "the bundle was refused; the log says why",
            "draining": "the service is about to stop",
            "stopping": "the service is stopping",
            "ready": "another worker is reading the bundle",
        }
        reason = reasons.get(self.stage, self.stage)
        return NotReadyError(
            f"Not ready: {reason}.", headers=(("retry-after", "1"),), expected="a ready model", got=reason
        )

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.assignment.low and self.plan.model_threads == 1:  # more would be this one's children, and stay low
            lower_this_thread()
        try:
            settings, part, canary = self.settings, self.assignment.part, self.assignment.canary
            loaded = self._read(served_bundle(settings.bundle), None if part is None else part.manifest_sha256)
            tried = None if canary is None else self._read(Path(canary.bundle), canary.manifest_sha256)
        except Exception as error:  # noqa: BLE001 - whatever it is, probes and the log must tell
            expected = isinstance(error, (BundleError, ScorerError, StoreError, OSError))
            self.assignment.tell(Told("failed", type(error).__name__, str(error)))
            self._call(loop, self._fail, f"{type(error).__name__}: {error}", None if expected else error)
            return
        # What was loaded stays until the end: later collections need not look at it again.
        # Where others serve and nobody is counted here yet, on this thread, which they need not notice.
        model = self._make(loaded, tried) if self.assignment.low else None
        gc.collect()
        gc.freeze()
        huge = collapse() if settings.huge_pages else 0
        self._call(loop, self._serve, loaded, tried, huge, model)

    def _read(self, bundle: Path, manifest_sha256: str | None) -> LoadedModel:
        settings = self.settings
        return load_model(
            bundle,
            threads=self.plan.model_threads,
            precision=settings.precision,
            manifest_sha256=manifest_sha256,
            keys_file=settings.bundle_keys_file,
        )

    def _model(self, loaded: LoadedModel, part: Part | None) -> tuple[Model, Pipeline]:
        """A loaded model, counted from now on, and what runs its requests."""
        bundle, most = loaded.scorer.bundle, self.settings.max_candidates
        label = (None if part is None else part.label) or bundle.manifest.model_id
        metrics = self.metrics.add_model(
            label,
            bundle.encoder,
            bundle.reference,
            info=(bundle.manifest.created, bundle.encoder.digest[:12]),
            load_seconds=loaded.seconds,
            slot=0 if part is None else part.slot,
        )
        tokens = None if self.feedback is None else self.feedback.token_maker(label)
        pipeline = Pipeline(loaded.scorer, max_candidates=most, tokens=tokens)
        inference = InferPipeline(loaded.scorer, max_candidates=most)
        return Model(loaded.scorer, pipeline, inference, metrics, label), pipeline

    def _make(self, loaded: LoadedModel, tried: LoadedModel | None) -> Model:
        """What is served, from what was loaded."""
        model, pipeline = self._model(loaded, self.assignment.part)
        if tried is None:
            return replace(model, coalescer=self._coalescer(pipeline))
        return self._split(model, loaded.scorer.bundle.path, self._model(tried, self.assignment.canary)[0])

    def _split(self, model: Model, path: Path, tried: Model) -> Model:
        """A model of whose requests another one takes a share."""

        def give_up(why: str) -> None:
            self.assignment.tell(Told("canary_failed", detail=why))

        canary = Canary(self.metrics.cells, tried, give_up)
        names = path.name.encode(), tried.scorer.bundle.path.name.encode()
        return replace(
            model,
            pipeline=Split(model.pipeline, tried.pipeline, canary, names, in_body=True),
            inference=Split(model.inference, tried.inference, canary, names, in_body=False),
            canary=canary,
        )

    def _coalescer(self, pipeline: Pipeline) -> Coalescer | None:
        if not self.settings.coalesce:
            return None
        most = self.settings.coalesce_candidates
        return Coalescer(pipeline, most_candidates=most, in_flight=self.in_flight, threads=self.workers)

    @staticmethod
    def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended meanwhile, and with it the need
            return

    def _fail(self, report: str, unexpected: Exception | None) -> None:
        self.failure = report
        self.stage = "failed"
        _log.error("start_failed", bundle=str(self.settings.bundle), error=report, exc_info=unexpected)
        if self._on_failure is not None:
            self._on_failure()

    def _serve(self, loaded: LoadedModel, tried: LoadedModel | None, huge_page_bytes: int, model: Model | None) -> None:
        if self.stage != "starting":
            return
        bundle = loaded.scorer.bundle
        manifest = bundle.manifest
        self.model = self._make(loaded, tried) if model is None else model
        self.stage = "ready"
        self.metrics.ready = True
        if not self.assignment.late:
            self.assignment.tell(Told("ready"))
        _log.info(
            "ready",
            model=manifest.model_id,
            bundle=str(bundle.path),
            precision=loaded.scorer.precision,
            signed_by=bundle.signed_by,
            load_seconds=round(loaded.seconds, 4),
            huge_page_bytes=huge_page_bytes,
            golden_rows=loaded.report.rows,
            largest_difference=loaded.report.largest_difference,
            tolerance=loaded.report.tolerance,
        )
