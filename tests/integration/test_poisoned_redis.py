"""Whoever may write to Redis writes whatever they like: it is refused, named, and loses nothing.

A coordinator and a worker go on with all the other units, and with the spoiled one too as soon as
the coordinator has written it anew.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, cast

import pytest
import redis
import structlog
from fix_servers import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_shop import ORDERS, STREAM, Shop
from test_reconciler import Fleet, settings_of

import warp.leases.redis as ledgers
from coordinator.leader import LEADER, Leadership
from warp.errors import LedgerUnavailable
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import KEYS, LONGEST_ID, RedisLeaseStore
from warp.metrics import ERRORS, LEDGER_WIPES
from warp.model import Lease, Phase, TableId, UnitKind, WorkUnit
from warp.own_process import wait_until

TTL: Final = 1.0
STORED: Final = KEYS[:-1]  # the last is a channel
POLL: Final = WorkUnit.poll("shop", ORDERS)
GARBAGE: Final[tuple[bytes, ...]] = (
    b"",
    b"\xff\xfe\x00",
    b"nan",
    b"-inf",
    b"1e300",
    b"-" + b"9" * 400,
    b"[" * 100_000,
    pickle.dumps({"unit": "stream:shop"}),
    b"x" * (4 << 20),
)


class Evil:
    """Would tell of being unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


@pytest.fixture
def client(redis_server: Server) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def ledger(redis_server: Server, redis_namespace: str) -> Iterator[RedisLeaseStore]:
    store = RedisLeaseStore(redis_server.url, redis_namespace)
    yield store
    store.close()


def key(ledger: RedisLeaseStore, name: str) -> str:
    return ledger.keys[KEYS.index(name)]


def claimed(ledger: RedisLeaseStore, worker: str = "one") -> set[str]:
    return {lease.unit.id for lease in ledger.claim(worker, 10, ttl=TTL, slots=10)}


# -- a fleet goes on


@pytest.fixture
def fleet(ledger: RedisLeaseStore) -> Iterator[Fleet]:
    shop = Shop()
    fleet = Fleet(shop, settings_of("shop"), cast("MemoryLeaseStore", ledger))
    yield fleet
    fleet.reconciler.close()


def spoil(client: Any, ledger: RedisLeaseStore, name: str, round_: int) -> None:
    """Another type where nobody's call could work any more; else other content."""
    where, kind = key(ledger, name), client.type(key(ledger, name))
    if round_ == 0 or kind in (b"string", b"none"):
        with client.pipeline() as together:
            together.delete(where)
            together.rpush(where, pickle.dumps(Evil()), b"\xff")
            together.execute()
    elif kind == b"hash":
        for field in (STREAM.id, *client.hkeys(where)):
            client.hset(where, field, pickle.dumps(Evil()))
    elif kind == b"zset":
        client.zadd(where, {STREAM.id: float("inf"), b"\xff\x00": 0, "stream:elsewhere": 1})
    else:
        client.sadd(where, b"\xff\x00", "stream:elsewhere")


@pytest.mark.holds(guarantee=7, source="none", destination="pretended", fault="a stranger in Redis")
def test_rows_arrive_whatever_was_written_into_any_key(
    fleet: Fleet, ledger: RedisLeaseStore, client: Any
) -> None:
    shop = fleet.shop
    ids = iter(range(1_000))
    with fleet.worker(), structlog.testing.capture_logs() as logs:

        def a_row_arrives() -> None:
            name = f"row {(number := next(ids))}"
            shop.database.put(ORDERS, id=number, name=name)

            def arrived() -> bool:
                fleet.reconciler._guarded_round()
                ledger.mend()  # what a coordinator does once a minute
                return name in shop.names()

            assert wait_until(arrived, 30)

        a_row_arrives()
        for round_ in range(2):
            for name in STORED:
                spoil(client, ledger, name, round_)
                a_row_arrives()
    assert len(shop.names()) == next(ids)
    assert shop.phase(STREAM) is Phase.STREAMING  # nobody stopped it for good
    known = {ORDERS, None}
    assert {
        m.unit.table for m in shop.warehouse.markers.values()
    } == known  # no unit of a stranger's
    told = [line for line in logs if line["event"] == "ledger_mended"]
    assert told
    assert all(line["log_level"] == "error" for line in told)


