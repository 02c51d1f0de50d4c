"""One serving process: the application under its web server, until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import uvicorn
from uvicorn.server import ServerState

from service.app import ServiceApp, create_app
from service.counts.cells import BEAT
from service.early import ended_by_signals
from service.edge.fast_lane import FastLane
from service.edge.guard import Guard, Limits, most_connections
from service.edge.protocol import LaneProtocol
from service.edge.warm_up import warm_up
from service.logging import end_logging, get_logger
from service.workers.acceptor import Acceptor
from service.workers.boot import run_low
from service.workers.order import HURRY, RETIRE
from service.workers.passage import NO_PASSAGE, Giver, Taker
from service.workers.sockets import BACKLOG

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from service.runtime import Runtime
    from service.settings import Settings
    from service.workers.acceptor import Connection
    from service.workers.assignment import Assignment
    from service.workers.passage import Passage
    from service.workers.plan import Plan

__all__ = ["START_ERROR", "serve", "server_config"]

START_ERROR: Final = 1
_LOOK_SECONDS: Final = 0.05
_TICKS_A_BEAT: Final = 5  # the web server ticks ten times a second
# Of the time that connections have to end: so long may each be busy, and be handed on after that.
_PASSING_SHARE: Final = 0.5
# Between a few connections and the next few: whoever takes them serves meanwhile.
_PASSING_SECONDS: Final = 0.001
_PARTING: Final = (b"connection", b"close")
# Threads that have nothing left to do end within this time after the server; what goes on is cut off.
_THREADS_END_SECONDS: Final = 0.5

_log: Final = get_logger("service")


class _Server(uvicorn.Server):
    """Lets the application know how many requests wait for it, and at once that it shall end; listens fairly.

    The web server tells it neither before it listens, and takes all connections that it can get. It would also close
    idle connections at once, under the hands of clients that are about to use them: here they are told with their next
    answer, and have a while to ask for it.

    Args:
        config: The web server's.
        runtime: The process's state.
        lane: Where usual requests are answered.

    Attributes:
        runtime: As given.
    """

    def __init__(self, config: uvicorn.Config, runtime: Runtime, lane: FastLane) -> None:
        super().__init__(config)
        self.runtime = runtime
        self._lane = lane
        runtime.in_flight = self.server_state.tasks.__len__
        self._cells = runtime.cells
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = False
        self._told_again = False  # to end, while it leaves
        self._acceptors: list[Acceptor] = []
        self._takers: list[Taker] = []

    async def on_tick(self, counter: int) -> bool:
        """Beat, by which the supervisor sees that this process comes round; returns whether to end."""
        if self._cells is not None and not counter % _TICKS_A_BEAT:
            self._cells.values[BEAT] = monotonic()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; called on a signal, perhaps before anything listens. A second one ends the delay."""
        runtime = self.runtime
        if self._leaving and sig == signal.SIGTERM and self._cells is not None:
            # A worker is told by its supervisor, and may be by whoever ends every process of a service.
            self._told_again = True
            return
        runtime.leaving = True
        delay = runtime.settings.drain_seconds if runtime.stage == "ready" else 0.0
        if sig == signal.SIGTERM and delay and self.started and not self._leaving and self._loop is not None:
            # Balancers have to notice first that it is not ready any more; until then it serves on.
            self._leaving = True
            self._loop.call_soon_threadsafe(self._drain, delay)
            return
        super().handle_exit(sig, frame)

    def retire(self, _number: int, _frame: FrameType | None) -> None:
        """Leave everything to others: called on a signal once another process has taken this one's place."""
        if self._loop is not None and not self._leaving:
            self._leaving = True
            self._loop.call_soon_threadsafe(self._retire)

    def leave(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """End as soon as nothing is in flight; may be called on a signal."""
        self.should_exit = True

    def _drain(self, delay: float) -> None:
        """Be not ready, and serve on for so many seconds."""
        self.runtime.drain()
        self._part()
        asyncio.get_running_loop().call_later(delay, self._end)

    def _retire(self) -> None:
        """Take no more connections, and hand on those that there are; end when none is left, or none is used.

        Clients of those that cannot be handed on are told that they end.
        """
        self.runtime.retire()
        for taker in self._takers:
            taker.close()
        for acceptor in self._acceptors:
            acceptor.retire()
        loop = asyncio.get_running_loop()
        idle_seconds = self.runtime.settings.idle_seconds
        until = loop.time() + idle_seconds
        part_at = loop.time() + _PASSING_SHARE * idle_seconds
        passage = self._passage()
        giver = None if passage == NO_PASSAGE else Giver(passage.giver)
        if giver is None:
            self._part()

        def look() -> None:
            nonlocal giver
            connections = cast("set[LaneProtocol]", self.server_state.connections)
            pause = _LOOK_SECONDS
            if giver is not None and giver.step(list(connections)):
                pause = _PASSING_SECONDS
            elif giver is not None and (self._told_again or loop.time() >= part_at):
                giver.close()
                giver = None
                self._part()
            arriving = any(acceptor.arriving for acceptor in self._acceptors)
            if not (connections or arriving) or loop.time() >= until:
                self._end()
            else:
                loop.call_later(pause, look)

        look()

    def _passage(self) -> Passage:
        """Where connections come from and go to; under TLS they are this process's own."""
        return self.runtime.assignment.passage if self.config.ssl is None else NO_PASSAGE

    def _part(self) -> None:
        """Tell every client, with its next answer, that its connection ends with that."""
        self._lane.part()
        self.config.encoded_headers.append(_PARTING)
        self.server_state.default_headers = [*self.server_state.default_headers, _PARTING]

    def _end(self) -> None:
        self.should_exit = True

    async def _warm_up(self) -> None:
        """Answer requests of one's own; where others serve, on what they leave, and on another event loop therefore."""
        if not self.runtime.assignment.low:
            await warm_up(self._make_warm, self._lane, self.runtime)
            return
        make_loop = type(asyncio.get_running_loop())

        def answer() -> None:
            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(warm_up(self._make_warm, self._lane, self.runtime))

        await asyncio.to_thread(run_low, answer)

    def _make_warm(self) -> LaneProtocol:
        """A connection from nobody, which is in no book: none of them outlives the loop that it is on."""
        guard = Guard(Limits.of(self.runtime.settings), self.runtime.metrics)
        return LaneProtocol(
            self._lane, guard, config=self.config, server_state=ServerState(), app_state=self.lifespan.state
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        self._loop = asyncio.get_running_loop()
        if sockets is None:
            await super().startup(sockets)
            return
        await super().startup([])
        # A client that says nothing in the handshake is one that sends no head.
        handshake_seconds = self.runtime.settings.head_seconds

        def make_protocol() -> Connection:
            made: Connection = self.config.http_protocol_class(  # type: ignore[call-arg, assignment]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        if self._cells is None and self.config.ssl is None:
            for listener in sockets:
                server = await self._loop.create_server(
                    make_protocol,
                    sock=listener,
                    backlog=self.config.backlog,
                )
                self.servers.append(server)
            return
        await self._warm_up()
        metrics = self.runtime.metrics
        for listener in sockets:
            listener.listen(self.config.backlog)
            acceptor = Acceptor(
                listener,
                make_protocol,
                lambda: len(self.server_state.connections),
                metrics.cells,
                tls=self.config.ssl,
                handshake_seconds=handshake_seconds,
                most=most_connections(self.runtime.settings.max_connections),
                on_full=lambda: metrics.count_cut("full"),
            )
            self._acceptors.append(acceptor)
            passage = self._passage()
            if passage != NO_PASSAGE:
                self._takers.append(Taker(passage.taker, acceptor.adopt))
        self.servers += [*self._takers, *self._acceptors]  # type: ignore[list-item]
        self.runtime.listens()


def serve(settings: Settings, plan: Plan, listener: socket.socket, assignment: Assignment | None = None) -> int:
    """Serve until told to stop. Does not return, but ends the process, where a thread scores on after that.

    Args:
        settings: The settings.
        plan: Threads to use.
        listener: Where clients connect; closed at the end.
        assignment: This process's part; by default it serves alone.

    Returns:
        The process's exit status: 0 after a stop that was asked for, 1 if nothing could be served.
    """

    def give_up() -> None:
        server.leave()

    def make() -> _Server:
        app = create_app(settings, plan=plan, assignment=assignment, on_failure=give_up)
        lane = FastLane(app.runtime, app.hot)
        config = server_config(app, settings, lane)
        config.load()
        return _Server(config, app.runtime, lane)

    with ended_by_signals():
        server = run_low(make) if assignment is not None and assignment.low else make()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Called until the web server handles them, and by itself once it has stopped in good order.
            signal.signal(number, server.leave)
    if sys.platform != "win32":
        signal.signal(RETIRE, server.retire)
        signal.signal(HURRY, server.leave)
        # By default it would end the process; whoever sends it wants to reload.
        signal.signal(signal.SIGHUP, _refuse_reload if assignment is None else signal.SIG_IGN)
    with listener:
        server.run(sockets=[listener])
    status = START_ERROR if server.runtime.failure is not None else 0
    server.runtime.stop()  # the server leaves that out where it was told twice to end
    _end_with_threads(status, settings)
    return status


def _refuse_reload(_number: int, _frame: FrameType | None) -> None:
    _log.warning("reload_refused", error="expected a store of versions to serve from, got one bundle and one process")


def _end_with_threads(status: int, settings: Settings) -> None:
    """End the process if a thread goes on: an interpreter that ends waits for its threads, however long they take.

    The server has waited as long as requests in flight may take, and no thread can be made to end.
    """
    ended_by = monotonic() + _THREADS_END_SECONDS
    this = threading.current_thread()
    threads = [thread for thread in threading.enumerate() if thread is not this and not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, ended_by - monotonic()))
    going_on = sum(thread.is_alive() for thread in threads)
    if not going_on:
        return
    _log.warning("scoring_cut_off", threads=going_on, shutdown_seconds=settings.shutdown_seconds)
    end_logging()
    sys.stdout.flush()
    os._exit(status)


def server_config(app: ServiceApp, settings: Settings, lane: FastLane | None = None) -> uvicorn.Config:
    """The web server, with nothing on that a request would pay for and nobody reads."""
    lane = FastLane(app.runtime, app.hot) if lane is None else lane
    guard = Guard(Limits.of(settings), app.runtime.metrics)
    return uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=partial(LaneProtocol, lane, guard),  # type: ignore[arg-type]  # called, whatever it is
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=settings.tls_certificate_file,
        ssl_keyfile=settings.tls_key_file,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        backlog=BACKLOG,
    )
