"""`SERVING.md` from the stored document: written by `make bench-serving`, never by hand."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.cells import GENERATOR_BUSY, NOISE, SERVICE_TIMES, WARM_UP_SECONDS
from benchmarks.serving.profile import PERF_COMMAND, PY_SPY_COMMAND
from benchmarks.serving.run import FEWEST_ARRIVALS, ISOLATED_ROUNDS, SHORTEST_OPEN
from benchmarks.serving.workloads import WORKLOADS
from service.bench.load import LARGEST_BUSY_SHARE, LARGEST_LAG_SHARE

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
        _unused(document),
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


def prose(*sentences: str, indent: str = "") -> str:
    """A paragraph with lines of a length that reads well, indented from the second on."""
    lines = textwrap.wrap(
        " ".join(sentences), _LINE_LENGTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


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
        verdict = "; ".join([verdict, *target["notes"]])
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
        "server did not use its whole core.",
        "`*`, disturbed: others used the cores in every round; by processor time is then the better figure.",
        f"An upper bound: beside the lower of the two the generator used over {GENERATOR_BUSY:.0%} of its core (at",
        "a no-op it often does), so that server may do more, and the service's",
        "share is this at most; the ratio by processor time does not depend on the generator.",
    )
    return text + "\n" + table(head, rows, texts=3) + _aside(document) + _absent(document)


def _aside(document: Document) -> str:
    lines = [
        f"- `{name}`: {'; '.join([number(one['value']), *one['notes']])} (by processor time "
        f"{number(document['by_processor_time'].get(name))}). {one['text']}"
        for name, one in document["aside"].items()
    ]
    return "\nWithout a target:\n\n" + "\n".join(lines) + "\n" if lines else ""


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
        "Stages are by the clock: where others disturbed every round they hold others' time, and the rest is left out.",
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


def _generator(row: Mapping[str, Any]) -> str:
    if row["generator_cpu"] is None:
        return "–"
    return f"{row['generator_cpu']:.0%}{' †' if row['held_back'] else ''}"


def _throughput(document: Document) -> str:
    text = "\n## Throughput, closed loop\n\n" + prose(
        "How far ahead is told of the service's columns, of its rows where there is one row.",
        f"†: wrk used over {GENERATOR_BUSY:.0%} of its core and may have been the limit; the server may do more.",
    )
    for workload, entries in document["throughput"].items():
        kind = WORKLOADS[workload]
        rows = [
            [
                _server(row) + (" *" if row["noisy"] else ""),
                row["kind"],
                *(number(row[name]) for name in ("requests_per_second", "rows_per_second", "cpu_us")),
                "–" if row["busy"] is None else f"{row['busy']:.0%}",
                "–"
                if row["generator_cpu"] is None
                else f"{row['generator_cpu']:.0%}" + (" †" if row["held_back"] else ""),
                number(row["lead"]),
                number(row["p50_ms"]),
                number(row["p99_ms"]),
                str(row["errors"]),
            ]
            for row in entries
        ]
        head = [
            "server (form)",
            "kind",
            "req/s",
            "candidates/s",
            "µs a request",
            "core used",
            "wrk's core used",
            "service ahead",
        ]
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
            ]
            for row in entries
        ]
        head = ["server (form)", "p50 ms", "p99 ms", "max ms", "send lag p99 ms", "service ahead in p99"]
        head += ["requests"]
        rate = document["common_rates"].get(workload)
        text += f"\n### {WORKLOADS[workload].title}, {number(rate)} req/s\n\n" + table(head, rows)
    return text


def _unused(document: Document) -> str:
    if not document["unused"]:
        return ""
    rows = []
    for row in document["unused"]:
        loop = f"{row['mode']}, {row['load']:.0%} load" if row["load"] else row["mode"]
        reason = " ".join(row["reason"].split())[:200].replace("|", "/")
        rows.append([WORKLOADS[row["workload"]].title, f"`{row['entry']}`", loop, reason, str(row["times"])])
    text = "\n## Cells that were not used\n\n" + prose(
        "No figure above is made of these: requests failed, the measurement did, or the load generator was too slow."
    )
    return text + "\n" + table(["request", "server.form", "loop", "why (of the first)", "rounds"], rows, texts=4)


def _lengths(document: Document) -> list[str]:
    lengths = document["lengths"]
    if lengths is None:
        return []
    closed = f"{lengths['rounds']} rounds (at most {ISOLATED_ROUNDS} for servers in a block of their own)"
    alone = f"{lengths['load_rounds']} round(s) of {lengths['load_seconds']:g} s"
    common = f"{lengths['open_rounds']} round(s) of {SHORTEST_OPEN:g} to {lengths['open_seconds']:g} s"
    return [
        f"Closed loop: {closed} of {lengths['seconds']:g} s a cell, a server's first after 1 s that is not counted.",
        f"In one process: {lengths['floor_seconds']:g} s a case.",
        f"Open loop: the service alone {alone}; the common rate {common}, until about {FEWEST_ARRIVALS} arrivals.",
        f"Each open cell begins with {WARM_UP_SECONDS:g} s that are not counted.",
        f"Other servers take part at: {', '.join(WORKLOADS[name].title for name in lengths['peers_at'])}.",
        (
            f"Up to {lengths['retries']} time(s) more is a cell measured of which others used a core for over "
            f"{NOISE:.0%} of the time, or in which the open loop's generator was too slow; the best is kept. "
            f"All repeats together take {lengths['retry_seconds']:g} s at most, give or take one cell."
        ),
    ]


def _method(document: Document) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    points = [
        "One server process on one core, the load generator on the other; `/metrics` on, logging as shipped.",
        "Servers are started once a block and stopped with SIGSTOP while another is measured; the order rotates.",
        *_lengths(document),
        (
            f"Too slow: the 99th percentile of its lag was over {LARGEST_LAG_SHARE:.0%} of the smaller of the cell's "
            f"own p99 and {SERVICE_TIMES} service times (one over the server's closed-loop rate), or it was busy over "
            f"{LARGEST_BUSY_SHARE:.0%} of the time. Such a cell is not used."
        ),
        "Nor is one with a status of 400 or more, a timeout or a socket error.",
        (
            "Before a server is measured and after each cell its answers to the first and the last body must be 200 "
            "and hold the model's scores within 1e-5."
        ),
        f"Other servers run the same model in its fastest form of one input of ids: {document['plain_form']}.",
        f"Kernel {machine['kernel']}, Python {machine['python']}, {versions}.",
    ]
    text = "\n## Method\n\n" + "".join(f"- {point}\n" for point in points)
    for name, found in machine.get("peer_versions", {}).items():
        text += f"- Environment `{name}`: " + ", ".join(f"{one} {version}" for one, version in found.items()) + ".\n"
    for name, reason in document["failed"].items():
        text += f"- `{name}` could not take part: {' '.join(reason.split())[:200]}\n"
    return text
