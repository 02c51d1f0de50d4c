"""Every metric the service shows, as documented in the README."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "MetricRow", "metrics_markdown"]


class MetricRow(NamedTuple):
    """One documented metric."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


# What a scrape holds beside the client's own process_*; a test compares the two.
CATALOGUE: Final[dict[str, MetricRow]] = {
    name: MetricRow(name, kind, tuple(labels.split()), text)
    for name, kind, labels, text in (
        ("reaction_ready", "gauge", "", "1 when a worker scores requests, else 0."),
        ("reaction_workers", "gauge", "state", "Processes that serve: planned, and of these ready to score."),
        ("reaction_worker_restarts_total", "counter", "", "Workers that ended unasked and were replaced."),
        (
            "reaction_reloads_total",
            "counter",
            "outcome reason",
            "Changes: loaded; refused, undone or fell_back, and why; trial_began, trial_refused, trial_ended.",
        ),
        (
            "reaction_deployed_refused",
            "gauge",
            "",
            "1 while the deployed version was refused and another one is served, else 0.",
        ),
        (
            "reaction_requests_total",
            "counter",
            "route status",
            "Requests answered; 499 hung up before they had an answer.",
        ),
        (
            "reaction_requests_shed_total",
            "counter",
            "reason",
            "Long requests not scored: hopeless (refused unread), queue_full, expired in the queue, gone from it.",
        ),
        (
            "reaction_connections_cut_total",
            "counter",
            "reason",
            "Ended: malformed (400), head_late, body_late (408), head_too_large (431), full (503), answer_late, idle.",
        ),
        (
            "reaction_recorded_requests_total",
            "counter",
            "outcome",
            "Requests drawn to be recorded: written; lost because writing was lagging, or failed.",
        ),
        (
            "reaction_traced_requests_total",
            "counter",
            "outcome",
            "Requests to be traced: exported; lost because the collector was lagging, or did not take them.",
        ),
        (
            "reaction_stage_seconds",
            "histogram",
            "model stage outcome",
            "Time scoring requests spend in each stage; total counts from the last byte of the body.",
        ),
        ("reaction_candidates_total", "counter", "model", "Candidates scored."),
        ("reaction_request_candidates", "histogram", "model", "Candidates a scored request."),
        ("reaction_score", "histogram", "model", "Scores given: predicted click probabilities."),
        (
            "reaction_field_values_total",
            "counter",
            "model field",
            "Values of a field that were looked at, missing ones included; of many rows at once a sample.",
        ),
        ("reaction_field_missing_total", "counter", "model field", "Of these, those that were missing."),
        (
            "reaction_field_out_of_vocabulary_total",
            "counter",
            "model field",
            "Of these, those that held something training had not seen often enough.",
        ),
        ("reaction_field_reference_missing_ratio", "gauge", "model field", "Share of missing values in training."),
        (
            "reaction_field_reference_out_of_vocabulary_ratio",
            "gauge",
            "model field",
            "Share of out-of-vocabulary values in training.",
        ),
        (
            "reaction_field_bin_values_total",
            "counter",
            "model field bin",
            "The same by bin: missing, unknown, the most frequent of training in groups, the rest.",
        ),
        ("reaction_field_reference_bin_ratio", "gauge", "model field bin", "Share of these in training."),
        (
            "reaction_score_repeats_total",
            "counter",
            "model",
            "Candidates with the same score as the one counted before them.",
        ),
        ("reaction_reference_score_ratio", "gauge", "model le", "Share of training's scores at or under each bound."),
        ("reaction_reference_base_rate", "gauge", "model", "Share of clicks in training."),
        ("reaction_feedback_tokens_total", "counter", "model", "Feedback tokens issued."),
        (
            "reaction_feedback_events_total",
            "counter",
            "outcome",
            "Events of feedback, as they were counted or refused.",
        ),
        (
            "reaction_feedback_unchecked_total",
            "counter",
            "",
            "Events counted with no room left to tell whether they were counted before.",
        ),
        (
            "reaction_feedback_scored_total",
            "counter",
            "model event bucket",
            "Impressions, withdrawn ones and clicks whose window is over, by the upper bound of their score's bucket.",
        ),
        (
            "reaction_feedback_scored_lower_total",
            "counter",
            "model event bucket",
            "Of these, those in lower buckets than this one.",
        ),
        ("reaction_feedback_predicted_clicks_total", "counter", "model event bucket", "Sum of these scores."),
        (
            "reaction_feedback_log_loss_total",
            "counter",
            "model event label",
            "Their log loss in nats, had all been clicked (click) or none (no_click).",
        ),
        (
            "reaction_feedback_log_loss",
            "gauge",
            "model",
            "Log loss of an impression, since start, of this replica alone.",
        ),
        ("reaction_feedback_auc", "gauge", "model", "AUC from buckets of scores, since start, of this replica alone."),
        (
            "reaction_feedback_calibration_ratio",
            "gauge",
            "model",
            "Predicted clicks a click, since start, of this replica alone.",
        ),
        (
            "reaction_trial_refused",
            "gauge",
            "",
            "1 while the store asks for a trial that was refused or taken out, else 0.",
        ),
        ("reaction_canary_share", "gauge", "", "Of the routing keys that a canary scores now."),
        (
            "reaction_canary_requests_total",
            "counter",
            "model arm",
            "Requests while this canary had a share: canary scored them, or primary; of these no_key, and fell_back.",
        ),
        ("reaction_shadow_ready", "gauge", "", "1 while a shadow takes what the workers answered, else 0."),
        (
            "reaction_shadow_requests_total",
            "counter",
            "model outcome",
            "Answered requests and the shadow: ok; refused, failed by it; dropped for want of room; too_long for that.",
        ),
        (
            "reaction_shadow_ends_total",
            "counter",
            "model reason",
            "Its processes that hung or ended unasked.",
        ),
        ("reaction_shadow_seconds", "histogram", "model", "Time it takes for a request, at the lowest priority."),
        ("reaction_shadow_difference", "histogram", "model", "Its scores: absolute difference to those answered."),
        ("reaction_shadow_candidates_total", "counter", "model", "Candidates compared."),
        ("reaction_shadow_differing_total", "counter", "model", "Of these, further apart than the tolerance."),
        ("reaction_shadow_top_changed_total", "counter", "model", "Compared requests with another best candidate."),
        ("reaction_shadow_score_total", "counter", "model of", "Sum of scores compared: the shadow's, the primary's."),
        ("reaction_model_info", "gauge", "model created features", "1 for each model that is served."),
        ("reaction_model_load_seconds", "gauge", "model", "Time to read, verify and self-test the bundle."),
    )
}


def metrics_markdown() -> str:
    """The catalogue as Markdown."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{r.name}` | {r.type} | {', '.join(r.labels)} | {r.help} |" for r in CATALOGUE.values()]
    return "\n".join(lines)