def test_a_ledger_that_begins_anew_is_counted_as_wiped(
    fleet: Fleet, ledger: RedisLeaseStore, client: Any
) -> None:
    fleet.rounds(2)
    client.delete(key(ledger, "exp"))
    client.set(key(ledger, "exp"), b"\x80\x04N.")
    with pytest.raises(LedgerUnavailable, match=r"WRONGTYPE"):
        claimed(ledger)
    fleet.rounds(1)
    assert fleet.meters.counter(LEDGER_WIPES, ())._value.get() == 1
    assert claimed(ledger) == {u.unit.id for u in ledger.units()}


def test_a_fence_is_never_issued_twice_though_the_ledger_begins_anew(
    ledger: RedisLeaseStore, client: Any
) -> None:
    ledger.ensure([STREAM])
    [old] = ledger.claim("one", 1, ttl=TTL, slots=1)
    client.hset(key(ledger, "fence"), STREAM.id, ahead := old.fence + 10**9)
    client.set(key(ledger, "own"), "x")
    assert ledger.mend()[:2] == ["begun anew", "own"]
    assert ledger.units() == []
    ledger.ensure([STREAM])
    [new] = ledger.claim("one", 1, ttl=TTL, slots=1)
    assert new.fence == ahead + 1


# -- one unit's numbers break nobody's call


HASHES: Final = ("own", "fence", "since", "again", "tries", "spec", "cap", "held", "rss")


def call_everything(ledger: RedisLeaseStore) -> None:
    ledger.renew("one", [], ttl=TTL, slots=10)
    for lease in ledger.claim("one", 10, ttl=TTL, slots=10):
        ledger.renew("one", [lease], ttl=TTL, slots=10)
        ledger.release(lease, failed=True)
    ledger.ensure([STREAM, POLL])
    ledger.offer(POLL, delay=5)
    ledger.refence(Lease(STREAM, "one", 1), 1)
    ledger.drain("two")
    ledger.stats()
    ledger.units()
    ledger.workers()


@pytest.mark.parametrize("name", HASHES)
def test_garbage_in_a_hash_breaks_no_call(ledger: RedisLeaseStore, client: Any, name: str) -> None:
    for garbage in GARBAGE:
        ledger.ensure([STREAM, POLL])
        for lease in ledger.claim("one", 10, ttl=TTL, slots=10):
            client.zadd(key(ledger, "exp"), {lease.unit.id: 0})  # it is over
        for field in (STREAM.id, "one", "a ghost"):
            client.hset(key(ledger, name), field, garbage)
        call_everything(ledger)
        ledger.mend()
        client.hdel(key(ledger, "tries"), STREAM.id, POLL.id)
        for each in (STREAM, POLL):
            ledger.withdraw([each.id])


@pytest.mark.parametrize("name", ["due", "later", "exp", "workers", "dead"])
@pytest.mark.parametrize("score", [float("inf"), float("-inf"), 9e15, -9e15])
def test_no_score_keeps_a_unit_from_being_claimed_for_ever(
    ledger: RedisLeaseStore, client: Any, name: str, score: float
) -> None:
    ledger.ensure([STREAM])
    for other in ("due", "later", "exp"):
        client.zrem(key(ledger, other), STREAM.id)
    client.zadd(key(ledger, name), {STREAM.id: score})
    call_everything(ledger)
    ledger.mend()

    def is_claimed() -> bool:
        client.zadd(key(ledger, "later"), {STREAM.id: 0}, xx=True)  # held back as after a failure
        ledger.revive(STREAM.id)
        ledger.ensure([STREAM])
        return STREAM.id in claimed(ledger, "three")

    assert wait_until(is_claimed, 10)


