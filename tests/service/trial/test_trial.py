"""What is to be served and tried, a step at a time, from a store on disk; and the split that anybody can compute."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from stores import build_store

from service.trial.candidate import Candidate
from service.trial.split import bucket_of, in_share, key_in
from service.versions import trials
from service.versions.rollout import Rollout
from service.versions.store import Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return build_store(tmp_path, "first", "second", "third")


@pytest.fixture
def counted() -> Counter[tuple[str, str]]:
    return Counter()


@pytest.fixture
def rollout(store: Store, counted: Counter[tuple[str, str]]) -> Rollout:
    """One whose workers serve the first version."""
    made = Rollout(store.root, lambda outcome, reason: counted.update([(outcome, reason)]))
    made.begin()
    made.done()
    return made


def aims(rollout: Rollout) -> tuple[str, str | None]:
    assert rollout.target is not None
    canary = rollout.target.canary
    return rollout.target.version, None if canary is None else canary.version


def try_canary(store: Store, rollout: Rollout, name: str = "second", share: float = 0.5) -> None:
    trials.put_on_trial(store, Candidate(name=name, mode="canary", share=share))
    rollout.look()


def test_a_share_begins_once_all_workers_hold_both_versions_and_ends_at_once(store: Store, rollout: Rollout) -> None:
    try_canary(store, rollout)
    assert (aims(rollout), rollout.share) == (("first", "second"), 0.0)
    rollout.done()
    assert rollout.share == 0.5
    try_canary(store, rollout, share=0.7)
    assert (rollout.target == rollout.good, rollout.share) == (True, 0.7)
    trials.end_trial(store)
    rollout.look()
    assert (aims(rollout), rollout.share) == (("first", None), 0.0)


def test_one_half_changes_at_a_time_so_that_what_fails_is_known(store: Store, rollout: Rollout) -> None:
    try_canary(store, rollout)
    rollout.done()
    store.activate("third")
    rollout.look()
    assert (aims(rollout), rollout.share) == (("third", "second"), 0.5)
    rollout.failed("SelfTestError", "no", proven=False)
    assert (aims(rollout), rollout.refused, rollout.trial.refused) == (("first", "second"), True, False)
    store.activate("first")
    try_canary(store, rollout, "third")
    assert (aims(rollout), rollout.share) == (("first", "third"), 0.0)
    rollout.failed("SelfTestError", "no", proven=False)
    assert (aims(rollout), rollout.refused, rollout.trial.refused) == (("first", None), False, True)


def test_a_promoted_canary_keeps_its_share_until_it_has_all(store: Store, rollout: Rollout) -> None:
    try_canary(store, rollout)
    rollout.done()
    assert trials.promote(store) == "second"
    rollout.look()
    assert (aims(rollout), rollout.share) == (("second", None), 0.5)
    rollout.done()
    assert (rollout.share, store.tried()) == (0.0, None)


def test_a_canary_beside_which_workers_end_again_and_again_is_taken_out_until_told(
    store: Store, rollout: Rollout, counted: Counter[tuple[str, str]]
) -> None:
    try_canary(store, rollout)
    rollout.done()
    for _ in range(3):
        assert rollout.share == 0.5
        rollout.lost(rollout.good)
    assert (aims(rollout), rollout.share, counted["trial_refused", "crashed"]) == (("first", None), 0.0, 1)
    rollout.done()
    rollout.look()
    assert (aims(rollout), rollout.trial.refused) == (("first", None), True)
    rollout.look(again=True)
    assert (aims(rollout), rollout.trial.refused) == (("first", "second"), False)


def test_what_a_look_finds_wrong_took_no_time_and_a_change_took_its_own(
    store: Store, rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("service.versions.rollout.monotonic", lambda: now[0])
    store.activate("second")
    rollout.look()
    now[0] += 5
    rollout.done()
    assert rollout.last is not None
    assert (rollout.last.outcome, rollout.last.seconds) == ("loaded", 5.0)
    now[0] += 60
    (store.root / "candidate.json").write_text("no candidate")
    rollout.look()
    assert (rollout.last.outcome, rollout.last.seconds) == ("trial_refused", 0.0)
    (store.root / "current").unlink()
    rollout.look()
    assert (rollout.last.outcome, rollout.last.seconds) == ("refused", 0.0)
    try_canary(store, rollout, "third")
    store.activate("first")
    rollout.look()
    now[0] += 3
    rollout.failed("SelfTestError", "no", proven=False)
    assert (rollout.last.outcome, rollout.last.seconds) == ("refused", 3.0)


def test_what_is_on_trial_is_kept_and_what_says_so_is_read_strictly(store: Store) -> None:
    with pytest.raises(StoreError, match="not current, got 'first'"):
        trials.put_on_trial(store, Candidate(name="first", mode="shadow"))
    for nothing in (trials.end_trial, trials.promote):
        with pytest.raises(StoreError, match="a version on trial, got none"):
            nothing(store)
    trials.put_on_trial(store, Candidate(name="second", mode="shadow"))
    assert store.prune(1) == []
    path = store.root / "candidate.json"
    document = json.loads(path.read_bytes())
    for change in ({"share": 1.5}, {"mode": "other"}, {"version": 2}, {"more": 1}):
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(StoreError, match="expected a candidate"):
            trials.candidate_of(store)


def test_the_split_is_what_readme_says_and_a_larger_share_only_adds_keys() -> None:
    assert [bucket_of(key.encode()) for key in ("user-1", "é")] == [
        0xC6C289E4,
        0x4A99557E,
    ]
    keys = [f"user-{number}".encode() for number in range(10_000)]
    inside = [{key for key in keys if in_share(key, share)} for share in (0.0, 0.05, 0.1, 1.0)]
    assert inside[0] < inside[1] < inside[2] < inside[3] == set(keys)
    assert abs(len(inside[1]) - 500) < 100


def test_a_key_is_found_in_whatever_may_hold_one_and_nowhere_else() -> None:
    assert key_in(b'{"candidates":[{"routing_key":"no"}],"rout\\u0069ng_key":"\\u00e9"}', packed=False) == "é".encode()
    for body in (b'{"routing_key":7}', b'{"routing_key":""}', b'{"routing_key":null}', b"[]", b"\xff", b"[" * 10_000):
        assert key_in(body, packed=False) is None
        assert key_in(body, packed=True) is None
