"""The tutorial recipe: a pydantic row of 39 typed fields in, a plain `def` endpoint, pydantic out, FastAPI's JSON."""

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, create_model

from benchmarks.serving.job import CATEGORICAL, NUMERIC, Job

TYPES: dict[str, Any] = dict.fromkeys(NUMERIC, (float | None, None))
TYPES |= dict.fromkeys(CATEGORICAL, (str | None, None))
Row = create_model("Row", **TYPES)


class Request(BaseModel):
    """Rows to score."""

    rows: list[Row]


class Answer(BaseModel):
    """Their scores."""

    scores: list[float]


app = FastAPI()
job = Job(Path(os.environ["BENCH_MODEL"]))


@app.post("/score", response_model=Answer)
def predict(request: Request) -> dict[str, list[float]]:
    """Score rows."""
    return {"scores": job([row.model_dump() for row in request.rows])}
