"""What a store says is on trial beside its current version: put there, ended, promoted, looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.trial.candidate import CANDIDATE, Candidate, CandidateError, read_candidate
from service.versions.store import Store, StoreError, describe_bundle, is_store

if TYPE_CHECKING:
    from pathlib import Path

    from service.versions.store import Deployed

__all__ = ["candidate_of", "end_trial", "on_trial", "promote", "put_on_trial"]


def on_trial(path: Path) -> tuple[Candidate, Deployed] | None:
    """What is on trial beside what is to be served; None where nothing is, or it is current already.

    Args:
        path: A store, or a bundle, beside which nothing can be tried.

    Raises:
        StoreError: What says so cannot be read as that, or names no version.
        BundleError: The version's manifest cannot be read as one.
        OSError: A file cannot be read.
    """
    if not is_store(path):
        return None
    store = Store(path)
    candidate = candidate_of(store)
    if candidate is None or candidate.name == store.current():
        return None
    return candidate, describe_bundle(store.path(candidate.name))


def candidate_of(store: Store) -> Candidate | None:
    """What is on trial.

    Raises:
        StoreError: What says so cannot be read as that.
        OSError: It cannot be read.
    """
    try:
        return read_candidate(store.root)
    except CandidateError as error:
        raise StoreError(str(error)) from None


def put_on_trial(store: Store, candidate: Candidate) -> None:
    """Have a version tried beside the current one, in place of whatever is tried now.

    Raises:
        StoreError: There is none of this name, or it is the current one.
    """
    from service.features.files import replaced_file  # noqa: PLC0415 - a supervisor loads no numpy

    store.path(candidate.name)
    with store.alone():
        if candidate.name == store.current():
            raise StoreError(f"{store.root}: expected a version that is not current, got {candidate.name!r}")
        with replaced_file(store.root / CANDIDATE) as staged:
            staged.write_bytes(candidate.document())


def end_trial(store: Store) -> str:
    """Have nothing tried any more; the name of the version that was, empty where nobody can tell.

    Raises:
        StoreError: None was.
    """
    from service.features.files import sync  # noqa: PLC0415 - a supervisor loads no numpy

    with store.alone():
        name = store.tried() or ""
        try:
            (store.root / CANDIDATE).unlink()
        except FileNotFoundError:
            raise StoreError(f"{store.root}: expected a version on trial, got none") from None
        sync(store.root)
    return name


def promote(store: Store) -> str:
    """Make the version on trial the current one, and return its name.

    Raises:
        StoreError: None is on trial.
    """
    candidate = candidate_of(store)
    if candidate is None:
        raise StoreError(f"{store.root}: expected a version on trial, got none")
    store.activate(candidate.name)  # first: a candidate that is current is none, so nobody sees it gone in between
    return end_trial(store)
