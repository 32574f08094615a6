"""What the Redis ledger does with input it must not trust: stored units, URLs, other clients."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from warp.errors import ConfigError, LedgerUnavailable, UnitRefused
from warp.leases import spec
from warp.leases.redis import KEYS, RedisLeaseStore
from warp.model import Chunk, TableId, UnitKind, WorkUnit
from warp.testing.fake_redis import FakeServer, fake_time
from warp.testing.lease_contract import ORDERS, POLL, STREAM, TTL, streams


@pytest.fixture
def client() -> Iterator[Any]:
    with fake_time():
        yield FakeServer().client()


@pytest.fixture
def ledger(client: Any) -> RedisLeaseStore:
    return RedisLeaseStore(client, "test")


GOOD: dict[str, Any] = {"kind": "stream", "schema": "shop"}
CHUNK: dict[str, Any] = {"number": 1, "lower": None, "upper": "[7]", "rows": 10}


@pytest.mark.parametrize(
    "stored",
    [
        *(b"", b"\x80\x04K\x01.", b"{", b"[]", b"null", b"12", b"\xff\xfe", b"{}" * 40_000),
        *(json.dumps(GOOD | {"kind": kind}).encode() for kind in ("rq", "table", "", 1, None)),
        *(json.dumps(GOOD | {"schema": schema}).encode() for schema in (None, 3, ["shop"])),
        json.dumps({"schema": "shop"}).encode(),
        json.dumps(GOOD | {"schema": "other"}).encode(),
        *(
            json.dumps(GOOD | {"table": table}).encode()
            for table in ("shop.orders", [], ["shop"], ["shop", 1], {"a": "b"}, None)
        ),
        json.dumps(GOOD | {"chunk": CHUNK}).encode(),
        json.dumps({**GOOD, "kind": "chunk", "table": ["shop", "orders"]}).encode(),
        *(
            json.dumps(
                {"kind": "chunk", "schema": "shop", "table": ["shop", "o"], "chunk": chunk}
            ).encode()
            for chunk in (None, {}, CHUNK | {"number": "1"}, CHUNK | {"upper": 7}, [1, 2])
        ),
    ],
)
def test_a_poisoned_unit_is_held_back_and_the_others_are_claimed(
    ledger: RedisLeaseStore, client: Any, stored: bytes
) -> None:
    ledger.ensure([STREAM, POLL])
    client.hset(ledger.keys[KEYS.index("spec")], STREAM.id, stored)
    with structlog.testing.capture_logs() as logs:
        leases = ledger.claim("one", 10, ttl=TTL, slots=10)
    assert [lease.unit for lease in leases] == [POLL]
    assert [(line["event"], line["unit"]) for line in logs] == [("unit_refused", STREAM.id)]
    assert {u.unit.id: u.state for u in ledger.units()} == {STREAM.id: "later", POLL.id: "leased"}
    assert [w.held for w in ledger.workers()] == [1]


@pytest.mark.parametrize("id", [b"\xff\x00", b"x" * 5_000])
def test_a_unit_with_an_id_that_cannot_be_ours_is_forgotten(
    ledger: RedisLeaseStore, client: Any, id: bytes
) -> None:
    client.zadd(ledger.keys[KEYS.index("due")], {id: 0})
    assert ledger.claim("one", 10, ttl=TTL, slots=10) == []
    assert ledger.units() == []


TEXT = st.text(max_size=12)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from([*UnitKind, "rq", ""]) | ANY_JSON,
        "schema": st.sampled_from(["shop", ""]) | ANY_JSON,
        "table": st.lists(TEXT, min_size=2, max_size=2) | ANY_JSON,
        "chunk": ANY_JSON
        | st.fixed_dictionaries(dict.fromkeys(CHUNK, ANY_JSON), optional={"more": ANY_JSON}),
    },
)


@given(
    id=st.sampled_from(["stream:shop", "leader", "chunk:shop:shop.o:0:1", ""]) | TEXT,
    stored=st.binary(max_size=60) | (ANY_JSON | PARTS).map(lambda j: json.dumps(j).encode()),
)
def test_whatever_is_stored_is_a_unit_or_is_refused(id: str, stored: bytes) -> None:
    try:
        unit = spec.decode(id, stored)
    except UnitRefused:  # and nothing else is raised
        return
    assert unit.id == id
    assert spec.decode(id, spec.encode(unit)) == unit
    if unit.chunk is not None:
        assert int(id.rsplit(":", 1)[1]) == unit.chunk.number


@pytest.mark.parametrize(
    "unit",
    [
        STREAM,
        POLL,
        WorkUnit.of_replay("shop", ORDERS),
        WorkUnit.of_verification("shop", Chunk(ORDERS, 3), 1_790_000_000_000),
        WorkUnit.stream('quo"ted {brace} ünï'),
        WorkUnit("leader", UnitKind.LEADER, ""),
        WorkUnit.of_chunk("a:b", Chunk(TableId("a:b", "c.d"), 0), 3),
        WorkUnit.of_chunk("shop", Chunk(ORDERS, 7, '["a\\n"]', None, 5), 0),
    ],
)
def test_a_unit_survives_being_stored(unit: WorkUnit) -> None:
    assert spec.decode(unit.id, spec.encode(unit)) == unit


# ---------------------------------------------------------------- the client


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2/@host:6379/0",
        "http://user:hunter2@host",
        "redis://:hunter2@host:port",
        "redis+cluster:/hunter2",
        "redis://host?socket_timeout=hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_an_error_without_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as error:
        RedisLeaseStore(url, "test")
    assert "hunter2" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("namespace", ["", "a b", "a{b}", "x" * 65, "a:b", "a\n"])
def test_a_namespace_that_would_break_the_hash_tag_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        RedisLeaseStore("redis://localhost", namespace)


@pytest.mark.holds(guarantee=10, source="none", destination="pretended", fault="planted passwords")
def test_an_unreachable_server_is_named_and_its_password_is_not() -> None:
    ledger = RedisLeaseStore("redis://me:hunter2@127.0.0.1:1/0", "test")
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:1") as error:
        ledger.stats()
    assert "hunter2" not in f"{error.value} {error.value!r} {vars(ledger)}"


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_connections_never_repeat_a_command_and_answer_within_a_quarter_of_the_lease(
    scheme: str,
) -> None:
    ledger = RedisLeaseStore(f"{scheme}://localhost", "test", lease_ttl=3.0)
    options = ledger._connected().connection_pool.connection_kwargs  # type: ignore[union-attr]
    assert options["retry"].get_retries() == 0
    assert options["socket_timeout"] < 3.0 / 4
    assert options["socket_connect_timeout"] < 3.0 / 4
    ledger.close()


def test_a_closed_ledger_says_so(client: Any) -> None:
    ledger = RedisLeaseStore("redis://127.0.0.1:1", "test")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.stats()


def test_a_client_that_decodes_answers_is_served_too(ledger: RedisLeaseStore) -> None:
    server = FakeServer()
    decoding = server.client()
    decoding.connection_pool.connection_kwargs["decode_responses"] = True
    store = RedisLeaseStore(decoding, "test")
    store.ensure(streams(2))
    assert len(store.claim("one", 2, ttl=TTL, slots=2)) == 2
    assert {u.owner for u in store.units()} == {"one"}
    assert store.incarnation()


def test_a_failure_of_the_connection_becomes_ledger_unavailable(
    ledger: RedisLeaseStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RedisConnectionError("reset by peer")

    monkeypatch.setattr(client, "evalsha", fail)
    with pytest.raises(LedgerUnavailable, match="reset by peer"):
        ledger.ensure([STREAM])


# ---------------------------------------------------------------- the scripts as text


SCRIPTS = {
    path.name: path.read_text("utf-8")
    for path in (resources.files("warp.leases") / "lua").iterdir()
    if path.name.endswith(".lua")
}


@pytest.mark.parametrize("name", sorted(SCRIPTS.keys() - {"prelude.lua"}))
def test_a_script_opens_with_its_contract_and_its_keys(name: str) -> None:
    head = SCRIPTS[name].split("\n\n")[0]
    assert head.startswith(f"-- {name.removesuffix('.lua')}: ")
    assert "-- KEYS" in head


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_names_no_key_that_it_did_not_declare_and_sets_no_ttl(name: str) -> None:
    text = re.sub(r"--.*", "", SCRIPTS[name])
    calls = re.findall(r"redis\.p?call\('(\w+)'(?:, ([^,)]+))?", text)
    assert not {command for command, _ in calls} & {"EXPIRE", "PEXPIRE", "SETEX", "RENAME", "KEYS"}
    assert {key for command, key in calls if command != "TIME"} <= {k.upper() for k in KEYS}
    assert "math.random" not in text
    assert "os." not in text


def test_the_prelude_lists_the_keys_in_the_order_of_the_client() -> None:
    listed = re.findall(r"^-- +(\d+) (\w+)", SCRIPTS["prelude.lua"], re.M)
    assert listed == [(str(i), key) for i, key in enumerate(KEYS, 1)]
