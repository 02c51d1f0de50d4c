"""Memory on huge pages: what the kernel says of the process afterwards, and which memory is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.workers.huge_pages import _own

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")

PROGRAM = """
import re
from pathlib import Path
from service.workers.huge_pages import collapse

def on_huge_pages():
    return 1024 * int(re.search(r"AnonHugePages: *(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])

words = [f"word {number} of many" for number in range(500_000)]  # tens of megabytes in small pieces
before = on_huge_pages()
said = collapse()
assert words[123_456] == "word 123456 of many"
print(before, said, on_huge_pages())
"""


@pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(), reason="the kernel has no huge pages to give")
def test_what_python_allocated_in_small_pieces_is_on_huge_pages_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, said, after = map(int, done.stdout.split())
    if said == 0:
        pytest.skip("this kernel does not collapse pages when asked to (Linux 6.1 does)")
    # How much there is to collapse is the allocator's and the kernel's affair, and some may have huge pages from the
    # start; what it says it did must be there.
    assert after >= before
    assert after >= said * 0.5


def test_files_shared_memory_and_the_stack_are_left_alone() -> None:
    maps = """\
55d0a0000000-55d0a4000000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0004000000 rw-p 00000000 00:00 0 
7f0010000000-7f0014000000 rw-s 00000000 00:05 1234                       /memfd:reaction-cells (deleted)
7f0020000000-7f0024000000 r--p 00000000 08:01 5678                       /bundles/a b/model.onnx.data
7f0030000000-7f0034000000 rw-p 00000000 08:01 5678                       /lib/x.so
7f0040000000-7f0044000000 r-xp 00000000 00:00 0 
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
"""  # noqa: W291 - the kernel's lines end so
    assert list(_own(maps)) == [(0x55D0A0000000, 0x55D0A4000000), (0x7F0000000000, 0x7F0004000000)]
