"""The tutorial recipe for ranking: one pydantic context and a list of candidates; the handler repeats the context."""

import os
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, create_model

from benchmarks.serving.job import CONTEXT, OWN, Job
from benchmarks.serving.servers.tutorial import TYPES, Answer

Context = create_model("Context", **{name: TYPES[name] for name in CONTEXT})
Candidate = create_model("Candidate", **{name: TYPES[name] for name in OWN})


class Request(BaseModel):
    """A context and candidates to score in it."""

    context: Context
    candidates: list[Candidate]


app = FastAPI()
job = Job(Path(os.environ["BENCH_MODEL"]))


@app.post("/score", response_model=Answer)
def predict(request: Request) -> dict[str, list[float]]:
    """Score candidates."""
    context = request.context.model_dump()
    return {"scores": job([context | row.model_dump() for row in request.candidates])}
