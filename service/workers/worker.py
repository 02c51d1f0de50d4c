"""`python -m service.workers.worker`: one of several serving processes, started by the supervisor and by nobody else.

One that gets ready while others serve at full strength is started as `python -m service.workers.worker low`: everything
it imports, it imports on a thread of the lowest priority. So this module imports next to nothing itself; what a worker
does is in `service.workers.worker_process`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from service.workers.low_priority import lower_this_session, run_low

__all__ = ["LOW", "main"]

LOW: Final = "low"


def main() -> int:
    """Serve as ordered; returns the exit status."""
    if LOW in sys.argv[1:]:
        lower_this_session()
        run_low(lambda: import_module("service.server"))  # half of a start's work
        run_low(lambda: import_module("service.workers.worker_process"))
    from service.workers.worker_process import run  # noqa: PLC0415 - see above

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