@pytest.mark.parametrize(
    ("name", "hardened", "broken"),
    [
        (
            "tries",
            "local found = tonumber(text)",
            "if text then return tonumber(text) end local found = nil",
        ),
        ("exp", "redis.call('ZADD', EXP, now, unit)", "local nothing"),
    ],
)
def test_scripts_that_believe_what_is_stored_break_for_everybody(
    ledger: RedisLeaseStore,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    hardened: str,
    broken: str,
) -> None:
    """The broken twin of the two tests above."""
    whole = ledgers._script

    @cache
    def script(name: str) -> tuple[str, str]:
        text = whole(name)[1]
        text = text.replace(hardened, broken)
        return hashlib.sha1(text.encode()).hexdigest(), text

    monkeypatch.setattr(ledgers, "_script", script)
    ledger.ensure([STREAM, POLL])
    ledger.claim("gone", 1, ttl=TTL, slots=1)
    if name == "exp":
        for unit in (STREAM, POLL):
            client.zrem(key(ledger, "due"), unit.id)
            client.zadd(key(ledger, "exp"), {unit.id: 9e15})
        ledger.mend()
        assert claimed(ledger) == set()
        return
    for unit in (STREAM, POLL):
        client.hset(key(ledger, "tries"), unit.id, "many")
        client.zadd(key(ledger, "exp"), {unit.id: 0}, xx=True)
    with pytest.raises(LedgerUnavailable):
        claimed(ledger)


def test_a_worker_that_seems_to_hold_more_than_it_does_is_asked_for_nothing_once_that_is_mended(
    ledger: RedisLeaseStore, client: Any
) -> None:
    ledger.ensure([STREAM])
    leases = ledger.claim("one", 1, ttl=60, slots=10)
    client.hset(key(ledger, "held"), "one", 500)
    client.hset(key(ledger, "cap"), "a ghost", 1_000_000)
    client.sadd(key(ledger, "demand"), *(f"ghost {n}" for n in range(100)))
    assert ledger.renew("one", leases, ttl=60, slots=10)[0] > 0
    assert ledger.mend() == ["cap", "held", "demand"]
    assert ledger.renew("one", leases, ttl=60, slots=10) == (0, [True])
    assert (ledger.stats().demand, ledger.stats().capacity) == (1, 10)
    assert ledger.mend() == []


# -- what a unit is said to be


