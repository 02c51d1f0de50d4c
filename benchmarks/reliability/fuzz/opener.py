"""The process that opens damaged bundles: `python -m benchmarks.reliability.fuzz.opener`.

It reads the path of a bundle a line, does with it what a service does from start to answer, and says in a line what
became of it. Whatever ends it is its parent's finding.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

from service.bundle import BundleError
from service.documents.examples import examples
from service.documents.request_schema import request_type
from service.errors import ModelOutputError
from service.metrics import ServiceMetrics
from service.pipeline import Pipeline, Work
from service.scorer import Scorer, ScorerError
from service.versions.loading import load_model

MEMORY_BYTES: Final = 8 << 30
MOST_CANDIDATES: Final = 1000


def outcome(path: Path) -> dict[str, Any]:
    """What becomes of a bundle: refused (with the reason), served, or a fault of ours."""
    try:
        loaded = load_model(path, threads=1)
        for precision in loaded.scorer.bundle.manifest.variants:
            Scorer(loaded.scorer.bundle, precision=precision).self_test()
    except (BundleError, ScorerError) as error:
        return {"outcome": "refused", "why": type(error).__name__, "message": str(error)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it should have been one of the above
        return {"outcome": "fault", "why": type(error).__name__, "message": f"loading: {error}"}
    try:
        return _serve(loaded.scorer, loaded.seconds)
    except ModelOutputError as error:
        return {"outcome": "unanswered", "why": type(error).__name__, "message": str(error)}
    except BaseException as error:  # noqa: BLE001
        return {"outcome": "fault", "why": type(error).__name__, "message": f"serving: {error}"}


def _serve(scorer: Scorer, seconds: float) -> dict[str, Any]:
    """Make of a model what `Runtime` makes of it, and answer its golden rows and made-up ones."""
    bundle = scorer.bundle
    manifest = bundle.manifest
    metrics = ServiceMetrics()
    metrics.add_model(
        manifest.model_id,
        bundle.encoder,
        bundle.reference,
        info=(manifest.created, bundle.encoder.digest[:12]),
        load_seconds=seconds,
    )
    pipeline = Pipeline(scorer, max_candidates=MOST_CANDIDATES)
    request_type(bundle.encoder, max_candidates=MOST_CANDIDATES)
    bodies = [{"context": row.context, "candidates": [row.candidate]} for row in bundle.golden[:8]]
    bodies += [example.body for example in examples(bundle.encoder)]
    for body in bodies:
        work = Work(json.dumps(body).encode(), request_id="fuzz", packed=False, answer_packed=False)
        pipeline.run(work)
        scores = json.loads(work.answer)["scores"]
        if not all(math.isfinite(score) and 0.0 <= score <= 1.0 for score in scores):
            return {"outcome": "insane", "why": "score", "message": repr(scores)[:200]}
    return {"outcome": "served", "why": "", "message": ""}


def main() -> None:
    """Answer until there are no more lines."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Libraries that read a graph print to standard output: what the parent reads gets a way of its own.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            answers.write(json.dumps(outcome(Path(line.rstrip("\n")))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
