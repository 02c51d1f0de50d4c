"""`python -m service bench URL`: what is done with the options, and what the exit status says."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.bench.bodies import FORMS, INFER_FORMS, body_file, make_bodies
from service.bench.errors import BenchError, BodyError, TargetError
from service.bench.http import parse_target
from service.bench.picture import draw
from service.bench.probe import served_model
from service.bench.report import check_place, write_report
from service.bench.rows import bundle_fields, bundle_model, golden_rows, table_rows
from service.bench.search import Limit, Objective, Verdict
from service.bench.session import Plan, run_bench
from service.bench.table import print_report, progress_line

if TYPE_CHECKING:
    from service.bench.http import Target
    from service.bench.load import Body
    from service.bench.report import Report
    from service.bench.rows import Row
    from service.bench_command import Options

__all__ = ["run", "status"]

TARGET_ERROR: Final = 1
USAGE_ERROR: Final = 2
GENERATOR_BOUND: Final = 3
MISSED: Final = 4
_RATES: Final = frozenset({"rate", "start", "ceiling"})
_LONGEST_SECONDS: Final = 1e6
# RFC 9110, sections 5.1 and 5.5.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_PICTURES: Final = (".svg", ".png", ".pdf")


def run(options: Options) -> int:
    """Do what the options say, print what came of it, and return the exit status."""
    try:
        _check_numbers(options)
        _check_extra(options.picture)
        for path in (options.json, options.picture):
            if path is not None:
                check_place(path)
        target, bodies, rows = _load(options)
        plan = Plan(
            target=target,
            bodies=bodies,
            rows=rows,
            objective=Objective(options.p99_ms / 1e3, options.errors),
            form=options.form if options.body is None else options.body.name,
            rates=_rates(options.rate, options.rates),
            start=options.start,
            ceiling=math.inf if options.ceiling is None else options.ceiling,
            resolution=options.resolution,
            seconds=options.seconds,
            warm_up=options.warm_up,
            repeats=options.repeats,
            seed=options.seed,
            connections=options.connections,
            timeout=options.timeout,
            spins=options.spin,
        )
        report = run_bench(plan, lambda point: print(progress_line(point), file=sys.stderr, flush=True))
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return TARGET_ERROR if isinstance(error, TargetError) else USAGE_ERROR
    try:
        _show(report)
    finally:  # whoever reads the table may have gone
        written = _write(report, options)
    return status(report) if written else USAGE_ERROR


def _check_extra(picture: Path | None) -> None:
    """Before minutes of measuring, not after them."""
    if picture is not None and picture.suffix not in _PICTURES:
        raise BodyError(f"--picture {picture}: expected an ending of {', '.join(_PICTURES)}")
    for name in ("rich", *(("matplotlib",) if picture is not None else ())):
        if importlib.util.find_spec(name) is None:
            raise BodyError(f"expected the extra: pip install 'reaction-ctr[bench]'; got no {name}")


def _check_numbers(options: Options) -> None:
    for name in ("p99_ms", "rate", "start", "ceiling", "seconds", "warm_up", "timeout"):
        value, most = getattr(options, name), math.inf if name in _RATES else _LONGEST_SECONDS
        if value is not None and not (math.isfinite(value) and value <= most):
            limit = f" of at most {most:,.0f}" if most < math.inf else ""
            raise BodyError(f"--{name.replace('_', '-')} {value:g}: expected a finite number{limit}")


def _headers(lines: list[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name.strip()) or not _VALUE.fullmatch(value):
            raise BodyError(f"--header {line!r}: expected 'name: value', the name a token, the value in ISO 8859-1")
        found.append((name.strip().lower(), value.strip()))
    return tuple(found)


def _rates(rate: float | None, rates: str | None) -> tuple[float, ...]:
    if rate is not None and rates is not None:
        raise BodyError("--rate, --rates: expected one of them, got both")
    if rates is None:
        return () if rate is None else (rate,)
    try:
        found = tuple(sorted({float(part) for part in rates.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(0 < one < math.inf for one in found):
        raise BodyError(f"--rates {rates}: expected positive numbers with commas between, such as 100,200,400")
    return found


def _load(options: Options) -> tuple[Target, list[Body], list[Row] | None]:
    """The target, the bodies, and the rows they are made of; a bundle beside a table says what the columns are."""
    bundle, table, form = options.bundle, options.table, options.form
    headers = _headers(options.header or [])
    target = parse_target(options.url, headers=headers)
    if options.body is not None:
        if bundle is not None or table is not None:
            raise BodyError("--body: expected neither --bundle nor --table beside it")
        return target, body_file(options.body), None
    if form not in FORMS:
        raise BodyError(f"--form {form}: expected one of {', '.join(FORMS)}")
    if bundle is not None:
        model, fields = bundle_model(bundle), bundle_fields(bundle)
    elif table is not None:
        model, fields = served_model(target, options.timeout)
    else:
        raise BodyError("expected one of --bundle, --table and --body, got none: there is nothing to send")
    rows = table_rows(table, fields) if table is not None else golden_rows(bundle or Path())
    path = f"/v2/models/{model}/infer" if form in INFER_FORMS else "/score"
    separators = {field.name: field.separator for field in fields if field.separator is not None}
    bodies = make_bodies(rows, candidates=options.candidates, form=form, top_k=options.top_k, separators=separators)
    return parse_target(options.url, path, headers), bodies, rows


def _show(report: Report) -> None:
    from rich.console import Console  # noqa: PLC0415 - of the extra: a serving process has no rich

    print_report(report, Console(width=None if Console().is_terminal else 200))


def _write(report: Report, options: Options) -> bool:
    """Write what was asked for; what cannot be written is told, and keeps nothing else from being written."""
    written = True
    for option, path, write in (("--json", options.json, write_report), ("--picture", options.picture, _draw)):
        if path is not None:
            try:
                write(path, report)
            except (OSError, ValueError) as error:
                print(f"error: {option} {path}: expected a place that can be written, got {error}", file=sys.stderr)
                written = False
    return written


def _draw(path: Path, report: Report) -> None:
    draw(report, path)


def status(report: Report) -> int:
    """The exit status that says what came of it."""
    if report.answer is not None:
        if report.answer.limited_by == Limit.GENERATOR.value:
            return GENERATOR_BOUND
        return 0 if report.answer.rate is not None else MISSED
    verdicts = {rate.verdict for rate in report.rates}
    if Verdict.GENERATOR_BOUND in verdicts:
        return GENERATOR_BOUND
    return MISSED if Verdict.MISSED in verdicts else 0
