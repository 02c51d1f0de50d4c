"""What a start says before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.logging import get_logger
from service.settings import unknown_variables

if TYPE_CHECKING:
    from service.workers.plan import Plan

__all__ = ["announce"]

_log: Final = get_logger("service")


def announce(plan: Plan) -> None:
    """Log the plan and why it is so, what does not fit in it, and variables that look like settings but are none."""
    _log.info(
        "plan",
        cpus=plan.cpus,
        workers=plan.workers,
        model_threads=plan.model_threads,
        work_threads=plan.work_threads,
        why=plan.why,
    )
    for text in plan.warnings:
        _log.warning("plan_does_not_fit", reason=text)
    for variable, meant in unknown_variables().items():
        _log.warning("unknown_variable", variable=variable, meant=meant)
