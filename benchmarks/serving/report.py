"""`SERVING.md` from the stored document: written by `make bench-serving`, never by hand."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.profile import PERF_COMMAND, PY_SPY_COMMAND
from benchmarks.serving.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]
_LINE_LENGTH: Final = 116


def markdown(document: Document) -> str:
    """The page."""
    parts = [
        _head(document),
        _targets(document),
        _stages(document),
        _profiles(document),
        _line(document),
        _loads(document),
        _throughput(document),
        _latency(document),
        _method(document),
    ]
    return "\n".join(part for part in parts if part)


def number(value: float | None, digits: int = 3) -> str:
    """A number with about three digits that mean something."""
    if value is None:
        return "–"
    if abs(value) >= 100:  # noqa: PLR2004 - then all of its whole digits
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A table; the first `texts` columns are text, the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows)) + "\n"


def prose(*sentences: str) -> str:
    """A paragraph with lines of a length that reads well."""
    return textwrap.fill(" ".join(sentences), _LINE_LENGTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _head(document: Document) -> str:
    machine = document["machine"]
    return (
        "# Serving, measured\n\n"
        + prose(
            "Written by `make bench-serving`; do not edit. The service beside the floor of its own stack (a no-op on",
            "the same web server), beside the FastAPI tutorial that everyone starts from, and other model servers,",
            "with one model and the same raw rows: 39 fields, 26 of them the context's.",
        )
        + "\n"
        + prose(
            f"{machine['date'][:10]}, {machine['processor']}, {machine['cores']} cores; server on one, load generator",
            f"on the other; `{document['command']}`, {document['seconds'] / 60:.0f} minutes.",
        )
    )


def _targets(document: Document) -> str:
    rows = []
    for name, target in document["targets"].items():
        spread = document["spread"].get(name)
        verdict = "not measured" if target["met"] is None else "met" if target["met"] else "**not met**"
        if spread is not None and spread["noisy"]:
            verdict += ", disturbed"
        rows.append(
            [
                f"`{name}`",
                target["text"],
                target["expected"],
                number(target["value"]) + (" *" if spread and spread["noisy"] else ""),
                "–" if spread is None else f"{number(spread['low'])} to {number(spread['high'])}",
                number(document["by_processor_time"].get(name)),
                verdict,
            ]
        )
    head = ["figure", "what", "wanted", "measured", "rounds", "by processor time", ""]
    text = "\n## What was to be reached\n\n" + prose(
        "Medians over rounds of ratios of the same round. The last number is the same ratio by the servers' processor",
        "time a request instead of by the clock: where the two differ, other work disturbed the measurement, or a",
        "server did not use its whole core. `*`, disturbed: in every round others used the cores; the figure by",
        "processor time is then the better one.",
    )
    return text + "\n" + table(head, rows, texts=3) + _absent(document)


def _absent(document: Document) -> str:
    if any(kind == "model server" for kind in document["kinds"].values()):
        return ""
    return "\nNo other model servers took part: `best_peer_*` need `make bench-serving PEERS=DIR PEERS_VENVS=DIR`.\n"


def _stages(document: Document) -> str:
    rows = []
    for row in document["stages"]:
        names = ("decode", "encode", "infer", "respond", "rest_us", "cpu_us", "kernel_us", "noop_us", "floor_us")
        rows.append([WORKLOADS[row["workload"]].title, row["form"], *(number(row.get(name)) for name in names)])
    head = ["request", "form", "decode", "encode", "infer", "respond", "HTTP and the rest", "all", "of it kernel"]
    head += ["a no-op", "in one process"]
    text = "\n## Where the time goes\n\n" + prose(
        "Microseconds a request. Stages are the service's own (`reaction_stage_seconds` of `/metrics`); `respond` is",
        "writing and sending. `all` is the process's time (user and kernel, from `/proc`), `HTTP and the rest` what no",
        "stage counts: sockets, parsing the head, the event loop, counting. Beside it: the no-op with the same body",
        "and as many bytes back, and decode + encode + infer + write in one process without HTTP",
        "(`python -m benchmarks.serving.floor`).",
        "Stages are by the clock: on a disturbed machine they hold others' time.",
    )
    return text + "\n" + table(head, rows, texts=2) if rows else ""


def _profiles(document: Document) -> str:
    lines = []
    for cell, tools in document["profiles"].items():
        for tool, shares in tools.items():
            parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            lines.append(f"- {cell}, {tool}: {parts}")
    if not lines:
        return ""
    text = prose(
        "Samples of the service under the closed loop, by shared object",
        f"(`{PERF_COMMAND}`), and by the innermost Python frame's package, C code counting for the frame that called",
        f"it (`{PY_SPY_COMMAND}`):",
    )
    return "\n" + text + "\n" + "\n".join(lines) + "\n"


def _line(document: Document) -> str:
    if not document["points"]:
        return ""
    rows = [[str(row["candidates"]), number(row["service_us"]), number(row["floor_us"])] for row in document["points"]]
    text = "\n## Cost against candidates\n\nMicroseconds of processor time a request, one context, columns.\n\n"
    text += table(["candidates", "service", "in one process"], rows, texts=0) + "\n"
    for name, line in document["lines"].items():
        text += (
            f"- {name}: {number(line['fixed'])} + {number(line['slope'])} a candidate; the points lie within "
            f"{line['worst']:.0%} of that line\n"
        )
    for row in document["context_fields"]:
        text += (
            f"- 25 further context fields at {row['candidates']} candidate(s): {number(row['difference_us'])} "
            f"(in one process, call by call beside a model without them: {number(row['many_us'])} and "
            f"{number(row['few_us'])})\n"
        )
    return text


def _loads(document: Document) -> str:
    if not document["loads"]:
        return ""
    names = ("rate", "p50_ms", "predicted_p50_ms", "p99_ms", "predicted_p99_ms", "p999_ms", "lag_p99_ms")
    rows = []
    for row in document["loads"]:
        ratio = row["p99_ms"] / row["p50_ms"]
        cells = [f"{row['load']:.0%}", *(number(row[name]) for name in names), number(ratio)]
        rows.append([*cells, number(row["predicted_ratio"]), number(row["requests"])])
    head = ["load", "req/s", "p50 ms", "M/D/1", "p99 ms", "M/D/1", "p99.9 ms", "send lag p99 ms"]
    head += ["p99 / p50", "M/D/1", "requests"]
    service = document["loads"][0]["service_ms"]
    text = "\n## 1000 candidates, Poisson arrivals, one worker\n\n" + prose(
        "Latency from when a request was due. M/D/1: what queueing alone gives for a service time of",
        f"{number(service)} ms, which is one over the closed loop's throughput.",
    )
    return text + "\n" + table(head, rows)


def _server(row: Mapping[str, Any]) -> str:
    return f"{row['server']} ({row['form']})"


def _throughput(document: Document) -> str:
    text = "\n## Throughput, closed loop\n\n" + prose(
        "How far ahead is told of the service's columns, of its rows where there is one row."
    )
    for workload, entries in document["throughput"].items():
        kind = WORKLOADS[workload]
        rows = [
            [
                _server(row) + (" *" if row["noisy"] else ""),
                row["kind"],
                *(number(row[name]) for name in ("requests_per_second", "rows_per_second", "cpu_us")),
                "–" if row["busy"] is None else f"{row['busy']:.0%}",
                number(row["lead"]),
                number(row["p50_ms"]),
                number(row["p99_ms"]),
                str(row["errors"]),
            ]
            for row in entries
        ]
        head = ["server (form)", "kind", "req/s", "candidates/s", "µs a request", "core used", "service ahead"]
        head += ["p50 ms", "p99 ms", "errors"]
        text += f"\n### {kind.title}, {kind.connections} connections\n\n" + table(head, rows, texts=2)
    return text


def _latency(document: Document) -> str:
    if not document["latency"]:
        return ""
    text = "\n## Latency at one common rate, Poisson arrivals\n\n" + prose(
        "The rate is half of what the slowest server takes. Of fewer than 100 requests, p99 is the slowest one."
    )
    for workload, entries in document["latency"].items():
        leads = document["latency_leads"].get(workload, {})
        rows = [
            [
                _server(row),
                *(number(row[name]) for name in ("p50_ms", "p99_ms", "max_ms", "lag_p99_ms")),
                number(leads.get(f"{row['server']}.{row['form']}")),
                str(row["requests"]),
                str(row["errors"]),
            ]
            for row in entries
        ]
        head = ["server (form)", "p50 ms", "p99 ms", "max ms", "send lag p99 ms", "service ahead in p99"]
        head += ["requests", "errors"]
        rate = document["common_rates"].get(workload)
        text += f"\n### {WORKLOADS[workload].title}, {number(rate)} req/s\n\n" + table(head, rows)
    return text


def _method(document: Document) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    points = [
        "One server process on one core, the load generator on the other; `/metrics` on, logging as shipped.",
        "Servers are started once a block and stopped with SIGSTOP while another is measured; the order rotates.",
        "A cell during which other processes used either core for over 5% of the time is measured again.",
        "Throughput: wrk, closed loop, bodies rotate. Latency: the service's own load tool, open loop.",
        "Every server's first answer must hold the scores of the model within 1e-5 before it is measured.",
        f"Other servers run the same model in its fastest form of one input of ids: {document['plain_form']}.",
        f"Kernel {machine['kernel']}, Python {machine['python']}, {versions}.",
    ]
    text = "\n## Method\n\n" + "".join(f"- {point}\n" for point in points)
    for name, found in machine.get("peer_versions", {}).items():
        text += f"- Environment `{name}`: " + ", ".join(f"{one} {version}" for one, version in found.items()) + ".\n"
    for name, reason in document["failed"].items():
        text += f"- `{name}` could not take part: {' '.join(reason.split())[:200]}\n"
    return text
