"""The steps of advice, in the order in which one bears on the next: calls of the model, bodies, servers."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.advise import calls
from service.advise.compare import CONFIDENCE, MARGIN
from service.advise.crossover import measure_crossover
from service.advise.decisions import (
    Decision,
    cpu_gains,
    decide_coalescing,
    decide_inline_bytes,
    decide_model_threads,
    decide_precision,
    decide_workers,
    load_gains,
    slower_tails,
)
from service.advise.load import Load, compare_servers
from service.advise.quiet import QUIET_SHARE, share_of_cpus
from service.advise.requests import bodies
from service.advise.servers import running_servers
from service.advise.tables import call_table, crossover_table, load_table
from service.bundle import read_bundle
from service.features.files import digest_file
from service.scorer import Scorer
from service.workers.plan import footprint, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.advise.measured import LoadTimes
    from service.advise.tables import Table
    from service.bundle import Bundle
    from service.settings import Settings
    from service.workers.machine import Machine
    from service.workers.plan import Plan

__all__ = ["Advice", "Advisor"]

CONNECTIONS: Final = 32
# Of the time there is.
_SHARES: Final = {"precision": 0.15, "threads": 0.1, "crossover": 0.15, "coalescing": 0.4, "workers": 0.2}


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and what to do.

    Attributes:
        facts: On what machine, of what bundle, when.
        tables: What was measured.
        decisions: On every setting.
    """

    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    decisions: tuple[Decision, ...]


