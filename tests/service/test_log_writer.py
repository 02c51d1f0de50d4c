"""What is logged, where whoever reads it stands still (a whole service under such a log: `benchmarks.reliability`)."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from service.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes that hold so much and no more")


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, io.FileIO]]:
    """A pipe into which not a byte goes, by its two ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    taken = 0
    try:
        while True:
            taken += os.write(writer, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    with io.FileIO(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


def read_until(reader: int, end: bytes) -> bytes:
    """What comes, up to this."""
    found = b""
    while not found.endswith(end):
        found += os.read(reader, 1 << 16)
    return found


def test_who_logs_waits_for_nobody_and_is_told_how_many_lines_found_no_room(full_pipe: tuple[int, io.FileIO]) -> None:
    reader, stream = full_pipe
    writer = LogWriter(stream, lambda lines: f"lost {lines}\n", most=10_000)
    lines = [f"{number:99d}\n" for number in range(1000)]
    for line in lines:
        writer.write(line)
    found = read_until(reader, b"\n").lstrip(b".").decode()
    while "lost" not in found:
        found += read_until(reader, b"\n").decode()
    *kept, told = found.splitlines(keepends=True)
    assert kept == lines[: len(kept)]
    assert len(kept) == 100
    assert told == "lost 900\n"
    # What is read is not yet known to be gone: a line that comes at once may be lost, and that is told too.
    writer.write("there is room again\n")
    while (answer := read_until(reader, b"\n")) == b"lost 1\n":
        writer.write("there is room again\n")
    assert answer == b"there is room again\n"
    writer.close()


def test_lines_that_were_lost_are_told_though_none_follows(full_pipe: tuple[int, io.FileIO]) -> None:
    reader, stream = full_pipe
    writer = LogWriter(stream, lambda lines: f"lost {lines}\n", most=10)
    writer.write("too long for it\n")
    assert read_until(reader, b"\n").endswith(b"lost 1\n")
    writer.close()


def test_an_end_waits_for_lines_that_are_taken_and_not_for_others(full_pipe: tuple[int, io.FileIO]) -> None:
    reader, stream = full_pipe
    stuck = LogWriter(stream, str)
    stuck.write("never taken\n")
    stuck.close(0.1)  # it returns
    os.read(reader, 1 << 20)  # and its thread ends
    free = LogWriter(memory := io.StringIO(), str)
    for number in range(1000):
        free.write(f"{number}\n")
    free.close()
    assert memory.getvalue() == "".join(f"{number}\n" for number in range(1000))


def test_lines_of_processes_on_one_pipe_are_never_mixed() -> None:
    reader, writer = os.pipe()
    with io.FileIO(writer, "w") as stream:
        writers = [LogWriter(stream, str) for _ in range(2)]
        lines = [[name * (37 * number % 4000 + 1) + "\n" for number in range(200)] for name in "ab"]
        for pair in zip(*lines, strict=True):
            for to, line in zip(writers, pair, strict=True):
                to.write(line)
        found = b""
        while len(found) < sum(map(len, lines[0] + lines[1])):
            found += os.read(reader, 1 << 16)
        for to in writers:
            to.close()
    os.close(reader)
    assert sorted(found.decode().splitlines(keepends=True)) == sorted(lines[0] + lines[1])
