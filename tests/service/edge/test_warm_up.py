"""Before its first connection a process answers golden rows from end to end, and nobody counts that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from protocols import serving_protocols

from service.edge.fast_lane import FastLane
from service.edge.warm_up import warm_up

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("keys", ["", "a-key-of-more-than-16-bytes"], ids=["open", "keys"])
def test_a_warm_up_goes_through_the_lane_and_is_counted_nowhere(bundle: Path, keys: str) -> None:
    async def go() -> None:
        make, facts = await serving_protocols(bundle, **({"api_keys": keys} if keys else {}))
        runtime = facts.app.runtime
        lane = make()._lane
        assert isinstance(lane, FastLane)
        await warm_up(make, lane, runtime)
        assert facts.state.total_requests == (0 if keys else 48)
        assert bool(lane._heads) is not bool(keys)
        assert facts.seen == 0, "the lane takes all of it"
        await asyncio.sleep(0)
        assert not facts.state.connections
        assert runtime.metrics.requests() == {}
        text, _ = runtime.metrics.render("")
        assert b"reaction_candidates_total{" in text
        assert b'reaction_candidates_total{model="tiny-1"} 0.0' in text
        runtime.stop()

    asyncio.run(go())
