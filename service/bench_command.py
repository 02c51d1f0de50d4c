"""The options of `python -m service bench`. What they do is in `service.bench`, which only this command loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Options", "bench"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `bench`, as it describes them."""

    url: str
    bundle: Path | None
    table: Path | None
    body: Path | None
    candidates: int
    form: str
    top_k: int | None
    p99_ms: float
    errors: float
    rate: float | None
    rates: str | None
    start: float | None
    ceiling: float | None
    resolution: float
    seconds: float
    warm_up: float
    repeats: int
    seed: int
    connections: int
    timeout: float
    header: list[str] | None
    spin: bool | None
    json: Path | None
    picture: Path | None


def bench(
    url: Annotated[str, typer.Argument(help="http://HOST[:PORT][/PATH]; without a path, the form's own is taken.")],
    *,
    bundle: Annotated[Path | None, typer.Option(help="Send the golden rows of this bundle, which are real.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Send rows of this .csv, .tsv (or .gz) or .parquet; columns named like fields.")
    ] = None,
    body: Annotated[Path | None, typer.Option(help="Send these bodies as they are, one JSON document a line.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates a request.")] = 100,
    form: Annotated[str, typer.Option(help="rows, columns, pointwise, msgpack (columns), oip or oip-binary.")] = "rows",
    top_k: Annotated[int | None, typer.Option(min=1, help="Ask for so many places of the ranking.")] = None,
    p99_ms: Annotated[float, typer.Option(min=0.001, help="Objective: the 99th percentile is at most this.")] = 10.0,
    errors: Annotated[float, typer.Option(min=0, max=1, help="Objective: share of requests that may fail.")] = 0.001,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Measure this rate only, requests/s.")] = None,
    rates: Annotated[str | None, typer.Option(help="Measure these rates only, such as 100,200,400.")] = None,
    start: Annotated[float | None, typer.Option(min=0.5, help="Where the search begins, requests/s.")] = None,
    ceiling: Annotated[float | None, typer.Option(min=0.5, help="The search tries no higher rate.")] = None,
    resolution: Annotated[float, typer.Option(min=0.001, max=1, help="How near the search comes, a share.")] = 0.05,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Measured seconds a run; more in a search at low rates.")
    ] = 5.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before them that are sent and not counted.")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each given rate, and of the search's answer.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="Most connections; a wait for one is counted.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until a request has failed.")] = 10.0,
    header: Annotated[list[str] | None, typer.Option(help="Another header, 'name: value'; may be repeated.")] = None,
    spin: Annotated[
        bool | None, typer.Option("--spin/--no-spin", help="Spin between arrivals [where there is a second core].")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON (format reaction-bench).")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw latency against load: .svg, .png or .pdf.")] = None,
) -> None:
    """Load a service with Poisson arrivals, and find the highest rate at which its p99 holds.

    Latency counts from when a request was due, so a server that stops cannot hide the requests that it held up. One of
    --bundle, --table and --body says what is sent. Give the generator a core of its own, apart from the server's
    (taskset), or it will have to say that it was itself the bottleneck.

    Exit status: 0 the objective holds at the given rates, or a highest rate was found. 1 the target cannot be reached,
    or refuses the bodies. 2 wrong usage. 3 the generator was the bottleneck: what is answered is a lower bound. 4 the
    objective is missed.
    """
    from service.bench.command import run  # noqa: PLC0415 - a process that serves needs none of it

    options = Options(
        url=url,
        bundle=bundle,
        table=table,
        body=body,
        candidates=candidates,
        form=form,
        top_k=top_k,
        p99_ms=p99_ms,
        errors=errors,
        rate=rate,
        rates=rates,
        start=start,
        ceiling=ceiling,
        resolution=resolution,
        seconds=seconds,
        warm_up=warm_up,
        repeats=repeats,
        seed=seed,
        connections=connections,
        timeout=timeout,
        header=header,
        spin=spin,
        json=json,
        picture=picture,
    )
    raise typer.Exit(run(options))
