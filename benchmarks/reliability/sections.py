"""What is promised, one section a promise, and by which figures it is held; in the order of the page.

A further promise is a section here and a command that calls `publish`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SECTIONS", "Figure", "Section"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the page.

    Attributes:
        key: In the JSON.
        what: What it counts.
        most: The target: at most this; None where the figure only tells the size of what was done.
        least: The target: at least this.
    """

    key: str
    what: str
    most: float | None = None
    least: float | None = None

    def target(self) -> str:
        """The target in words."""
        if self.most is not None:
            return f"{self.most:g}" if self.most == 0 else f"at most {self.most:g}"
        return "" if self.least is None else f"at least {self.least:g}"

    def met(self, value: float) -> str:
        """Whether a value meets it."""
        if self.most is None and self.least is None:
            return ""
        good = (self.most is None or value <= self.most) and (self.least is None or value >= self.least)
        return "yes" if good else "**no**"


@dataclass(frozen=True, slots=True)
class Section:
    """A promise.

    Attributes:
        title: Its name.
        command: What measures it.
        text: How, in a sentence or two.
        figures: What comes of it.
    """

    title: str
    command: str
    text: str
    figures: tuple[Figure, ...]


def _interval(key: str) -> tuple[Figure, Figure]:
    """The lines of a figure's interval."""
    return Figure(f"{key}_low", "its 95% interval, from"), Figure(f"{key}_high", "to")


_TELEMETRY: Final = (
    ("telemetry_requests_per_second{}", "requests/s of {} candidates without telemetry", None),
    ("telemetry_cost_ratio{}", "share of them that telemetry costs", 0.03),
    ("telemetry_cost_ratio{}_low", "its 95% interval, from", None),
    ("telemetry_cost_ratio{}_high", "to", None),
    ("telemetry_cpu_ratio{}", "the same of CPU", None),
    ("telemetry_alternating_cost_ratio{}", "the same within one process", 0.03),
    ("telemetry_alternating_cost_ratio{}_low", "its 95% interval, from", None),
    ("telemetry_alternating_cost_ratio{}_high", "to", None),
    ("telemetry_recording_cost_ratio{}", "with recording, between processes", None),
    ("telemetry_recording_cost_ratio{}_low", "its 95% interval, from", None),
    ("telemetry_recording_cost_ratio{}_high", "to", None),
    ("telemetry_recording_cpu_ratio{}", "the same of CPU", None),
)

