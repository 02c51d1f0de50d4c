"""One server for the tests that do not change it; tests that do start their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from serving import HandModel, Server, build_bundle, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    build_bundle(path)
    return path


@pytest.fixture(scope="session")
def hand_model() -> HandModel:
    return HandModel()


@pytest.fixture(scope="session")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as connected:
        yield connected
