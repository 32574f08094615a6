"""The ledger's contract, on the in-memory reference and on the scripts in fakeredis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from warp.interfaces import LeaseStore
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import RedisLeaseStore
from warp.testing.fake_redis import FakeServer, FakeTime, fake_time
from warp.testing.lease_contract import LeaseStoreContract


class TestMemoryLedger(LeaseStoreContract):
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        self.clock = FakeTime()
        self.store = MemoryLeaseStore(clock=self.clock.time)

    def make(self) -> LeaseStore:
        return self.store

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)

    def wipe(self) -> None:
        self.store.wipe()


class TestLedgerScripts(LeaseStoreContract):
    @pytest.fixture(autouse=True)
    def _fresh(self) -> Iterator[None]:
        self.server = FakeServer()
        with fake_time() as self.clock:
            yield

    def make(self) -> LeaseStore:
        return RedisLeaseStore(self.server.client(), "test")

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)

    def wipe(self) -> None:
        self.server.wipe()
