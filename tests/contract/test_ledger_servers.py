"""The ledger's contract on real servers, in cluster mode, and with the fewest rights."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from redis.exceptions import NoPermissionError

from warp.errors import LedgerUnavailable
from warp.interfaces import LeaseStore
from warp.leases.redis import RedisLeaseStore
from warp.model import WorkUnit
from warp.own_process import wait_until
from warp.testing.lease_contract import STREAM, TTL, LeaseStoreContract, age_redis, streams
from warp.testing.servers import RedisServer

DOCUMENTATION = Path(__file__).parents[2] / "docs/operations/redis.md"
USER, PASSWORD = "cartridge-warp", secrets.token_hex(8)


def documented(block: str) -> str:
    """The text of a fenced block of the operations page."""
    [found] = re.findall(rf"^```{block}\n(.*?)\n```$", DOCUMENTATION.read_text(), re.M | re.S)
    return str(found)


def documented_user(*, cluster: bool = False) -> str:
    rights = documented("acl").replace("CHANGE-ME", PASSWORD)
    return f"{rights} {documented('acl-cluster')}" if cluster else rights


class OnAServer(LeaseStoreContract):
    """Everything runs in a fresh namespace of one server per class, as `url` may see it."""

    server: ClassVar[RedisServer]

    @classmethod
    def start(cls) -> RedisServer:
        raise NotImplementedError

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with cls.start() as cls.server:
            yield

    @pytest.fixture(autouse=True)
    def _fresh(self, _server: None) -> Iterator[None]:
        self.namespace = self.choose_namespace()
        with self.server.client() as self.admin:
            self.admin.flushall()
            yield

    def choose_namespace(self) -> str:
        return f"t{secrets.token_hex(4)}"

    def url(self) -> str:
        return self.server.url

    def make(self) -> LeaseStore:
        return RedisLeaseStore(self.url(), self.namespace, lease_ttl=TTL)

    def pass_time(self, seconds: float) -> None:
        age_redis(self.admin, self.namespace, seconds)

    def wipe(self) -> None:
        self.admin.flushall()


class TestOnRedis6(OnAServer):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis6")


@pytest.mark.soak  # the same server with fewer rights is below
class TestOnRedis7(OnAServer):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis7")


@pytest.mark.soak  # the same server with fewer rights is below
class TestOnValkey(OnAServer):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("valkey")


@pytest.mark.soak  # the same server with fewer rights is below
class TestOnACluster(OnAServer):
    """Refuses a script that touches a key it did not declare, or keys of two slots."""

    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis7", cluster=True)

    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.server.port}"


class WithMinimalRights(OnAServer):
    def choose_namespace(self) -> str:
        return "prod"  # as the page has it

    def url(self) -> str:
        return f"redis://{USER}:{PASSWORD}@127.0.0.1:{self.server.port}/0"

    def connect(self) -> redis.Redis:
        return redis.Redis(port=self.server.port, username=USER, password=PASSWORD)

    @pytest.mark.parametrize(
        "command",
        [
            *("FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "ACL WHOAMI", "MONITOR"),
            *("GET rq:queues", "SET foreign 1", "GET cw:{other}:gen", "DEL cw:{other}:due"),
            *("SCRIPT FLUSH", "SUBSCRIBE cw:{other}:bell", "PUBLISH elsewhere x", "SAVE"),
        ],
    )
    def test_all_else_is_denied(self, command: str) -> None:
        with self.connect() as client, pytest.raises(NoPermissionError):
            client.execute_command(*command.split())

    def test_all_else_is_denied_inside_a_script_too(self) -> None:
        with self.connect() as client:
            for call in ("'FLUSHALL'", "'GET', 'foreign'", "'SET', 'cw:{other}:gen', '1'"):
                with pytest.raises(redis.ResponseError, match=r"(?i)can.t (run|access)|permission"):
                    client.eval(f"return redis.call({call})", 0)

    def test_the_leader_s_namespace_is_allowed(self) -> None:
        lead = RedisLeaseStore(self.url(), "prod.lead")
        assert lead.ensure([STREAM]) == 1
        lead.close()

    def test_another_namespace_is_unavailable_in_words_without_the_password(self) -> None:
        other = RedisLeaseStore(self.url(), "other")
        with pytest.raises(LedgerUnavailable, match=rf"127\.0\.0\.1:{self.server.port}") as error:
            other.ensure([WorkUnit.stream("shop")])
        assert PASSWORD not in repr(error.value) + str(error.value)
        other.close()


class TestWithMinimalRightsOnRedis6(WithMinimalRights):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis6", users=[documented_user()])


class TestWithMinimalRightsOnRedis7(WithMinimalRights):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis7", users=[documented_user()])


class TestWithMinimalRightsOnValkey(WithMinimalRights):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("valkey", users=[documented_user()])


class TestWithMinimalRightsOnACluster(WithMinimalRights):
    @classmethod
    def start(cls) -> RedisServer:
        return RedisServer("redis7", cluster=True, users=[documented_user(cluster=True)])

    def url(self) -> str:
        return f"redis+cluster://{USER}:{PASSWORD}@127.0.0.1:{self.server.port}"


class TestATroubledServer:
    """Nothing is sent twice, nothing hangs, and everything works again afterwards."""

    @pytest.fixture(params=["redis", "redis+cluster"])
    def server(
        self, request: pytest.FixtureRequest, start_server: Callable[[RedisServer], RedisServer]
    ) -> RedisServer:
        self.scheme = request.param
        return start_server(RedisServer("redis7", cluster=self.scheme != "redis"))

    @pytest.fixture
    def ledger(self, server: RedisServer) -> Iterator[RedisLeaseStore]:
        url = f"{self.scheme}://127.0.0.1:{server.port}"
        ledger = RedisLeaseStore(url, "test", lease_ttl=TTL)
        yield ledger
        ledger.close()

    def test_a_claim_whose_answer_comes_too_late_happens_once(self, server: RedisServer) -> None:
        url = f"{self.scheme}://127.0.0.1:{server.port}"
        assert (
            self.leased_by_one_slow_claim(server, RedisLeaseStore(url, "test", lease_ttl=1.5)) == 1
        )

    @pytest.mark.parametrize("server", ["redis"], indirect=True)
    def test_redis_py_as_it_comes_claims_again_behind_our_back(self, server: RedisServer) -> None:
        """The broken twin of the test above: what our connections are set up to avoid."""
        client = redis.Redis(port=server.port, socket_timeout=0.3)
        assert self.leased_by_one_slow_claim(server, RedisLeaseStore(client, "test")) > 1
        client.close()

    def leased_by_one_slow_claim(self, server: RedisServer, ledger: RedisLeaseStore) -> int:
        """The server stands still for longer than the client's patience of 0.3 s."""
        ledger.ensure(streams(5))
        ledger.claim("one", 0, ttl=TTL, slots=5)  # the script is there, so that the claim runs
        server.pause()
        resumption = threading.Timer(0.5, server.resume)
        resumption.start()
        with contextlib.suppress(LedgerUnavailable):
            ledger.claim("one", 1, ttl=TTL, slots=5)
        resumption.join()
        assert wait_until(lambda: self.leased(ledger) > 0, 10)
        leased = self.leased(ledger)
        ledger.close()
        return leased

    def test_a_server_that_stands_still_is_unavailable_before_the_lease_is_over(
        self, server: RedisServer, ledger: RedisLeaseStore
    ) -> None:
        ledger.ensure([STREAM])
        server.pause()
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=f":{server.port}"):
            ledger.renew("one", [], ttl=TTL, slots=5)
        # A cluster's client asks once more where the slots are.
        assert time.monotonic() - began < TTL * 0.8

    @staticmethod
    def leased(ledger: RedisLeaseStore) -> int:
        try:
            return ledger.stats().leased
        except LedgerUnavailable:
            return -1

    def test_a_restarted_server_is_another_incarnation_and_takes_units_again(
        self, server: RedisServer, ledger: RedisLeaseStore
    ) -> None:
        ledger.ensure([STREAM])
        [old] = ledger.claim("one", 1, ttl=TTL, slots=1)
        before = ledger.incarnation()
        server.kill9()
        for _ in range(3):
            with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1"):
                ledger.renew("one", [old], ttl=TTL, slots=1)
        server.start()
        assert wait_until(lambda: self.leased(ledger) == 0, 10)
        assert ledger.incarnation() != before
        assert ledger.renew("one", [old], ttl=TTL, slots=1) == (0, [False])
        ledger.ensure([STREAM])
        [new] = ledger.claim("one", 1, ttl=TTL, slots=1)
        assert new.fence > old.fence

    def test_a_wait_without_a_server_is_a_sleep_and_the_bell_comes_back(
        self, server: RedisServer, ledger: RedisLeaseStore
    ) -> None:
        ledger.wait(0.01)
        server.kill9()
        began = time.monotonic()
        for _ in range(3):
            ledger.wait(0.05)
        assert 0.15 <= time.monotonic() - began < TTL / 2
        server.start()

        def heard() -> bool:
            ledger.wait(0.01)
            try:
                ledger.ensure([STREAM])
                ledger.withdraw([STREAM.id])
                ledger.ensure([STREAM])
            except LedgerUnavailable:
                return False
            asked = time.monotonic()
            ledger.wait(5)
            return time.monotonic() - asked < 4

        assert wait_until(heard, 30)

    def test_a_server_that_was_never_there_is_unavailable_at_the_first_call(
        self, server: RedisServer, ledger: RedisLeaseStore
    ) -> None:
        server.kill9()
        with pytest.raises(LedgerUnavailable, match=f"127.0.0.1:{server.port}"):
            ledger.stats()
