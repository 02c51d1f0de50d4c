"""`python -m service bench`: a load tool that tells the truth. Also a library.

Open-loop Poisson arrivals; latency counts from when a request was *due*. `run_load` measures one rate,
`highest_rate` looks for the highest that holds an objective.
"""

from service.bench.errors import BenchError, BodyError, TargetError
from service.bench.http import Target, parse_target
from service.bench.load import Body, LoadResult, run_load
from service.bench.search import Objective, Point, SearchResult, Verdict, highest_rate, judge

__all__ = [
    "BenchError",
    "Body",
    "BodyError",
    "LoadResult",
    "Objective",
    "Point",
    "SearchResult",
    "Target",
    "TargetError",
    "Verdict",
    "highest_rate",
    "judge",
    "parse_target",
    "run_load",
]
