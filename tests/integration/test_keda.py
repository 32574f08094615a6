"""What KEDA reads of the ledger is the number that we show and scale by."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import redis
from fix_servers import Server
from least_rights import blocks
from redis.exceptions import NoPermissionError

from coordinator.watch import readings
from warp.leases.redis import RedisLeaseStore
from warp.model import Chunk, TableId, WorkUnit
from warp.testing.servers import RedisServer

# KEDA 2.17, pkg/scalers/redis_scaler.go (Apache-2.0, The KEDA Authors): its own words, since which
# commands it needs of a restricted user and what it makes of a set is what this test asks.
KEDA_LENGTH = """
		local listName = KEYS[1]
		local listType = redis.call('type', listName).ok
		local cmd = {
			zset = 'zcard',
			set = 'scard',
			list = 'llen',
			hash = 'hlen',
			none = 'llen'
		}

		return redis.call(cmd[listType], listName)
	"""
ORDERS = TableId("shop", "orders")


@pytest.fixture
def ledger(redis_server: Server, redis_namespace: str) -> Iterator[RedisLeaseStore]:
    store = RedisLeaseStore(redis_server.url, redis_namespace)
    yield store
    store.close()


def keda(client: redis.Redis, namespace: str) -> int:
    return int(client.eval(KEDA_LENGTH, 1, f"cw:{{{namespace}}}:demand"))


def test_keda_counts_what_queue_size_shows(
    redis_server: Server, redis_namespace: str, ledger: RedisLeaseStore
) -> None:
    def shown() -> float:
        found = readings((), ledger.units(), database="shop", reached={}, now=0.0)
        return sum(found.queue.values())

    with redis.Redis.from_url(redis_server.url) as client:
        counts = [(keda(client, redis_namespace), shown())]  # before there is any key
        chunks = [WorkUnit.of_chunk("shop", Chunk(ORDERS, n, str(n), None, 1), 0) for n in range(5)]
        ledger.ensure([WorkUnit.stream("shop"), *chunks])
        counts.append((keda(client, redis_namespace), shown()))
        first, second, third = ledger.claim("w", 3, ttl=60.0, slots=3)
        counts.append((keda(client, redis_namespace), shown()))
        ledger.release(first, delay=None)  # done
        ledger.release(second, delay=600.0)  # not before a time
        ledger.release(third)  # given back
        ledger.offer(WorkUnit.poll("shop", ORDERS), delay=600.0)
        counts.append((keda(client, redis_namespace), shown()))
    assert [keda for keda, _ in counts] == [0, 6, 6, 4]
    assert all(keda == shown for keda, shown in counts)


def test_the_documented_user_of_keda_may_count_and_nothing_else() -> None:
    [rights] = blocks("deployment/kubernetes.md", "acl-keda")
    password = secrets.token_hex(8)
    with RedisServer() as server:
        ledger = RedisLeaseStore(server.url, "prod")
        ledger.ensure([WorkUnit.stream("shop"), WorkUnit.stream("other")])
        ledger.close()
        with server.client() as admin:
            words = rights.replace("CHANGE-ME", password).split()
            admin.execute_command("ACL", "SETUSER", *words[1:])
        with redis.Redis(port=server.port, username="keda", password=password) as client:
            assert client.ping()
            assert keda(client, "prod") == 2
            for command in ("FLUSHALL", "GET cw:{prod}:gen", "SADD cw:{prod}:demand x"):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command.split())