class Advisor:
    """Measures one bundle on this machine.

    Args:
        settings: Those in force, the bundle among them: what is compared with.
        machine: What this process may use.
        seconds: For measuring; starting servers comes on top.
        say: Told what is going on, a line each.
        share: What tells how much of some CPUs this process gets.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        seconds: float,
        say: Callable[[str], None],
        *,
        share: Callable[[float], float] = share_of_cpus,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._seconds = seconds
        self._say = say
        self._share = share
        self._shares: list[float] = []
        self._plan: Plan = make_plan(settings, machine)
        self._bundle: Bundle = read_bundle(settings.bundle)
        self._tables: list[Table] = []
        # What later steps serve with: the settings in force, and what earlier steps found better.
        self._chosen: dict[str, Any] = {"precision": settings.precision, "model_threads": self._plan.model_threads}

    def advise(self) -> Advice:
        """Measure everything, step by step.

        Raises:
            BundleError, ScorerError: The bundle cannot be served.
            AdviseError: A server did not start, or did not score.
        """
        decisions = []
        steps = (self._precision, self._threads, self._crossover, self._coalescing, self._workers)
        for number, (name, step) in enumerate(zip(_SHARES, steps, strict=True), 1):
            seconds = self._seconds * _SHARES[name]
            self._look_around()
            self._say(f"[{number}/{len(steps)}] {name} (about {seconds:.0f} s)")
            decision = step(seconds)
            self._look_around()
            decision = self._withheld(decision)
            decisions.append(decision)
            if decision.value is not None:
                self._chosen[decision.setting] = decision.value
                self._say(f"      {decision.setting} {decision.value}: {decision.why}")
        return Advice(self._facts(), tuple(self._tables), tuple(decisions))

    def _look_around(self) -> None:
        self._shares.append(self._share(self._plan.cpus))
        if self._shares[-1] < QUIET_SHARE:
            self._say(f"      the machine is busy: {self._shares[-1]:.0%} of its CPUs are to be had")

    def _withheld(self, decision: Decision) -> Decision:
        """No advice from times that something else on the machine had a part in."""
        got = min(self._shares[-2:])
        if decision.value is None or got >= QUIET_SHARE:
            return decision
        why = f"withheld, as the machine was busy ({got:.0%} of its CPUs to be had): {decision.value}, {decision.why}"
        return replace(decision, value=None, why=why)

    def _facts(self) -> tuple[str, ...]:
        manifest = self._bundle.manifest
        rule = f"a gain is a median of rounds (its {CONFIDENCE:.0%} interval), and counts if all above {MARGIN:.0%}"
        digest = digest_file(self._bundle.path / "manifest.json").sha256
        return (
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_processor()}, Python {platform.python_version()}",
            *self._plan.why,
            f"of the CPUs, {min(self._shares):.0%} to {max(self._shares):.0%} were to be had; {rule}",
            f"bundle {manifest.model_id} of {manifest.created}, SHA-256 of its manifest {digest}",
        )

    def _precision(self, seconds: float) -> Decision:
        present = self._settings.precision
        self._bundle.variant(present)  # or it cannot be served as set
        variants = self._bundle.variants
        for precision in variants:
            Scorer(self._bundle, precision=precision).self_test()
        times = calls.compare_precisions(self._bundle, self._settings.max_candidates, seconds)
        ratios: dict[str, float] = {
            name: 1.0 if v.facts is None else v.facts.bytes_ratio for name, v in variants.items()
        }
        notes = tuple(
            f"{name}: AUC {v.facts.auc_change:+.6f}, log loss {v.facts.log_loss_change:+.6f}, "
            f"{v.facts.bytes_ratio:.0%} of the bytes (from export)"
            for name, v in variants.items()
            if v.facts is not None
        )
        self._tables.append(call_table("Precision of the tables", "precision", times, present, notes))
        return decide_precision(times, present, ratios)

    def _threads(self, seconds: float) -> Decision:
        present, cpus = self._plan.model_threads, self._plan.cpus
        counts = sorted({1, present, *(2**power for power in range(1, 4) if 2**power <= cpus)})
        if len(counts) == 1:
            return decide_model_threads(None, present, cpus=cpus, workers=self._plan.workers)
        times = calls.compare_threads(
            self._bundle, self._chosen["precision"], counts, self._settings.max_candidates, seconds
        )
        self._tables.append(call_table("Threads of a call", "threads", times, str(present)))
        return decide_model_threads(times, present, cpus=cpus, workers=self._plan.workers)

    def _crossover(self, seconds: float) -> Decision:
        scorer = Scorer(self._bundle, threads=self._chosen["model_threads"], precision=self._chosen["precision"])
        limits = self._settings
        points = measure_crossover(
            scorer, max_candidates=limits.max_candidates, max_body_bytes=limits.max_body_bytes, seconds=seconds
        )
        self._tables.append(crossover_table(points))
        return decide_inline_bytes(points, limits.inline_body_bytes, limits.max_body_bytes)

    def _coalescing(self, seconds: float) -> Decision:
        present = "on" if self._settings.coalesce else "off"
        ways = {"off": {"coalesce": False, "workers": 1}, "on": {"coalesce": True, "workers": 1}}
        loads = self._loads((1, CONNECTIONS), (10, CONNECTIONS), (100, CONNECTIONS), (1, 1))
        times = self._under_load(ways, loads, seconds)
        self._tables.append(
            load_table(
                "Coalescing, in one worker (gain: in the server's processor time a request)",
                times,
                present,
                label="coalesce",
                gains=cpu_gains(times, present),
                notes=(*_tails(times, present), *self._shared()),
            )
        )
        return decide_coalescing(times, present)

    def _workers(self, seconds: float) -> Decision:
        present, cpus = self._plan.workers, self._plan.cpus
        most = max(1, int(cpus))
        counts = sorted({1, present, most, max(1, most // 2)})
        if len(counts) == 1:
            return decide_workers(None, present, cpus=cpus)
        need, memory = footprint(self._settings.bundle, self._chosen["precision"]), self._machine.memory
        if memory is not None and need.shared + sum(counts) * need.private > memory.value:
            why = f"not measured: servers of {counts} workers beside each other do not fit into memory"
            return Decision("workers", present, None, why)
        times = self._under_load(
            {str(count): {"workers": count} for count in counts},
            self._loads((100, CONNECTIONS)),
            seconds,
        )
        self._tables.append(
            load_table(
                "Workers (gain: in requests a second)",
                times,
                str(present),
                label="workers",
                gains=load_gains(times, str(present)),
                notes=(*_tails(times, str(present)), *self._shared()),
            )
        )
        return decide_workers(times, present, cpus=cpus)

    def _loads(self, *cases: tuple[int, int]) -> dict[str, Load]:
        """Candidates and connections as a load each, named by what is sent: no more than a request may have."""
        most, golden = self._settings.max_candidates, self._bundle.golden
        sent = [(min(candidates, most), connections) for candidates, connections in cases]
        return {_case(*one): Load(bodies(golden, one[0]), one[1]) for one in dict.fromkeys(sent)}

    def _under_load(
        self, ways: Mapping[str, Mapping[str, object]], loads: Mapping[str, Load], seconds: float
    ) -> LoadTimes:
        served = {way: {**self._chosen, **settings} for way, settings in ways.items()}
        with running_servers(self._settings.bundle, served) as servers:
            return compare_servers(servers, loads, seconds)

    def _shared(self) -> tuple[str, ...]:
        return (
            f"The generator shares the {self._plan.cpus:g} CPUs with the servers, and took its column's share of one.",
            "Where that is near 100%, or no CPU was left for it, servers show less than they can do. Latencies are of",
            "a closed loop at full load: what clients see at a rate of their own is for `python -m service bench`.",
        )


def _tails(times: LoadTimes, present: str) -> tuple[str, ...]:
    """A line for each 99th percentile that gets worse."""
    tails = slower_tails(times, present)
    return tuple(f"p99 worse: {way}, {case}: {how}" for way in tails for case, how in tails[way].items())


def _case(candidates: int, connections: int) -> str:
    return f"{candidates} candidate{'s' * (candidates > 1)} on {connections} connection{'s' * (connections > 1)}"


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
