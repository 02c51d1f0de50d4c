"""Feedback's parts: tokens that cannot be made up, a memory of fixed size, windows, and sums that are the measures."""

from __future__ import annotations

import math
import multiprocessing
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.counts.cells import Cells, shared_file
from service.errors import ForgedTokenError, MalformedTokenError
from service.feedback.counts import BOUNDS, CELLS, CLICK, IMPRESSION, STRETCHES, WITHDRAWN, Stretches, VersionCounts
from service.feedback.places import MOST_MODELS, ModelPlaces
from service.feedback.quality import quality
from service.feedback.secret import SecretError, read_secrets
from service.feedback.seen import SeenTokens
from service.feedback.tokens import LONGEST_TOKEN, Keyring
from service.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW, OTHER = b"an old secret of the service", b"a new secret of the service", b"a secret of somebody else"
T0 = 1_790_000_000
unit = st.floats(0, 1, width=32)


# --- tokens


@given(
    st.text("abcXYZ019._-", min_size=1, max_size=128),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), unit), min_size=1, max_size=4, unique_by=lambda one: one[0]),
    st.booleans(),
)
def test_a_token_says_what_it_was_made_of(
    model: str, second: int, scored: list[tuple[int, float]], shown: bool
) -> None:
    keyring = Keyring([NEW])
    texts = [token.decode() for token in keyring.sign(model, second, scored, shown=shown)]
    tokens = [keyring.read(text) for text in texts]
    assert [(token.place, token.score) for token in tokens] == scored
    assert {(token.model, token.second, token.shown) for token in tokens} == {(model, second, shown)}
    assert max(map(len, texts)) <= LONGEST_TOKEN
    assert len({token.identity for token in tokens}) == len(scored)


def test_the_same_candidate_of_two_requests_has_two_tokens() -> None:
    keyring = Keyring([NEW])
    tokens = {keyring.sign("m", T0, [(0, 0.5)], shown=True)[0] for _ in range(1000)}
    assert len(tokens) == 1000


def test_the_first_secret_signs_and_all_verify() -> None:
    before, during, after = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([NEW])
    (old,) = before.sign("m", T0, [(0, 0.5)], shown=True)
    (new,) = during.sign("m", T0, [(0, 0.5)], shown=True)
    assert during.read(old.decode()).score == during.read(new.decode()).score == after.read(new.decode()).score == 0.5
    for keyring, token in ((before, new), (after, old), (Keyring([OTHER]), new)):
        with pytest.raises(ForgedTokenError):
            keyring.read(token.decode())


def test_a_token_with_any_bit_changed_or_any_byte_more_or_less_is_refused() -> None:
    keyring = Keyring([NEW])
    text = keyring.sign("model-1", T0, [(3, 0.25)], shown=True)[0].decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = [text[:n] + c + text[n + 1 :] for n in range(len(text)) for c in alphabet if c != text[n]]
    changed += (
        [text[:n] for n in range(len(text))] + [text + c for c in alphabet] + [text + "A" * n for n in (4, 8, 400)]
    )
    for other in changed:
        with pytest.raises((ForgedTokenError, MalformedTokenError)):
            keyring.read(other)


@given(st.text(max_size=300))
def test_any_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises((ForgedTokenError, MalformedTokenError)):
        Keyring([NEW]).read(text)


# --- secrets


