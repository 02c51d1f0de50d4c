"""The ledger of the accuracy benchmark."""

from pathlib import Path

import pytest

from benchmarks.accuracy.ledger import Ledger, LedgerError, Line, run_key
from benchmarks.accuracy.tasks import TASKS


def line(seed: int) -> Line:
    return Line(
        key=run_key("a-random", "d", "dnn", "trial", {"rate": 0.001}, seed=seed),
        task="a-random",
        data="d",
        split="random",
        model="dnn",
        purpose="trial",
        config={"rate": 0.001},
        seed=seed,
        rows={"train": 10},
        cpu_seconds=1.5,
        created="2026-01-01T00:00:00Z",
        versions={"torch": "2"},
    )


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    for seed in (3, 1, 2):
        ledger.append(line(seed))
    again = Ledger(ledger.path)
    assert [entry.seed for entry in again] == [3, 1, 2]
    assert list(again) == list(ledger)
    assert line(1).key in again
    assert line(4).key not in again


@pytest.mark.parametrize("cut", [1, 40, None])
def test_a_last_line_that_was_cut_short_is_set_aside_and_the_ledger_goes_on(tmp_path: Path, cut: int | None) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for seed in (1, 2):
        ledger.append(line(seed))
    whole = ledger.path.read_bytes()
    first = whole.index(b"\n") + 1
    torn = whole[first : first + cut] if cut else b'{"format":"reaction-accu{"format":"reaction-accuracy"}\n'
    ledger.path.write_bytes(whole[:first] + torn)
    again = Ledger(ledger.path)
    assert [entry.seed for entry in again] == [1]
    assert again.torn == torn.decode().rstrip("\n")
    assert again.aside.read_bytes().rstrip(b"\n") == torn.rstrip(b"\n")
    again.append(line(3))
    assert [entry.seed for entry in Ledger(ledger.path)] == [1, 3]


def test_a_line_in_the_middle_that_is_no_run_is_refused_by_its_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for seed in (1, 2, 3):
        ledger.append(line(seed))
    lines = ledger.path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"version":1', b'"version":9')
    ledger.path.write_bytes(b"\n".join(lines))
    with pytest.raises(LedgerError, match="line 2"):
        Ledger(ledger.path)


def test_a_whole_last_line_of_another_version_is_refused_and_not_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for seed in (1, 2):
        ledger.append(line(seed))
    text = ledger.path.read_text()
    newer = text[: text.rindex('"version":1')] + '"version":2' + text[text.rindex('"version":1') + 11 :]
    ledger.path.write_text(newer)
    with pytest.raises(LedgerError, match=r"line 2: expected a run of .*: version: "):
        Ledger(ledger.path)
    assert ledger.path.read_text() == newer


def test_a_key_is_one_of_everything_that_decides_a_run_and_of_no_order_of_keys() -> None:
    base = run_key("t", "d", "m", "trial", {"a": 1, "b": [2]}, seed=1)
    assert base == run_key("t", "d", "m", "trial", {"b": [2], "a": 1}, seed=1)
    others = [
        run_key("u", "d", "m", "trial", {"a": 1, "b": [2]}, seed=1),
        run_key("t", "e", "m", "trial", {"a": 1, "b": [2]}, seed=1),
        run_key("t", "d", "n", "trial", {"a": 1, "b": [2]}, seed=1),
        run_key("t", "d", "m", "seed", {"a": 1, "b": [2]}, seed=1),
        run_key("t", "d", "m", "trial", {"a": 1, "b": [3]}, seed=1),
        run_key("t", "d", "m", "trial", {"a": 1, "b": [2]}, seed=2),
    ]
    assert len({base, *others}) == 7


def test_every_line_of_the_committed_ledger_is_a_run_known_by_its_key_and_there_once() -> None:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "accuracy.jsonl"
    lines = list(Ledger(path))
    assert len(lines) == path.read_bytes().count(b"\n")
    for entry in lines:
        made = run_key(entry.task, entry.data, entry.model, entry.purpose, entry.config, seed=entry.seed)
        assert entry.key == made
        assert entry.task in TASKS
        assert entry.split == TASKS[entry.task].split
        assert (entry.test is None) == (entry.bootstrap is None) == (entry.purpose != "seed")
