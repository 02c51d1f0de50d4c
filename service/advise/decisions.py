"""From measurements to settings: pure functions, so that they can be tried on measurements of any machine.

Each gives a value for a setting, or none, and why.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from service.advise.compare import MARGIN, Gain, Verdict, gain_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.advise.measured import CallTimes, CrossoverPoint, LoadTimes

__all__ = [
    "Decision",
    "cpu_gains",
    "decide_coalescing",
    "decide_inline_bytes",
    "decide_model_threads",
    "decide_precision",
    "decide_workers",
    "felt_gains",
    "load_gains",
    "slower_tails",
    "tail_gains",
]

# How many times as long a 99th percentile may look before doubt speaks against a change.
TAIL_DOUBT: Final = 1.25


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one setting.

    Attributes:
        setting: Its name in `Settings`.
        present: Its value now.
        value: A better one; None for no change.
        why: One sentence.
    """

    setting: str
    present: object
    value: object | None
    why: str


def felt_gains(times: CallTimes, present: str) -> dict[str, dict[str, Gain]]:
    """Gain of every way over the present one in the whole of a request: a call twice as fast is half of little.

    Returns:
        Way to case to gain.
    """
    found: dict[str, dict[str, Gain]] = {}
    for way in times.ways:
        if way != present:
            found[way] = {}
            for case in times.cases:
                rest = times.rest[case]
                before = [rest + seconds for seconds in times.seconds[case, present]]
                after = [rest + seconds for seconds in times.seconds[case, way]]
                found[way][case] = gain_of(before, after)
    return found


def _best(gains: Mapping[str, Mapping[str, Gain]]) -> tuple[str | None, str]:
    """The way that gains somewhere and costs nowhere, by its mean gain; and what to say where there is none."""
    good = [
        way
        for way, cases in gains.items()
        if any(gain.verdict is Verdict.GAINS for gain in cases.values()) and not any(g.costs for g in cases.values())
    ]
    if good:
        return max(good, key=lambda way: math.prod(gain.median for gain in gains[way].values())), ""
    mixed = [way for way, cases in gains.items() if any(gain.verdict is Verdict.GAINS for gain in cases.values())]
    if mixed:
        return None, f"a gain in some requests, and in others it looks dearer ({', '.join(mixed)})"
    why = f"nothing gains more than {MARGIN:.0%} beyond noise"
    losing = [way for way, cases in gains.items() if any(gain.verdict is Verdict.LOSES for gain in cases.values())]
    return None, f"{why}, and there is a loss with {', '.join(losing)}" if losing else why


def decide_precision(times: CallTimes, present: str, bytes_ratio: Mapping[str, float]) -> Decision:
    """Which precision of the tables to serve.

    Args:
        times: Ways are precisions.
        present: The precision now.
        bytes_ratio: Bytes of each, over those of float32.
    """
    if len(times.ways) == 1:
        return Decision("precision", present, None, "the bundle holds no other precision")
    gains = felt_gains(times, present)
    best, why = _best(gains)
    if best is None:
        smaller = [way for way in times.ways if bytes_ratio.get(way, 1.0) < bytes_ratio.get(present, 1.0)]
        if smaller:
            sizes = ", ".join(f"{way} takes {bytes_ratio[way]:.0%} of float32's memory" for way in smaller)
            why += f"; where memory is short, {sizes}"
        return Decision("precision", present, None, why)
    case, gain = max(gains[best].items(), key=lambda item: item[1].median)
    return Decision("precision", present, best, f"a request of {case} is {gain} as fast; none costs more")


def decide_model_threads(times: CallTimes | None, present: int, *, cpus: float, workers: int) -> Decision:
    """How many threads a call of the model takes.

    Args:
        times: Ways are numbers of threads; None where there is one CPU.
        present: The number now.
        cpus: CPUs there are.
        workers: Workers that will serve.
    """
    setting = "model_threads"
    if times is None:
        return Decision(setting, present, None, f"not measured: {cpus:g} CPUs leave nothing for a second thread")
    gains = felt_gains(times, str(present))
    best, why = _best(gains)
    if best is None:
        return Decision(setting, present, None, why)
    case, gain = max(gains[best].items(), key=lambda item: item[1].median)
    fact = f"{best} threads make a request of {case} {gain} as fast"
    if workers * int(best) > cpus:
        return Decision(
            setting, present, None, f"{fact}, but with {workers} workers on {cpus:g} CPUs they take another worker's"
        )
    return Decision(setting, present, int(best), fact)


def load_gains(times: LoadTimes, present: str) -> dict[str, dict[str, Gain]]:
    """Gain in throughput of every way over the present one, by case."""
    return {
        way: {case: gain_of(times.rates[case, present], times.rates[case, way], of_rates=True) for case in times.cases}
        for way in times.ways
        if way != present
    }


def cpu_gains(times: LoadTimes, present: str) -> dict[str, dict[str, Gain]]:
    """Gain in the server's processor time a request; in throughput where that is unknown.

    It is the steadier of the two: what else runs on the machine, the generator first of all, hardly enters into it. Of
    ways that keep the same number of CPUs busy, the cheaper one also does more.
    """
    if not times.cpu:
        return load_gains(times, present)
    return {
        way: {case: gain_of(times.cpu[case, present], times.cpu[case, way]) for case in times.cases}
        for way in times.ways
        if way != present
    }


def tail_gains(times: LoadTimes, present: str) -> dict[str, dict[str, Gain]]:
    """Gain in the 99th percentile of latency of every way over the present one, by case."""
    return {
        way: {case: gain_of(times.p99[case, present], times.p99[case, way]) for case in times.cases}
        for way in times.ways
        if way != present
    }