def spec(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


@pytest.mark.parametrize(
    "stored",
    [
        spec(kind="leader", schema="shop"),
        spec(kind="stream", schema="other"),
        spec(kind="stream", schema="shop", table=["shop", "orders"]),
        spec(kind="poll", schema="shop", table=["shop", "secret"]),
        spec(kind="table", schema="shop"),
        spec(kind="__import__('os').system", schema="shop"),
        pickle.dumps(Evil()),
        b'{"kind":' * 5_000,
        b'{"kind":"stream","schema":"shop","more":"' + b"x" * (8 << 20) + b'"}',
    ],
)
def test_a_unit_that_is_another_than_its_id_says_is_refused_until_it_is_written_anew(
    fleet: Fleet, ledger: RedisLeaseStore, client: Any, stored: bytes
) -> None:
    refused: list[str] = []
    ledger.on_refused = lambda error: refused.append(str(error))
    fleet.rounds(2)
    client.hset(key(ledger, "spec"), STREAM.id, stored)
    assert STREAM.id not in claimed(ledger)
    [told] = refused
    assert told.startswith(f"WARP-710 {STREAM.id}:")
    assert len(told) < 300
    fleet.rounds(1)
    client.zadd(key(ledger, "later"), {STREAM.id: 0}, xx=True)  # as if it had waited its second
    assert wait_until(lambda: STREAM.id in claimed(ledger), 10)
    assert fleet.shop.phase(STREAM) is Phase.STREAMING


def test_a_unit_nobody_configured_is_forgotten_by_the_next_round(
    fleet: Fleet, ledger: RedisLeaseStore, client: Any
) -> None:
    strangers = (
        *(b"\xff\x00", b"x" * (LONGEST_ID + 1), "stream:elsewhere", "leader", "what is it?"),
        *(f"chunk:elsewhere:a.b:0:{n}" for n in range(3)),
    )
    client.zadd(key(ledger, "due"), dict.fromkeys(strangers, 0))
    client.hset(key(ledger, "spec"), "stream:elsewhere", spec(kind="stream", schema="elsewhere"))
    client.hset(key(ledger, "spec"), "leader", spec(kind="leader", schema=""))
    for lease in ledger.claim("one", 100, ttl=TTL, slots=100):
        ledger.release(lease)
    fleet.rounds(3)
    assert {u.unit.schema for u in ledger.units()} == {"shop"}


def test_a_table_nobody_configured_is_not_even_given_a_marker(
    fleet: Fleet, ledger: RedisLeaseStore
) -> None:
    secret = WorkUnit.poll("shop", TableId("shop", "secret"))
    fleet.rounds(2)
    ledger.ensure([secret])
    with structlog.testing.capture_logs() as logs, fleet.worker():
        assert wait_until(
            lambda: any(line["event"] == "table_not_configured_here" for line in logs), 10
        )
    assert secret.id not in fleet.shop.warehouse.markers


def test_a_refused_unit_is_counted(fleet: Fleet, ledger: RedisLeaseStore, client: Any) -> None:
    ledger.on_refused = fleet.meters.table("", None).error
    client.zadd(key(ledger, "due"), {"what is it?": 0})
    assert claimed(ledger) == set()
    assert fleet.meters.counter(ERRORS, ("", "", "*", "unit_refused"))._value.get() == 1


# -- leadership


@pytest.fixture
def leader(ledger: RedisLeaseStore) -> Leadership:
    return Leadership(ledger, "c1", ttl=TTL)


def test_another_unit_is_no_leadership(
    leader: Leadership, ledger: RedisLeaseStore, client: Any
) -> None:
    assert ledger.ensure([LEADER]) == 1
    [rival] = ledger.claim("c2", 1, ttl=60, slots=1)
    ledger.ensure([STREAM])
    leader.step()
    assert not leader.leading
    assert ledger.release(rival)
    leader.step()
    assert leader.leading


@pytest.mark.parametrize("poison", [{"spec": b"?"}, {"tries": b"99"}])
def test_leadership_is_never_set_aside_for_good(
    leader: Leadership, ledger: RedisLeaseStore, client: Any, poison: dict[str, bytes]
) -> None:
    ledger.ensure([LEADER])
    for name, stored in poison.items():
        client.hset(key(ledger, name), LEADER.id, stored)
    ledger.claim("c2", 1, ttl=TTL, slots=1)
    client.zadd(key(ledger, "exp"), {LEADER.id: 0}, xx=True)

    def leads() -> bool:
        leader.step()
        client.zadd(key(ledger, "later"), {LEADER.id: 0}, xx=True)
        return leader.leading

    assert wait_until(leads, 10)


# -- anything at all


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(HASHES),
    stored=st.binary(max_size=40)
    | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")),
    score=st.floats(allow_nan=False),
    state=st.sampled_from(("due", "later", "exp", "dead")),
)
def test_no_bytes_and_no_score_break_a_call(
    ledger: RedisLeaseStore, client: Any, name: str, stored: bytes, score: float, state: str
) -> None:
    ledger.ensure([STREAM, POLL])
    client.zadd(key(ledger, state), {STREAM.id: score})
    client.hset(key(ledger, name), STREAM.id, stored)
    client.hset(key(ledger, name), "one", stored)
    call_everything(ledger)
    assert all(u.unit.kind in UnitKind for u in ledger.units())
