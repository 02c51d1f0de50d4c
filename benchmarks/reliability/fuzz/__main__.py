"""`python -m benchmarks.reliability.fuzz bundles`, and `requests`: spoil them in thousands of ways and count."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.fuzz.bundles import as_written, digests_made_to_fit, signed_copy
from benchmarks.reliability.fuzz.documented import MissingToolError, hold_to_document
from benchmarks.reliability.fuzz.requests import ask_all, target
from benchmarks.reliability.page import publish

if TYPE_CHECKING:
    from benchmarks.reliability.fuzz.bundles import Result


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def requests(
    inputs: Annotated[int, typer.Option(help="requests")] = 100_000,
    seed: Annotated[int, typer.Option(help="the first; a finding names its own")] = 0,
    to: Annotated[Path | None, typer.Option("--figures", help="JSON file whose figures to set")] = None,
) -> None:
    """Send spoilt requests to a server of its own; exit status 1 where an answer is one that none may be."""
    with tempfile.TemporaryDirectory(prefix="request-fuzz-") as folder:
        write_small_bundle(Path(folder) / "small")
        with target(Path(folder) / "small", Path(folder) / "log") as server:
            answers = ask_all(server, range(seed, seed + inputs))
    for kind, statuses in sorted(answers.statuses.items()):
        counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        typer.echo(f"{kind}: {counts}")
    typer.echo(f"{answers.inputs} requests; memory {answers.memory_growth:.3f}, files {answers.descriptor_growth:+d}")
    for number, what, message in answers.findings:
        typer.echo(f"  seed {number}: {what}: {message}")
    if to is not None:
        figures = {
            "fuzz_inputs": answers.inputs,
            "fuzz_5xx": answers.counts["fault"],
            "fuzz_crashes": answers.counts["crash"],
            "fuzz_wrong_answers": answers.counts["wrong"],
            "fuzz_memory_growth_ratio": round(answers.memory_growth, 4),
            "fuzz_descriptor_growth": answers.descriptor_growth,
        }
        publish(figures, to)
    if answers.findings:
        raise typer.Exit(1)


@app.command()
def documented(
    examples: Annotated[int, typer.Option(help="most requests of a kind of each operation")] = 1000,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
    to: Annotated[Path | None, typer.Option("--figures", help="JSON file whose figures to set")] = None,
) -> None:
    """Hold a server of its own to its OpenAPI document by schemathesis; exit status 1 where an answer breaks it."""
    with tempfile.TemporaryDirectory(prefix="documented-") as folder:
        write_small_bundle(Path(folder) / "small")
        with target(Path(folder) / "small", Path(folder) / "log") as server:
            try:
                held = hold_to_document(server.port, examples=examples, seed=seed)
            except MissingToolError as error:
                typer.echo(error)
                return
    typer.echo(held.output)
    if to is not None:
        publish({"documented_cases": held.cases, "documented_failed": int(held.failed)}, to)
    if held.failed:
        raise typer.Exit(1)


@app.command()
def bundles(  # noqa: PLR0917 - typer calls it by name
    bundle: Annotated[Path | None, typer.Option(help="a good bundle; a small one if absent")] = None,
    inputs: Annotated[int, typer.Option(help="damages with digests made to fit")] = 10_000,
    written: Annotated[int, typer.Option(help="damages with digests as written")] = 10_000,
    seed: Annotated[int, typer.Option(help="the first; a finding names its own")] = 0,
    only: Annotated[
        list[str] | None, typer.Option(help="a file to damage, several times for several; all if absent")
    ] = None,
    to: Annotated[Path | None, typer.Option("--figures", help="JSON file whose figures to set")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for all counts and findings")] = None,
) -> None:
    """Print what became of every damage; exit status 1 where one did what none may do."""
    with tempfile.TemporaryDirectory(prefix="bundle-fuzz-") as folder:
        place = Path(folder)
        if bundle is None:
            write_small_bundle(bundle := place / "small")
        signed, keys = signed_copy(bundle, place)
        results = {
            "as_written": as_written(signed, keys, place / "one", range(seed, seed + written), only or ()),
            "made_to_fit": digests_made_to_fit(bundle, place / "two", range(seed, seed + inputs), only or ()),
        }
    for name, result in results.items():
        _show(name.replace("_", " "), result)
    if to is not None:
        publish(_figures(results), to)
    if json_file is not None:
        document = {name: result.document() for name, result in results.items()}
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if any(result.findings for result in results.values()):
        raise typer.Exit(1)


def _figures(results: dict[str, Result]) -> dict[str, float]:
    fitted = results["made_to_fit"].outcomes
    return {
        "bundle_flips": results["as_written"].inputs,
        "bundle_flips_accepted": results["as_written"].outcomes["accepted"],
        "bundle_damages_fitted": results["made_to_fit"].inputs,
        "bundle_damages_served": fitted["served"] + fitted["unanswered"],
        "bundle_child_crashes": fitted["crashed"] + fitted["hung"],
        "bundle_faults": fitted["fault"] + fitted["insane"],
    }


def _show(name: str, result: Result) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result.outcomes.most_common())
    typer.echo(f"digests {name}: {result.inputs} damaged bundles: {counts}")
    for why, count in result.reasons.most_common():
        typer.echo(f"    {count:>8} {why}")
    for finding in result.findings[:20]:
        typer.echo(f"  seed {finding.seed}, {finding.file}, {finding.kind}: {finding.outcome}: {finding.message}")


if __name__ == "__main__":
    app()