def slower_tails(times: LoadTimes, present: str) -> dict[str, dict[str, str]]:
    """Where the 99th percentile of a way gets worse than the present one's: way to case to how, in words.

    Worse is a loss beyond noise, and what looks worse by a `TAIL_DOUBT`, be it noise or not: a percentile that few
    requests make is too unsteady for rounds to agree on, and too dear to clients to be risked for throughput.
    """
    found: dict[str, dict[str, str]] = {}
    for way, cases in tail_gains(times, present).items():
        for case, gain in cases.items():
            if gain.verdict is Verdict.LOSES or gain.median < 1 / TAIL_DOUBT:
                before, after = (statistics.median(times.p99[case, one]) * 1e3 for one in (present, way))
                found.setdefault(way, {})[case] = f"{before:.2f} to {after:.2f} ms, {gain} as good"
    return found


def decide_workers(times: LoadTimes | None, present: int, *, cpus: float) -> Decision:
    """How many workers serve.

    Args:
        times: Ways are numbers of workers; None where there is one CPU.
        present: The number now.
        cpus: CPUs there are.
    """
    setting = "workers"
    if times is None:
        return Decision(setting, present, None, f"not measured: {cpus:g} CPUs leave nothing for a second worker")
    best, why = _best(load_gains(times, str(present)))
    if best is None:
        return Decision(setting, present, None, why)
    gain = load_gains(times, str(present))[best]
    tails = slower_tails(times, str(present)).get(best, {})
    if tails:
        found = "; ".join(f"{case}: {how}" for case, how in tails.items())
        return Decision(setting, present, None, f"{best}: more requests a second, but its p99 gets worse ({found})")
    case, most = max(gain.items(), key=lambda item: item[1].median)
    return Decision(setting, present, int(best), f"{most} the rate with {case}")


def decide_coalescing(times: LoadTimes, present: str) -> Decision:
    """Whether queued requests should share calls: where that is cheaper for some, and dearer or later for none.

    Args:
        times: Ways are `off` and `on`.
        present: The one now.
    """
    (other,) = (way for way in times.ways if way != present)
    setting, on = "coalesce", present == "on"
    gains = cpu_gains(times, present)
    unit = "requests for the same processor time" if times.cpu else "requests a second"
    best, why = _best(gains)
    if best is None:
        case, worst = min(gains[other].items(), key=lambda item: item[1].median)
        return Decision(setting, on, None, f"{other}: {why}; at worst {worst} the {unit} ({case})")
    slower = [case for case, gain in load_gains(times, present)[best].items() if gain.verdict is Verdict.LOSES]
    if slower:
        return Decision(setting, on, None, f"{best}: cheaper, but fewer requests a second ({', '.join(slower)})")
    tails = slower_tails(times, present).get(best, {})
    if tails:
        found = "; ".join(f"{case}: {how}" for case, how in tails.items())
        return Decision(setting, on, None, f"{best}: cheaper, but its p99 gets worse ({found})")
    case, gain = max(gains[best].items(), key=lambda item: item[1].median)
    return Decision(
        setting, on, best == "on", f"{best}: {gain} the {unit} ({case}); none costs more, and no p99 gets worse"
    )


def decide_inline_bytes(points: Sequence[CrossoverPoint], present: int, most: int) -> Decision:
    """Up to which length bodies are scored on the event loop; forms differ in what a byte costs.

    A change is advised only where every form asks for one, and in the same direction; then it is the smaller one.

    Args:
        points: Of any forms, by rising length within a form.
        present: The setting now, in bytes.
        most: Largest body that the service takes.
    """
    forms = list(dict.fromkeys(point.form for point in points))
    each = {form: _decide_form([p for p in points if p.form == form], present, most) for form in forms}
    why = "; ".join(f"{form}: {decision.why}" for form, decision in each.items())
    values = [decision.value for decision in each.values() if isinstance(decision.value, int)]
    agreed = len(values) == len(forms) and (min(values) > present or max(values) < present)
    return Decision("inline_body_bytes", present, min(values) if agreed else None, why)


def _decide_form(points: Sequence[CrossoverPoint], present: int, most: int) -> Decision:
    """The same for one form.

    A body handed to a thread gives its neighbours the time in which it would have blocked the loop, less what it still
    blocks (Python's lock), and costs its own client the hand-over. It is worth it where the first exceeds the second.
    From where it is set, the limit moves over lengths that say so beyond noise, and stops at the first that does not.

    Args:
        points: By rising length.
        present: The setting now, in bytes.
        most: Largest body that the service takes.
    """
    setting = "inline_body_bytes"
    below = [point for point in points if point.body_bytes <= present]
    above = [point for point in points if point.body_bytes > present]
    losing = list(takewhile(lambda point: point.high_benefit < 0, above))
    gaining = list(takewhile(lambda point: point.low_benefit > 0, reversed(below)))
    if losing and gaining:
        return Decision(
            setting, present, None, "a thread gains below this length and loses above it, which is no limit"
        )
    if losing:
        value = losing[-1].body_bytes
        return Decision(setting, present, min(value, most), f"a thread loses up to {value:,} bytes")
    if gaining:
        first = gaining[-1].body_bytes
        shorter = max((point.body_bytes for point in below if point.body_bytes < first), default=1)
        return Decision(setting, present, math.isqrt(shorter * first), f"a thread gains from {first:,} bytes on")
    nearest = [*below[-1:], *above[:1]]
    found = " and ".join(f"{point.body_bytes:,} bytes ({point.says})" for point in nearest)
    longer = "" if above else ", and none longer was measured"
    return Decision(setting, present, None, f"the nearest lengths do not say to move it: {found}{longer}")