def test_secrets_come_from_one_place_and_a_short_one_is_refused_unquoted(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("first-secret-of-all\nsecond-secret-of-all\n")
    assert read_secrets("", file) == (b"first-secret-of-all", b"second-secret-of-all")
    assert read_secrets("", None) == ()
    file.write_text(" \n")
    for given_, where in (
        ("short", None),
        ("enough-characters-here", file),
        ("", file),
        ("", tmp_path),
        ("s" * 20, file),
    ):
        with pytest.raises(SecretError) as caught:
            read_secrets(given_, where)
        assert not given_ or given_ not in str(caught.value)
    with pytest.raises(
        SettingsError, match=r"^REACTION_FEEDBACK_SECRET: expected at least 16 bytes, got 8 in secret 2$"
    ):
        load_settings(bundle="b", feedback_secret="long-enough-secret too-wide")
    with pytest.raises(SettingsError, match="FEEDBACK_RATIO: expected REACTION_FEEDBACK_SECRET"):
        load_settings(bundle="b", feedback_ratio=0.5)
    settings = load_settings(bundle="b", feedback_secret="long-enough-secret", feedback_ratio=0.5)
    assert "enough" not in f"{settings!r} {settings.model_dump(mode='json')}"


# --- counts


def counts_in(cells: Cells, time: Stretches) -> VersionCounts:
    return VersionCounts(cells, "m", cells.take("counts", CELLS), time)


def tallied(*counts: VersionCounts) -> list[float]:
    """Impressions, withdrawn ones and clicks whose window is over."""
    assert len({str(one.tallies()) for one in counts}) == 1  # whoever is asked
    return [sum(tally.counts) for tally in counts[0].tallies()]


def test_nothing_counts_before_the_window_is_over_and_everything_after_it() -> None:
    counts = counts_in(Cells(), time := Stretches(800))
    counts.add(IMPRESSION, T0, [0.5, 0.25])
    counts.add(CLICK, T0, [0.5])
    assert not time.is_late(T0, T0 + 800.9)
    assert time.is_late(T0, T0 + 801)
    ends = next(now for now in range(T0, T0 + 2000) if time.is_over(time.of(T0), now))
    assert T0 + 801 <= ends <= T0 + 801 + 100  # a stretch is an eighth of the window
    counts.close(ends - 1)
    assert tallied(counts) == [0, 0, 0]
    counts.close(ends)
    assert tallied(counts) == [2, 0, 1]
    counts.close(ends + 5000)
    assert tallied(counts) == [2, 0, 1]


def test_workers_add_up_and_one_that_takes_anothers_place_goes_on_with_its_counts() -> None:
    descriptor = shared_file(2)
    try:
        first, second = (counts_in(Cells(2, n, descriptor=descriptor), Stretches(80)) for n in range(2))
        first.add(IMPRESSION, T0, [0.5])
        second.add(CLICK, T0, [0.5])
        heir = counts_in(Cells(2, 1, descriptor=descriptor), Stretches(80))
        first.close(T0 + 1000)
        assert tallied(first, heir) == [1, 0, 0]
        heir.close(T0 + 1000)
        assert tallied(first, heir) == [1, 0, 1]
    finally:
        os.close(descriptor)


def test_what_a_worker_left_that_has_ended_is_counted_by_another() -> None:
    descriptor = shared_file(2)
    try:
        cells = [Cells(2, n, descriptor=descriptor) for n in range(2)]
        gone, left = (counts_in(one, Stretches(80)) for one in cells)
        gone.add(IMPRESSION, T0, [0.5, 0.25])
        left.close(T0 + 1000)
        assert tallied(left) == [0, 0, 0]  # it lives, and may be counting this very moment
        cells[1].forget(0)
        left.close(T0 + 10)
        assert tallied(left) == [0, 0, 0]
        left.close(T0 + 1000)
        assert tallied(left) == [2, 0, 0]
    finally:
        os.close(descriptor)


def test_a_place_goes_to_another_model_once_nothing_can_come_back_for_the_one_before() -> None:
    descriptor = shared_file(2)
    try:
        time = Stretches(80)
        here, there = (ModelPlaces(Cells(2, n, descriptor=descriptor), time) for n in range(2))
        names = [f"model-{n}" for n in range(MOST_MODELS)]
        held = {name: here.find(name, T0) for name in names}
        elsewhere = there.find("model-3", T0)
        assert here.find("one more", T0 + 80) is None
        assert sorted(there.models()) == sorted(names)
        for name, counts in held.items():
            assert counts is not None
            counts.issue(5)
            assert name == "model-3" or counts.use(T0 + 500)
        late = T0 + 80 + 80
        assert time.is_over(time.of(T0), late)
        taken = there.find("one more", late)
        assert taken is not None
        assert taken.issued() == 0
        assert "model-3" not in here.models()
        assert "one more" in here.models()
        for counts in (held["model-3"], elsewhere):
            assert counts is not None
            assert not counts.use(late)
        assert here.find("model-3", late) is None
        found = here.find("model-4", late)
        assert found is not None
        assert found.issued() == 5
    finally:
        os.close(descriptor)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2), unit), max_size=60))
