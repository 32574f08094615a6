"""What the simulation stands on keeps the contracts that the real servers keep."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_redis import RedisConnection, ScriptedRedis

from warp.interfaces import LeaseStore
from warp.leases.redis import RedisLeaseStore
from warp.machine import THIS_MACHINE
from warp.testing.fake_redis import FakeTime
from warp.testing.lease_contract import LeaseStoreContract


class TestScriptedLedger(LeaseStoreContract):
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        self.clock = FakeTime()
        self.server = ScriptedRedis(self.clock.time)

    def make(self) -> LeaseStore:
        client: Any = RedisConnection(self.server, THIS_MACHINE)
        return RedisLeaseStore(client, "test")

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)

    def wipe(self) -> None:
        self.server.wipe()
