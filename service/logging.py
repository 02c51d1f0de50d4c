"""Structured logs: one JSON object a line, on stderr, the web server's own lines too; nobody waits for a reader."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.log_writer import LogWriter

# structlog loads rich where it finds it, to colour tracebacks on a console: time and memory for what is never used.
_HIDE_RICH: Final = "rich" not in sys.modules
if _HIDE_RICH:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _HIDE_RICH:
        del sys.modules["rich"]

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["configure_logging", "end_logging", "get_logger", "log_often", "write_lines"]

# Loggers of the web server that would otherwise write lines of their own form.
_SERVER_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


# How long a line of `log_often` may wait for others.
_LINE_SECONDS: Final = 0.2
_MOST_LINES: Final = 1000


class _Often:
    """What `log_often` knows of the writer, nothing before that is set up; lines that wait for it, with their times."""

    writes: bool | None = None
    worker: int | None = None
    out: LogWriter | None = None
    lines: Final[list[tuple[float, str, str, dict[str, Any]]]] = []


def configure_logging(level: str, worker: int | None = None) -> None:
    """Send every log line through one JSON writer.

    Args:
        level: Least severe event written: debug, info, warning or error.
        worker: Named in every line, where several workers write.
    """

    def name_worker(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if worker is not None:
            event["worker"] = worker
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_worker,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    if _Often.out is not None:
        _Often.out.close()
    out = _Often.out = LogWriter(sys.stderr, _lines_lost)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _drop_colours],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("event"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    _Often.writes, _Often.worker = root.level <= logging.INFO, worker
    # Start and stop are logged by the service itself, with more to say.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> Any:
    """A logger whose methods take an event and keyword facts."""
    return structlog.get_logger(name)


def log_often(name: str, event: str, facts: dict[str, Any]) -> None:
    """Log an event at level info, as `get_logger(name).info(event, **facts)` does, by far less code.

    A line that comes by lot, between many requests that log nothing, finds none of that code in a processor's caches,
    nor what makes it: lines of an event loop wait for each other for a moment.
    """
    if _Often.writes is None:
        get_logger(name).info(event, **facts)
    if not _Often.writes:
        return
    lines = _Often.lines
    lines.append((time(), name, event, facts))
    if len(lines) == 1:
        try:
            asyncio.get_running_loop().call_later(_LINE_SECONDS, write_lines)
        except RuntimeError:
            write_lines()
    elif len(lines) >= _MOST_LINES:
        write_lines()


def write_lines() -> None:
    """Hand the lines of `log_often` that wait to the writer."""
    lines = _Often.lines.copy()
    _Often.lines.clear()
    if _Often.out is not None:
        for at, name, event, facts in lines:
            _Often.out.write(_line(name, event, "info", facts, at))


def end_logging() -> None:
    """Write what is logged, unless that takes long; nothing is logged after that."""
    write_lines()
    if _Often.out is not None:
        _Often.out.close()


def _line(name: str, event: str, level: str, facts: dict[str, Any], at: float) -> str:
    line = facts if _Often.worker is None else {**facts, "worker": _Often.worker}
    stamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    text = msgspec.json.encode({**line, "level": level, "logger": name, "timestamp": stamp, "event": event})
    return text.decode() + "\n"


def _lines_lost(lines: int) -> str:
    return _line("service.log", "log_lines_lost", "error", {"lines": lines}, time())


def _drop_colours(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)
    return event
