"""The measurement from first to last: build the model, run the blocks, gather the records."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.serving import contestants as who
from benchmarks.serving.bare import build, measure_floor
from benchmarks.serving.figures import Record, typical
from benchmarks.serving.job import Job
from benchmarks.serving.profile import Profile, profile
from benchmarks.serving.race import Block, Bodies, Entry, Race, rotated
from benchmarks.serving.ratios import COMMON_RATE, LOAD, LOAD_WORKLOAD, LOADS, OURS
from benchmarks.serving.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAIN: Final = "main"
ISOLATED_ROUNDS: Final = 3
FEWEST_ARRIVALS: Final = 1000
SHORTEST_OPEN: Final = 2.0
_PROFILED: Final = (("one_row", "rows"), ("rank100", "columns"))


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long everything takes.

    Attributes:
        rounds: Of the closed loop.
        seconds: A cell of it.
        floor_seconds: A case of the floor.
        load_rounds: Rounds at each load of the service alone.
        load_seconds: A cell of them.
        open_rounds: Rounds at the common rate.
        open_seconds: A cell of them at most; it ends sooner once there were a thousand arrivals.
        retries: How often a cell is measured again that others disturbed or that the generator held back.
        retry_seconds: What all such repeats may take together.
        profile_seconds: A profile.
        peers_at: Workloads at which other servers take part.
    """

    rounds: int
    seconds: float
    floor_seconds: float
    load_rounds: int
    load_seconds: float
    open_rounds: int
    open_seconds: float
    retries: int
    retry_seconds: float
    profile_seconds: int
    peers_at: tuple[str, ...]