SECTIONS: Final = (
    Section(
        "Reload",
        "python -m benchmarks.reliability reload",
        "Two versions take turns under a steady load of requests of 20 candidates. Every answer is compared with the "
        "scores of the version that it names. Spans of a swap, from the request for it until the processes before have "
        "gone, and spans without one take turns; the ratio is that of their p99s, its interval from resampled spans. "
        "Latency counts from when a request was due. In further spans a process that is none of the service's "
        "computes, scheduled as a worker that gets ready is, with what others leave: what the machine makes of that is "
        "in the ratio too, and no way of loading can take it out.",
        (
            Figure("reload_swaps", "swaps"),
            Figure("reload_workers", "workers"),
            Figure("reload_vocabulary_values", "values in the largest vocabulary"),
            Figure("reload_requests", "requests"),
            Figure("reload_requests_during_swaps", "of these due during a swap"),
            Figure("reload_failed_requests", "requests without scores", most=0),
            Figure("reload_mixed_answers", "answers that are not one version's", most=0),
            Figure("reload_seconds", "median seconds of a swap"),
            Figure("reload_steady_p99_ms", "p99 without a swap, ms"),
            Figure("reload_p99_ms", "p99 during swaps, ms"),
            Figure("reload_p99_ratio", "ratio of the two", most=1.2),
            *_interval("reload_p99_ratio"),
            Figure("reload_stranger_p99_ms", "p99 beside a process that computes, ms"),
            Figure("reload_stranger_p99_ratio", "its ratio to that without"),
            *_interval("reload_stranger_p99_ratio"),
            Figure("reload_over_stranger_p99_ratio", "p99 during swaps over that beside a process that computes"),
            *_interval("reload_over_stranger_p99_ratio"),
            Figure("reload_median_ratio", "ratio of the medians"),
            Figure(
                "reload_memory_growth_ratio", "memory (PSS, all processes) of the last tenth over the second", most=1.02
            ),
            Figure("reload_descriptor_growth", "more open files of the supervisor at the end", most=0),
        ),
    ),
    Section(
        "Overload",
        "python -m benchmarks.reliability.overload",
        "One worker on one core, the generator on another: 1000 candidates of 39 fields a request, each with a "
        "deadline of 250 ms, at multiples of the most that clients get which each wait for their answer. Goodput: "
        "candidates of answers with scores, as a share of that, measured before and after each run, for other work on "
        "the machine changes it. Latency counts from when a request was due.",
        (
            Figure("overload_seconds", "seconds of each run"),
            Figure("overload_peak_candidates", "the most, candidates/s"),
            Figure("overload_goodput_1x", "goodput at 1x"),
            Figure("overload_goodput_2x", "goodput at 2x", least=0.9),
            Figure("overload_goodput_5x", "goodput at 5x", least=0.75),
            Figure("overload_p99_ms_1x", "p99 of answers with scores at 1x, ms", most=300),
            Figure("overload_p99_ms_2x", "at 2x", most=300),
            Figure("overload_p99_ms_5x", "at 5x", most=300),
            Figure("overload_refused_1x", "requests refused at 1x"),
            Figure("overload_refused_2x", "at 2x"),
            Figure("overload_refused_5x", "at 5x"),
            Figure("overload_failed", "requests with no answer", most=0),
            Figure("overload_refused_after", "refused at half the most, from a second after 5x on", most=0),
        ),
    ),
    Section(
        "Shadow",
        "python -m benchmarks.reliability shadow",
        "Nothing on trial, a shadow that works, one that stands still (SIGSTOP) and one that computes without an end "
        "take turns under one steady load of requests of 20 candidates, service, shadow and clients on the same two "
        "cores. Those that hang do so for all of their turn. Ratios are of p99s, intervals from resampled turns. A "
        "latency counts from when a request was due.",
        (
            Figure("shadow_rounds", "turns of each"),
            Figure("shadow_workers", "workers"),
            Figure("shadow_requests", "requests"),
            Figure("shadow_failed_requests", "requests without scores", most=0),
            Figure("shadow_wrong_answers", "answers that are not the current version's", most=0),
            Figure("shadow_scored", "requests that the working shadow scored too"),
            Figure("shadow_none_p99_ms", "p99 without a shadow, ms"),
            Figure("shadow_working_p99_ms", "beside one that works, ms"),
            Figure("shadow_stopped_p99_ms", "beside one that stands still, ms"),
            Figure("shadow_spinning_p99_ms", "beside one that spins, ms"),
            Figure("shadow_p99_ms", "beside one that hangs, in either way, ms"),
            Figure("shadow_p99_ratio", "ratio of that to none", most=1.05),
            *_interval("shadow_p99_ratio"),
            Figure("shadow_stopped_p99_ratio", "standing still"),
            *_interval("shadow_stopped_p99_ratio"),
            Figure("shadow_spinning_p99_ratio", "spinning"),
            *_interval("shadow_spinning_p99_ratio"),
            Figure("shadow_working_p99_ratio", "working"),
            *_interval("shadow_working_p99_ratio"),
        ),
    ),
    Section(
        "Requests of one row",
        "python -m benchmarks.reliability backpressure",
        "One worker on one core, the generator on another, on 32 kept connections: requests of one row at multiples of "
        "the most that is answered when far more are offered. Nothing is refused; what a worker has not come to waits "
        "in its sockets, and clients wait for a free connection. Goodput is the share of that most; the p99 counts "
        "from when a request was sent.",
        (
            Figure("backpressure_seconds", "seconds of each run"),
            Figure("backpressure_connections", "connections"),
            Figure("backpressure_most_requests", "the most, requests/s"),
            Figure("backpressure_goodput_0.5x", "goodput at half of it"),
            Figure("backpressure_goodput_1x", "goodput at 1x"),
            Figure("backpressure_goodput_2x", "goodput at 2x", least=0.9),
            Figure("backpressure_goodput_3x", "goodput at 3x", least=0.9),
            Figure("backpressure_p99_ms_0.5x", "p99 at half of it, ms"),
            Figure("backpressure_p99_ms_1x", "at 1x"),
            Figure("backpressure_p99_ms_2x", "at 2x"),
            Figure("backpressure_p99_ms_3x", "at 3x"),
            Figure("backpressure_generator_busy_0.5x", "share of the time the generator was busy at half of it"),
            Figure("backpressure_generator_busy_1x", "at 1x"),
            Figure("backpressure_generator_busy_2x", "at 2x"),
            Figure("backpressure_generator_busy_3x", "at 3x"),
            Figure("backpressure_failed", "requests sent that got no scores", most=0),
        ),
    ),
    Section(
        "Rolling restart",
        "python -m benchmarks.reliability restart",
        "Two replicas behind a real balancer (HAProxy, without retries), restarted one after the other with SIGTERM "
        "under a steady load.",
        (
            Figure("rolling_restarts", "restarts of a replica"),
            Figure("rolling_restart_requests", "requests"),
            Figure("rolling_restart_failed_requests", "requests without scores", most=0),
            Figure("rolling_restart_wrong_answers", "wrong answers", most=0),
            Figure("rolling_restart_nginx_failed_requests", "requests without scores, behind nginx", most=0),
        ),
    ),
    Section(
        "Soak",
        "python -m benchmarks.reliability soak",
        "Everything at once on two workers: requests of 1 to 1000 candidates as rows, columns, gzip and MessagePack, "
        "over kept connections and over such as are opened ahead for one each, each answer compared with the scores "
        "of the version it names; some recorded and traced; spoilt requests, clients that stop halfway, probes; in the "
        "last three fifths also swaps and workers killed. A request is lost if it failed and was in flight at no kill. "
        "Memory (PSS of all processes) and open files are compared within the part without kills, which the same "
        "processes live through it, and within the part with them; the larger ratio counts.",
        (
            Figure("soak_seconds", "seconds"),
            Figure("soak_requests", "requests with answers to check"),
            Figure("soak_candidates_most", "most candidates in one"),
            Figure("soak_wrong_answers", "answers with other scores than expected", most=0),
            Figure("soak_lost_answers", "requests lost", most=0),
            Figure("soak_in_flight_at_a_kill", "requests that were in flight at a kill"),
            Figure("soak_kills", "workers killed"),
            Figure("soak_swaps", "swaps"),
            Figure("soak_swaps_undone", "swaps not done", most=0),
            Figure("soak_spoilt", "spoilt requests answered"),
            Figure("soak_5xx", "of these with a fault of the server, or lost", most=0),
            Figure("soak_slow_clients", "slow clients cut off"),
            Figure("soak_slow_clients_left", "slow clients not cut off", most=0),
            Figure("soak_probes", "probes"),
            Figure("soak_probes_failed", "of these without a good answer", most=0),
            Figure("soak_uncounted_answers", "answers that `/metrics` does not count: a killed worker's last"),
            Figure("soak_rss_growth_ratio", "memory at the end over that near the beginning", most=1.05),
            Figure("soak_rss_growth_ratio_calm", "the same in the part without kills"),
            Figure("soak_descriptor_growth", "more open files of the supervisor", most=0),
            Figure("soak_p99_ms", "p99 of all, ms"),
            Figure("soak_ended_badly", "exit status other than 0 at the end", most=0),
        ),
    ),
    Section(
        "Faults of the machine",
        "python -m benchmarks.reliability faults",
        "One at a time, under a steady load: the log on a full disk; a log nobody reads; a version added where there "
        "is no room for it; a version cut short, and a worker lost meanwhile; the whole store gone, and a worker lost "
        "meanwhile; a worker that stands still; a clock that jumps by a day forth and back (libfaketime), with a swap "
        "at each time; no descriptors left; the temporary directory gone. Each has to be served on through, or refused "
        "clearly.",
        (
            Figure("faults", "faults"),
            Figure("fault_requests", "requests"),
            Figure("fault_failed_requests", "requests without scores, but for those in flight at a kill", most=0),
            Figure("fault_wrong_answers", "wrong answers", most=0),
            Figure("faults_not_borne", "faults after which something was not as it had to be", most=0),
        ),
    ),
    Section(
        "Drift",
        "python -m benchmarks.reliability drift",
        "A real Prometheus with the shipped rules, whose durations are divided so that half an hour passes sooner. "
        "Each kind of traffic has a server of its own with the same model: rows drawn as training's were, and such "
        "rows with a field left out, all ads unknown, prices four times as high, the best candidates alone, or one "
        "candidate over and over.",
        (
            Figure("drift_seconds", "seconds"),
            Figure("drift_durations_divided_by", "durations of the rules divided by"),
            Figure("drift_kinds", "kinds of drift"),
            Figure("drift_requests", "requests"),
            Figure("drift_wrong_answers", "requests without the right scores", most=0),
            Figure("drift_alerts_expected", "alerts that had to fire"),
            Figure("drift_alerts_missed", "of these that did not", most=0),
            Figure("drift_null_alerts", "alerts of the model on traffic like training's", most=0),
        ),
    ),
    Section(
        "Delivery feedback",
        "python -m benchmarks.reliability feedback",
        "Two replicas of four workers that share a secret and nothing else. Rankings are asked of one, clicks, drawn "
        "by the scores, are told to the other, some twice, some with a forged token, some too late. What the counters "
        "of both say together is compared with the list of all that was shown.",
        (
            Figure("feedback_replicas", "replicas"),
            Figure("feedback_workers", "workers of each"),
            Figure("feedback_impressions", "impressions"),
            Figure("feedback_clicks", "clicks"),
            Figure("feedback_repeated", "clicks told twice"),
            Figure("feedback_forged", "forged tokens"),
            Figure("feedback_late", "clicks told too late"),
            Figure("feedback_miscounted", "of all these, counted otherwise than they were", most=0),
            Figure("feedback_negatives_too_early", "impressions counted before their window was over", most=0),
            Figure("feedback_log_loss_error", "log loss, absolute difference to that of the list", most=1e-6),
            Figure("feedback_auc_error", "AUC, the same", most=0.01),
            Figure("feedback_calibration_error", "predicted clicks a click, the same", most=1e-6),
        ),
    ),
    Section(
        "What telemetry costs",
        "python -m benchmarks.reliability telemetry",
        "Throughput of one worker on one core, wrk on another: with everything that is on by default (stage and "
        "score histograms, feature health, log lines, a scrape every turn) beside a service that counts and logs "
        "nothing, and with 1% of the requests recorded besides. The services take turns; ratios are of one round, "
        "intervals from resampled rounds. CPU is the service's own, a request. Where the memory of two processes comes "
        "to lie makes a difference of a few percent; so telemetry is also switched on and off every quarter of a "
        "second within one process, and moments compared with those before and after.",
        (
            Figure("telemetry_rounds", "rounds"),
            Figure("telemetry_round_seconds", "seconds of a turn"),
            *(
                Figure(key.format(end), what.format(candidates), most=most)
                for end, candidates in (("", 1), ("_100", 100))
                for key, what, most in _TELEMETRY
            ),
        ),
    ),
    Section(
        "Bundles that were damaged",
        "python -m benchmarks.reliability.fuzz bundles --figures benchmarks/reliability.json",
        "Every file of a signed bundle, by bytes with digests as they were written, and by bytes and values with "
        "digests made to fit.",
        (
            Figure("bundle_flips", "damages with digests as written"),
            Figure("bundle_flips_accepted", "of these served", most=0),
            Figure("bundle_damages_fitted", "damages with digests made to fit"),
            Figure("bundle_damages_served", "of these served, with scores as good as the golden rows can tell"),
            Figure("bundle_child_crashes", "crashes and hangs of the process that opens them", most=0),
            Figure("bundle_faults", "errors that are no refusal, and scores out of range", most=0),
        ),
    ),
    Section(
        "Requests that were spoilt",
        "python -m benchmarks.reliability.fuzz requests --figures benchmarks/reliability.json",
        "A grammar's requests on bodies and binary tensors against a real server.",
        (
            Figure("fuzz_inputs", "requests"),
            Figure("fuzz_5xx", "answered with a fault of the server", most=0),
            Figure("fuzz_crashes", "without an answer, or the server's end", most=0),
            Figure("fuzz_wrong_answers", "wrong answers", most=0),
            Figure("fuzz_memory_growth_ratio", "memory at the end over that after a fifth", most=1.05),
            Figure("fuzz_descriptor_growth", "more open files at the end", most=0),
        ),
    ),
    Section(
        "Answers held to the OpenAPI document",
        "python -m benchmarks.reliability.fuzz documented --figures benchmarks/reliability.json",
        "schemathesis, where it is installed: requests made from the document, good and bad, and sequences of them.",
        (
            Figure("documented_cases", "requests and sequences"),
            Figure("documented_failed", "campaigns in which an answer broke the document", most=0),
        ),
    ),
)
