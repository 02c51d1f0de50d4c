"""A store of versions: whole or not at all, one of them current, and a way back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import ROOT, build_bundle
from signatures import sign, write_public_key
from stores import build_store, flip
from typer.testing import CliRunner

from service.bundle_format.manifest import BundleFormatError
from service.counts.cells import SLOTS, Cells, shared_file, slot_prefix
from service.counts.slots import SlotTable
from service.versions.command import cli
from service.versions.store import Store, StoreError, deployed, fallbacks, is_store, served_bundle

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return build_store(tmp_path, "first", "second", "third")


def test_a_store_is_told_from_a_bundle_and_serves_its_current_version(store: Store, tmp_path: Path) -> None:
    assert is_store(store.root)
    assert not is_store(tmp_path / "first")
    assert served_bundle(tmp_path / "first") == tmp_path / "first"
    found = deployed(store.root)
    assert (found.version, found.model_id, found.path) == ("first", "first", store.path("first").resolve())
    assert fallbacks(store.root) == []
    store.activate("second")
    assert deployed(store.root).version == "second"
    assert [before.version for before in fallbacks(store.root)] == ["first"]
    assert store.prove("third")
    assert [before.version for before in fallbacks(store.root)] == ["first", "third"]
    assert store.prove("first")
    assert [before.version for before in fallbacks(store.root)] == ["first", "third"], "each once, and what was proven"
    assert fallbacks(tmp_path / "first") == []


def test_a_rollback_goes_back_and_another_one_forth(store: Store) -> None:
    with pytest.raises(StoreError, match=r"expected a version before 'first'.*, got none"):
        store.rollback()
    store.activate("second")
    store.activate("second")  # again: the version before is still the one before
    assert [store.rollback() for _ in range(3)] == ["first", "second", "first"]
    assert (store.current(), store.previous()) == ("first", "second")


def test_the_way_back_leads_to_the_last_proven_version_and_never_to_one_that_was_not(store: Store) -> None:
    assert store.prove("first")
    store.activate("second")
    store.activate("third")
    assert (store.current(), store.previous(), store.good()) == ("third", "second", "first")
    assert store.prune(1) == []
    assert store.rollback() == "first"
    with pytest.raises(StoreError, match=r"expected a version before 'first'.*, got none"):
        store.rollback()  # the one before was bad
    assert (store.current(), store.good()) == ("first", "first")


def test_a_second_rollback_leads_to_what_was_proven_before_and_is_never_pruned(store: Store) -> None:
    for name in ("first", "second"):
        store.activate(name)
        assert store.prove(name)
    store.activate("third")  # is bad
    assert store.prune(1) == []
    assert [store.rollback() for _ in range(2)] == ["second", "first"]
    assert store.prove("first")
    assert (store.good(), store.good_before()) == ("first", "second")
    assert store.rollback() == "second"


def test_a_full_disk_adds_nothing_and_says_so_in_one_line(store: Store, tmp_path: Path) -> None:
    words = ["-m", "service", "versions", "add", str(store.root), str(tmp_path / "first"), "--name=x", "--no-check"]
    done = subprocess.run(  # files of 512 bytes at most
        [str(shutil.which("sh")), "-c", 'ulimit -f 1; exec "$0" "$@"', sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert "nothing was added" in done.stderr
    assert sorted(path.name for path in (store.root / "versions").iterdir()) == ["first", "second", "third"]


def test_what_is_proven_is_noted_without_waiting_for_whoever_changes_the_store(store: Store) -> None:
    with store.alone():
        assert not store.prove("first")
    assert store.good() is None
    assert store.prove("first")
    with pytest.raises(StoreError, match="expected one of the versions"):
        store.prove("none")


def test_nothing_is_written_into_a_bundle(tmp_path: Path) -> None:
    root, other = tmp_path / "plain", tmp_path / "other"
    for path in (root, other):
        build_bundle(path)
    names = sorted(path.name for path in root.iterdir())
    for words in (("prune", root), ("rollback", root), ("end", root)):
        code, said = run(*words)
        assert (code, "expected a" in said) == (2, True)
    assert "got a bundle: it holds manifest.json" in run("add", root, other, "--name", "it", "--activate")[1]
    assert sorted(path.name for path in root.iterdir()) == names
    code, said = run("list", root)
    assert (code, "expected a store of versions, got a bundle" in said) == (2, True)
    code, said = run("list", tmp_path / "nope")
    assert (code, "expected a store of versions, got none" in said) == (2, True)


def test_whoever_looks_while_versions_change_sees_one_of_them(store: Store) -> None:
    import threading

    end = threading.Event()
    seen = set()

    def look() -> None:
        while not end.is_set():
            seen.add(deployed(store.root).version)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        store.activate("second")
        store.activate("first")
    end.set()
    thread.join()
    assert seen <= {"first", "second"}, "never none"


def test_a_version_that_is_there_or_has_no_plain_name_is_not_added(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a name that is not taken, got 'first'"):
        store.add(tmp_path / "first")
    for name in ("../out", ".hidden", "a/b", "", "x" * 200):
        with pytest.raises(StoreError, match="expected letters, digits"):
            store.add(tmp_path / "first", name)
    assert store.names() == ["first", "second", "third"]


def test_a_link_out_of_the_store_is_no_version(store: Store, tmp_path: Path) -> None:
    for target in (tmp_path / "second", store.root / "versions", tmp_path / "nothing"):
        (store.root / "current").unlink()
        (store.root / "current").symlink_to(target)
        with pytest.raises(StoreError, match="expected a current version, got none"):
            served_bundle(store.root)


def test_old_versions_are_removed_and_those_a_service_may_need_are_not(store: Store, tmp_path: Path) -> None:
    for number in range(4):
        shutil.copytree(tmp_path / "first", tmp_path / f"more-{number}")
        store.add(tmp_path / f"more-{number}", f"more-{number}")
    store.activate("second")
    assert store.prune(2) == ["third", "more-0", "more-1"]
    assert store.names() == ["first", "second", "more-2", "more-3"]
    assert sorted(entry.name for entry in (store.root / "versions").iterdir()) == sorted(store.names())


@pytest.mark.parametrize("what", ["pipe", "folder", "endless"])
def test_what_is_no_manifest_holds_nobody_up(store: Store, what: str) -> None:
    path = store.path("first") / "manifest.json"
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((BundleFormatError, OSError)):
        deployed(store.root)


def test_the_command_adds_lists_chooses_and_goes_back(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for name in ("one", "two"):
        build_bundle(tmp_path / name, model_id=name)
        code, said = run("add", root, tmp_path / name, "--activate")
        assert (code, said.splitlines()[-1]) == (0, f"added {name}, which is current now")
        assert "checked: 9 golden rows" in said
    assert [line[:5] for line in run("list", root)[1].splitlines()] == ["- one", "* two"]
    Store(root).prove("two")
    assert [line.endswith("  (last proven)") for line in run("list", root)[1].splitlines()] == [False, True]
    assert run("rollback", root) == (0, "current: one\n")
    assert run("activate", root, "two") == (0, "current: two\n")
    assert run("prune", root) == (0, "removed: none\n")
    code, said = run("activate", root, "three")
    assert code == 2
    assert "expected one of the versions ['one', 'two'], got 'three'" in said


def test_the_command_adds_nothing_that_a_service_would_refuse(tmp_path: Path) -> None:
    root, bundle = tmp_path / "store", tmp_path / "bundle"
    build_bundle(bundle)
    keys = write_public_key(tmp_path / "keys.pem")
    code, said = run("add", root, bundle, "--keys-file", keys)
    assert code == 2
    assert "expected a signature by a key of" in said
    sign(bundle)
    flip(bundle / "golden.jsonl")
    code, said = run("add", root, bundle, "--keys-file", keys)
    assert code == 2
    assert "expected SHA-256" in said
    flip(bundle / "golden.jsonl")
    assert run("add", root, bundle, "--keys-file", keys)[0] == 0
    assert Store(root).names() == ["tiny-1"]


def test_a_bundle_whose_check_hangs_or_crashes_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, bundle = tmp_path / "store", tmp_path / "bundle"
    build_bundle(bundle)
    code, said = run("add", root, bundle, "--check-seconds", 0.001)  # before any interpreter has begun
    assert (code, said) == (2, f"error: {bundle}: expected it checked within 0.001 s, got no answer\n")
    monkeypatch.setenv("PYTHONMALLOC", "nonsense")  # with which none begins
    code, said = run("add", root, bundle)
    assert (code, f"error: {bundle}: expected it checked, got exit status " in said) == (2, True)
    assert not root.exists()


def test_slots_of_counts_are_reused_and_a_version_that_comes_back_finds_its_own() -> None:
    cells = Cells(1, None, descriptor=shared_file(1))
    table = SlotTable(cells)
    first, label = table.take("m0", "model", set())
    assert label == "model"
    cell = cells.take(f"{slot_prefix(first)}scored", 1)
    cells.values[cell] = 5.0
    others = [table.take(f"m{number}", "model", {first}) for number in range(1, SLOTS)]
    assert {first, *(slot for slot, _ in others)} == set(range(SLOTS))
    assert len({"model", *(label for _, label in others)}) == SLOTS, "no two series of one name"
    assert table.take("m0", "model", {first}) == (first, "model")
    assert cells.values[cell] == 5.0
    reused, _ = table.take("new", "other", {first})
    assert reused == others[0][0], "the one that was not asked for the longest"
    for number in range(50):  # memory stays what it is
        table.take(f"n{number}", f"n{number}", {first})
    assert cells.values[cell] == 5.0
    taken, _ = table.take("last", "last", set())
    for number in range(SLOTS):
        table.take(f"z{number}", "z", set())
    assert cells.values[cell] == 0.0, "emptied for another model"
    with pytest.raises(MemoryError, match="expected at most 8 versions"):
        table.take("one too many", "m", set(range(SLOTS)))
    assert taken in range(SLOTS)
