"""Who takes part: how each server is started, and in which forms it takes a workload.

With a folder of peer servers (`peers.py` there lists them as `Peer` records, `servers/` holds them) its tutorials take
the place of ours and every other peer joins.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from benchmarks.serving.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
Kind = Literal["service", "floor", "tutorial", "by hand", "model server"]

SERVICE: Final = "service"
LOG_OFF: Final = "service_log_off"
COALESCED: Final = "service_coalesced"
BASELINE: Final = "columns"
_BASELINES: Final = {"one_row": "rows"}


def against_peers(workload: str) -> str:
    """The service's entry that stands against peers: JSON like theirs, an array a field unless there is but one row."""
    return f"{SERVICE}.{_BASELINES.get(workload, BASELINE)}"


SHARED_FORMS: Final = {"rows": "listwise", "columns": "columns", "msgpack": "msgpack"}
ONE_ROW_FORMS: Final = {"rows": "listwise", "columns": "columns", "pointwise": "pointwise"}
POINTWISE_FORMS: Final = {"rows": "pointwise", "columns": "pointwise_columns", "msgpack": "pointwise_msgpack"}

# What the servers of a folder of peers are; any other is a model server.
_KINDS: Final[dict[str, Kind]] = {
    "naive_fastapi": "tutorial",
    "listwise_fastapi": "tutorial",
    "tuned_fastapi": "by hand",
    "asgi_job": "floor",
}
_PORTS: Final = 4
# Its processes share locks with a time limit, which passes while they are stopped.
_NOT_FREEZABLE: Final = ("pytriton",)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server.

    Attributes:
        name: In tables and in the JSON.
        kind: What it stands for.
        command: With {port} to {port3} yet to be filled in.
        environment: What it gets beside the common variables.
        forms: Form to schema (`payloads.SCHEMAS`) by workload.
        path: Of its endpoint.
        isolated: It does not survive SIGSTOP and is measured in a block of its own.
        settle: Seconds to leave it alone after its first answer.
        scores: Whether it scores; a floor that does not is not compared with the model.
    """

    name: str
    kind: Kind
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    path: str = "/score"
    isolated: bool = False
    settle: float = 0.3
    scores: bool = True

    def started_with(self, port: int) -> tuple[list[str], dict[str, str]]:
        """Command and own environment on a port."""
        ports = {"port": port} | {f"port{n}": port + n for n in range(1, _PORTS)}
        fill = {name: str(value) for name, value in ports.items()}
        command = [part.format(**fill) for part in self.command]
        return command, {"PORT": str(port)} | {name: value.format(**fill) for name, value in self.environment.items()}


PORTS_EACH: Final = _PORTS


def service(bundle: Path, name: str = SERVICE, **settings: object) -> Contestant:
    """The service as shipped, one worker, with these settings changed."""
    shared = {name for name, workload in WORKLOADS.items() if workload.shared}
    every: dict[str, dict[str, str]] = {
        name: dict(SHARED_FORMS if name in shared else POINTWISE_FORMS) for name in WORKLOADS
    }
    every["one_row"] = dict(ONE_ROW_FORMS)
    every["rank100"]["binary"] = "binary"
    for workload, forms in every.items():
        if not WORKLOADS[workload].peers:
            every[workload] = {BASELINE: forms[BASELINE]}
    if name != SERVICE:
        every = {"one_row": {"rows": "listwise"}}
    environment = {f"REACTION_{key.upper()}": str(value) for key, value in settings.items()}
    command = (sys.executable, "-m", "service", "--bundle", str(bundle), "--host", "127.0.0.1", "--port", "{port}")
    return Contestant(name, "service", (*command, "--workers", "1"), environment, every)


def services(bundle: Path) -> list[Contestant]:
    """The service as shipped, first; then without its request log, and as `python -m service advise` may advise."""
    return [service(bundle), service(bundle, LOG_OFF, request_log_ratio=0), service(bundle, COALESCED, coalesce=True)]


def noop(workload: str, form: str, answer_bytes: int) -> Contestant:
    """The no-op for a workload: the same body, as many bytes back."""
    schema = SHARED_FORMS[form]
    command = (sys.executable, "-m", "benchmarks.serving.servers.noop", "{port}", str(answer_bytes))
    return Contestant(f"noop_{workload}", "floor", command, forms={workload: {form: schema}}, scores=False)


def tutorials(model: Path) -> list[Contestant]:
    """The two recipes everyone starts from."""
    compared = [name for name, workload in WORKLOADS.items() if workload.peers]

    def recipe(name: str, workloads: Iterable[str], schema: str) -> Contestant:
        app = f"benchmarks.serving.servers.{name}:app"
        quiet = ("--no-access-log", "--log-level", "warning")
        command = (sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "{port}", *quiet)
        forms = {workload: {schema: schema} for workload in workloads}
        return Contestant(name, "tutorial", command, {"BENCH_MODEL": str(model)}, forms)

    ranking = [name for name in compared if WORKLOADS[name].shared and WORKLOADS[name].rows > 1]
    return [recipe("tutorial", compared, "rows"), recipe("listwise", ranking, "listwise")]


def peers(folder: Path, venvs: Path, model: Path) -> list[Contestant]:
    """Every server of a folder of peers whose environment is there.

    Raises:
        FileNotFoundError: The folder has no `peers.py`.
    """
    found = []
    for peer in _table(folder / "peers.py").values():
        if peer.inproc or not (venvs / peer.venv / "bin" / "python").exists():
            continue
        binaries = venvs / peer.venv / "bin"
        fill = {
            "python": str(binaries / "python"),
            "bin": str(binaries),
            "servers": str(folder / "servers"),
            "model": str(model),
        }
        keep = {f"port{n or ''}": f"{{port{n or ''}}}" for n in range(_PORTS)}
        command = tuple(part.format(**fill, **keep) for part in peer.cmd)
        environment = {"PEERS_MODEL": str(model), "PYTHONPATH": str(folder / "servers")} | peer.env
        ranks_only = peer.rank_only
        forms = {
            name: {peer.schema: peer.schema}
            for name, workload in WORKLOADS.items()
            if workload.peers and (not ranks_only or (workload.shared and workload.rows > 1))
        }
        found.append(
            Contestant(
                peer.name,
                _KINDS.get(peer.name, "model server") if peer.job else "floor",
                command,
                environment,
                forms if peer.job else {"one_row": {peer.schema: peer.schema}},
                peer.path,
                peer.isolate or peer.name in _NOT_FREEZABLE,
                peer.settle,
                peer.job,
            )
        )
    return found


def _table(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("peer_servers", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path}: expected a table of peer servers, got nothing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    table: dict[str, Any] = module.PEERS
    return table


def common_environment(scratch: Path) -> dict[str, str]:
    """What every server gets: none of the service's settings, one thread for numeric libraries, a home to write in."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("REACTION_") and not name.lower().endswith("_proxy")
    }
    return kept | {
        "HOME": str(scratch),
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
    }