def test_whatever_the_clock_does_every_event_is_counted_once(events: list[tuple[int, int, float]]) -> None:
    counts = counts_in(Cells(capacity=20_000), Stretches(100))
    for second, event, score in events:
        counts.add(event, T0 + second, [score])
        counts.close(T0 + second)
    counts.close(T0 + 10_000)
    assert tallied(counts) == [sum(kind == event for _, kind, _ in events) for event in range(3)]


@given(
    st.lists(
        st.tuples(st.floats(2**-13, 1 - 2**-7, width=32), st.sampled_from(("shown", "clicked", "withdrawn"))),
        max_size=50,
    )
)
def test_measures_from_sums_are_those_of_the_rows(rows: list[tuple[float, str]]) -> None:
    counts = counts_in(Cells(capacity=20_000), Stretches(100))
    for score, fate in rows:
        counts.add(IMPRESSION, T0, [score])
        if fate != "shown":
            counts.add(CLICK if fate == "clicked" else WITHDRAWN, T0, [score])
    counts.close(T0 + 10_000)
    found = quality(*counts.tallies())
    kept = [(score, fate == "clicked") for score, fate in rows if fate != "withdrawn"]
    clicks = sum(clicked for _, clicked in kept)
    if not kept:
        assert found.log_loss is None
    else:
        losses = [-math.log(score if clicked else 1 - score) for score, clicked in kept]
        assert found.log_loss == pytest.approx(sum(losses) / len(kept), abs=1e-9)
    if not clicks:
        assert found.calibration_ratio is None
    else:
        assert found.calibration_ratio == pytest.approx(sum(score for score, _ in kept) / clicks, abs=1e-9)
    buckets = [(int(np.searchsorted(BOUNDS, score)), clicked) for score, clicked in kept]
    pairs = [(one > other) + (one == other) / 2 for one, yes in buckets for other, no in buckets if yes and not no]
    assert found.auc == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


# --- what has been seen


def enter_all(descriptor: int, block: int, identities: list[int], start: object, found: object) -> None:
    seen = SeenTokens(Cells(3, block, descriptor=descriptor), 4096, stretches=STRETCHES, in_window=8)
    start.wait()  # type: ignore[attr-defined]
    found.put([identity for identity in identities if seen.enter(5, identity) == "new"])  # type: ignore[attr-defined]


def test_of_workers_that_get_the_same_tokens_at_once_one_alone_finds_each_new() -> None:
    descriptor = shared_file(3)
    os.set_inheritable(descriptor, True)
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(3), context.Queue()
    identities = np.random.default_rng(3).integers(1, 2**63, 300).tolist()
    processes = [
        context.Process(target=enter_all, args=(descriptor, block, identities, start, found)) for block in range(3)
    ]
    for process in processes:
        process.start()
    new = [identity for _ in processes for identity in found.get(timeout=30)]
    for process in processes:
        process.join(30)
    os.close(descriptor)
    assert sorted(new) == sorted(identities)


def test_tokens_are_remembered_for_a_window_in_memory_that_does_not_grow() -> None:
    seen = SeenTokens(Cells(capacity=5000), 800, stretches=STRETCHES, in_window=8)
    for stretch in range(100, 160):
        assert [seen.enter(stretch, identity) for identity in range(1, 51)] == ["new"] * 50
        for before in range(max(100, stretch - STRETCHES + 1), stretch + 1):
            assert {seen.enter(before, identity) for identity in range(1, 51)} == {"known"}
    assert seen.enter(100, 1) == "full"  # its stretch was over long ago
    rng = np.random.default_rng(4)
    entered = [seen.enter(160, int(identity)) for identity in rng.integers(1, 2**63, 300)]
    assert entered.count("new") <= 100
    assert set(entered[100:]) <= {"new", "full"}
    assert "full" in entered