QUICK: Final = Lengths(3, 1, 0.25, 2, 6, 2, 3, 2, 120, 3, ("one_row", "rank100"))
FULL: Final = Lengths(4, 2, 1, 3, 15, 2, 8, 2, 900, 8, tuple(name for name, kind in WORKLOADS.items() if kind.peers))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        lengths: How long.
        peers: Folders of peer servers and of their environments.
        only: Names of the servers that take part; None: all.
        workloads: Names of the workloads; None: all.
    """

    lengths: Lengths
    peers: tuple[Path, Path] | None = None
    only: frozenset[str] | None = None
    workloads: tuple[str, ...] | None = None


@dataclass
class Result:
    """What came of it.

    Attributes:
        records: Every cell.
        kinds: Server to its kind.
        tutorial: The tutorial's entry.
        listwise: The ranking tutorial's entry.
        failed: Servers that could not take part, and why.
        rates: Common rate of the open loop by workload, requests a second.
        plain_form: Form of the model that other servers run.
        answer_bytes: Bytes the no-ops answer, by workload.
        profiles: Where the service's time goes.
        seconds: How long it took.
        lengths: Of its parts.
    """

    records: list[Record]
    kinds: dict[str, str]
    tutorial: str
    listwise: str
    failed: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    plain_form: str = ""
    answer_bytes: dict[str, int] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    seconds: float = 0.0
    lengths: Lengths | None = None


def measure_all(plan: Plan, scratch: Path, say: Callable[[str], None]) -> Result:
    """Measure everything.

    Args:
        plan: What.
        scratch: An empty folder, or one of an earlier measurement of the same kind.
        say: Shows progress.
    """
    began = time.monotonic()
    say("building the model")
    model, plain_form = build(scratch)
    everyone = [one for one in _everyone(plan, scratch, model) if plan.only is None or one.name in plan.only]
    ours = everyone[0]
    (scratch / "requests").mkdir(exist_ok=True)
    race = Race(
        scratch, Bodies(scratch / "requests", Job(model)), plan.lengths.retries, say, plan.lengths.retry_seconds
    )
    result = Result(race.records, {one.name: one.kind for one in everyone}, *_tutorials(plan), plain_form=plain_form)
    result.lengths = plan.lengths
    alone = [one for one in everyone if one.isolated]
    for contestant in alone:
        with race.block(contestant.name, [ours, contestant]) as block:
            _closed(block, plan, only_baseline=True)
    with race.block(MAIN, [one for one in everyone if not one.isolated]) as block:
        _start_noops(block, result)
        _closed(block, plan)
        result.rates = common_rates(result)
        _loads(block, plan)
        _at_common_rate(block, plan, result.rates)
        _profiles(block, plan, result)
    for contestant in alone:
        if contestant.name not in race.failed:
            with race.block(contestant.name, [ours, contestant]) as block:
                _at_common_rate(block, plan, result.rates)
    result.failed = race.failed
    result.seconds = time.monotonic() - began
    return result


def _everyone(plan: Plan, scratch: Path, model: Path) -> list[who.Contestant]:
    others = who.tutorials(model) if plan.peers is None else who.peers(*plan.peers, model)
    return [*who.services(scratch / "bundle"), *others]


def check_names(plan: Plan) -> str | None:
    """What is wrong with the names of a plan; None if nothing."""
    nowhere = Path("unused")
    servers = [one.name for one in _everyone(plan, nowhere, nowhere)]
    for option, asked, known in (("--only", plan.only, servers), ("--workloads", plan.workloads, list(WORKLOADS))):
        unknown = sorted(set(asked or ()) - set(known))
        if unknown:
            return f"{option}: expected some of {', '.join(known)}, got {', '.join(unknown)}"
    if plan.only is not None and who.SERVICE not in plan.only:
        return f"--only: expected {who.SERVICE} among the names, for all else is compared with it"
    return None


def _tutorials(plan: Plan) -> tuple[str, str]:
    if plan.peers is None:
        return "tutorial.rows", "listwise.listwise"
    return "naive_fastapi.rows", "listwise_fastapi.listwise"


def _start_noops(block: Block, result: Result) -> None:
    for workload, form in _PROFILED:
        size = block.answer_bytes(who.SERVICE, workload, form)
        contestant = who.noop(workload, form, size)
        result.answer_bytes[workload] = size
        result.kinds[contestant.name] = contestant.kind
        block.add(contestant)


def _workloads(plan: Plan) -> list[str]:
    return [name for name in WORKLOADS if plan.workloads is None or name in plan.workloads]


def _takers(block: Block, plan: Plan, workload: str, *, only_baseline: bool) -> list[Entry]:
    """Entries that take part: with `only_baseline`, of the service only the form that stands against peers."""
    found = []
    for entry in block.takers(workload):
        is_ours = entry.contestant.kind == "service"
        if is_ours and only_baseline and entry.label != who.against_peers(workload):
            continue
        if is_ours or workload in plan.lengths.peers_at or entry.contestant.name in _tutorial_names(plan):
            found.append(entry)
    return found


def _tutorial_names(plan: Plan) -> set[str]:
    return {entry.partition(".")[0] for entry in _tutorials(plan)}


def _closed(block: Block, plan: Plan, *, only_baseline: bool = False) -> None:
    lengths = plan.lengths
    for turn in range(min(lengths.rounds, ISOLATED_ROUNDS) if only_baseline else lengths.rounds):
        block.race.say(f"{block.name}: round {turn + 1} of {lengths.rounds}")
        for workload in _workloads(plan):
            entries = _takers(block, plan, workload, only_baseline=only_baseline)
            if only_baseline and workload not in lengths.peers_at:
                continue
            for entry in rotated(entries, turn):
                block.visit(entry, turn, lengths.seconds)
        if not only_baseline:
            measure_floor(block.race, MAIN, turn, _workloads(plan), plan.lengths.floor_seconds)


def common_rates(result: Result) -> dict[str, float]:
    """Half of what the slowest server that scores takes, by workload."""
    rates = {}
    for workload in WORKLOADS:
        labels = {one["entry"] for one in result.records if one["workload"] == workload and one["mode"] == "closed"}
        servers = [label for label in labels if result.kinds.get(label.partition(".")[0], "floor") != "floor"]
        found = [typical(result.records, (workload, label), "requests_per_second") for label in servers]
        known = [rate for rate in found if rate]
        if known and any(result.kinds[label.partition(".")[0]] != "service" for label in servers):
            rates[workload] = round(min(known) / 2, 2)
    return rates


def _loads(block: Block, plan: Plan) -> None:
    """The service alone, 1000 candidates, at shares of what the closed loop reached."""
    if LOAD_WORKLOAD not in _workloads(plan):
        return
    entry = next((one for one in block.takers(LOAD_WORKLOAD) if one.label == OURS), None)
    capacity = typical(block.race.records, (LOAD_WORKLOAD, OURS), "requests_per_second")
    if entry is None or not capacity:
        return
    for turn in range(plan.lengths.load_rounds):
        for load in LOADS:
            block.visit(entry, turn, plan.lengths.load_seconds, round(load * capacity, 2), purpose=LOAD, load=load)


def _at_common_rate(block: Block, plan: Plan, rates: Mapping[str, float]) -> None:
    for turn in range(plan.lengths.open_rounds):
        for workload, rate in rates.items():
            if workload not in plan.lengths.peers_at:
                continue
            entries = [
                entry
                for entry in _takers(block, plan, workload, only_baseline=True)
                if entry.contestant.kind != "floor"
            ]
            seconds = max(SHORTEST_OPEN, min(plan.lengths.open_seconds, FEWEST_ARRIVALS / rate))
            for entry in rotated(entries, turn):
                if typical(block.race.records, (workload, entry.label), "requests_per_second") is None:
                    # The rate was chosen without it and may be more than it takes.
                    block.leave_out(entry, turn, "no closed loop of it can be used", purpose=COMMON_RATE)
                else:
                    block.visit(entry, turn, seconds, rate, purpose=COMMON_RATE)


def _profiles(block: Block, plan: Plan, result: Result) -> None:
    venvs = None if plan.peers is None else plan.peers[1]
    for workload, form in _PROFILED:
        if workload not in _workloads(plan):
            continue
        found = profile(
            block, Entry(who.service(block.race.scratch), workload, form), plan.lengths.profile_seconds, venvs
        )
        if found:
            result.profiles[f"{workload} {form}"] = found
