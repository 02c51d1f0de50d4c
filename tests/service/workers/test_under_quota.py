"""A service that may use half of a CPU, or one of several: it plans for that, and stays right where that is little."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from processes import GOOD, count_all, group_with_quota
from serving import start

if TYPE_CHECKING:
    from pathlib import Path

MANY = 6000
LONG = json.dumps({"context": GOOD["context"], "candidates": [GOOD["candidates"][0]] * MANY}).encode()  # type: ignore[index]
JSON = {"content-type": "application/json"}
CLIENTS, TIMES = 12, 3


@pytest.mark.parametrize("limit", ["quota", "affinity"])
def test_defaults_follow_the_limit_and_nothing_is_lost_or_wrong_where_it_is_reached(bundle: Path, limit: str) -> None:
    with ExitStack() as stack:
        if limit == "quota":
            group = stack.enter_context(group_with_quota(50_000))
            reason = f"a quota of 0.5 in {group}"
            first = f"echo $$ > {group}/cgroup.procs; "
        else:
            reason = "scheduled on 1"
            first = f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >&2 >/dev/null; "
        # Room for one more of the long ones than the one that is scored.
        server = start(bundle, first=first, workers=None, queue_candidates=MANY + MANY // 2, request_log_ratio=0)
        try:
            plan = server.log[0]
            assert plan["event"] == "plan"
            assert plan["cpus"] == (0.5 if limit == "quota" else 1.0)
            assert reason in plan["why"][0]
            assert (plan["workers"], plan["model_threads"], plan["work_threads"]) == (1, 1, 1)
            expected = httpx.post(f"{server.url}/score", json=GOOD).json()["scores"][0]
            done, probed = threading.Event(), Counter[int]()

            def probe() -> None:
                while not done.is_set():
                    for path in ("/livez", "/readyz", "/metrics"):
                        probed[httpx.get(server.url + path, timeout=20).status_code] += 1

            def ask(_client: int) -> list[httpx.Response]:
                with httpx.Client(base_url=server.url, headers=JSON, timeout=60) as client:
                    return [client.post("/score", content=LONG) for _ in range(TIMES)]

            prober = threading.Thread(target=probe)
            prober.start()
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = [answer for some in clients.map(ask, range(CLIENTS)) for answer in some]
            done.set()
            prober.join()
            seen = Counter(answer.status_code for answer in answers)
            assert seen.keys() == {200, 429}
            for answer in answers:
                if answer.status_code == 200:
                    np.testing.assert_allclose(answer.json()["scores"], [expected] * MANY, rtol=1e-5)
                else:
                    assert int(answer.headers["retry-after"]) >= 1
            assert probed.keys() == {200}
            counted = {
                status: count_all(server)[f'reaction_requests_total{{route="/score",status="{status}"}}']
                for status in seen
            }
            assert counted == {200: seen[200] + 1, 429: seen[429]}
            assert httpx.post(f"{server.url}/score", json=GOOD).status_code == 200
        finally:
            assert server.stop() == 0
