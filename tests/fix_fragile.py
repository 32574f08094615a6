"""Servers to kill and wipe, one set for all chaos tests: they run in one pytest-xdist worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Servers, servers


@pytest.fixture(scope="session")
def fragile() -> Iterator[Servers]:
    """Leave them running when you are done: kill them, wipe them, start them again."""
    with servers() as ours:
        yield ours
