"""Errands on a real Redis: what is asked for is done once, and nothing else is done at all."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from warp.errands import PREFIX, Errand, ErrandQueue

# isort: split
from redis.exceptions import NoPermissionError
from rq.callbacks import Callback
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import DefaultSerializer, JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

from warp import logs
from warp.errors import (
    ConfigError,
    DestinationUnavailable,
    LedgerUnavailable,
    SourceUnavailable,
)
from warp.interfaces import DestinationConnector, SourceConnector
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import RedisLeaseStore
from warp.model import Chunk, Marker, Phase, Position, TableId, TableSelection, TableSettings
from warp.model import WorkUnit as Unit
from warp.own_process import wait_until
from warp.testing.contracts import ORDERS, SCHEMA
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)
from warp.testing.servers import RedisServer
from workers.errands import ERRANDS, ErrandRunner

STREAM, POLL = Unit.stream("shop"), Unit.poll("shop", ORDERS)
CHUNK = Unit.of_chunk("shop", Chunk(ORDERS, 0), 0)
TABLE = Unit.of_table("shop", ORDERS)


def select(table: TableId) -> TableSettings | None:
    return TableSettings(table, table, "shop") if table == ORDERS else None


@dataclass
class Shop:
    """An assembly over a database and a warehouse in memory."""

    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    warehouse: MemoryWarehouse = field(default_factory=MemoryWarehouse)
    away: str = ""
    attempts: int = 0

    def knows(self, schema: str) -> bool:
        return schema == "shop"

    def sharing(self) -> tuple[str, ...]:
        return ()

    def follows(self, schema: str) -> str:
        return ""

    def selection(self, schema: str) -> TableSelection:
        return select

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        self.attempts += 1
        if self.away == "source":
            raise SourceUnavailable("away")
        return MemorySource(MemorySourceOptions(database=self.database), select)

    def destination(self, schema: str) -> DestinationConnector:
        self.attempts += 1
        if self.away == "destination":
            raise DestinationUnavailable("away")
        return MemoryDestination(MemoryDestinationOptions(warehouse=self.warehouse), select)

    def bookkeeping(self) -> DestinationConnector:
        return self.destination("shop")

    def phases(self) -> dict[str, Phase]:
        return {id: marker.phase for id, marker in self.warehouse.markers.items()}

    def status(self, id: str) -> str:
        return str(self.warehouse.errands[id]["status"])


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.database.create(SCHEMA)
    shop.bookkeeping().metadata().prepare()
    for unit, phase in (
        (STREAM, Phase.STREAMING),
        (TABLE, Phase.STREAMING),
        (POLL, Phase.IDLE),
        (CHUNK, Phase.DONE),
    ):
        shop.warehouse.markers[unit.id] = Marker(unit, phase=phase, position=Position("0"))
    return shop


@pytest.fixture
def ledger() -> MemoryLeaseStore:
    return MemoryLeaseStore()


@pytest.fixture
def server(start_server: Callable[[RedisServer], RedisServer]) -> RedisServer:
    return start_server(RedisServer("redis7"))


@pytest.fixture
def errands(server: RedisServer) -> Iterator[ErrandQueue]:
    queue = ErrandQueue(server.url, "prod")
    yield queue
    queue.close()


@pytest.fixture
def run(
    errands: ErrandQueue, ledger: MemoryLeaseStore, shop: Shop
) -> Iterator[Callable[[], ErrandRunner]]:
    runners: list[ErrandRunner] = []

    def start() -> ErrandRunner:
        runner = ErrandRunner(errands, ledger, shop, look_every=0.02, send_again_every=0.2)
        runners.append(runner)
        runner.start()
        return runner

    yield start
    for runner in runners:
        runner.stop()


def submit(errands: ErrandQueue, shop: Shop, name: str, **arguments: Any) -> str:
    return errands.submit(shop.bookkeeping().metadata(), name, arguments)


def ends(shop: Shop, id: str) -> str:
    assert wait_until(lambda: shop.status(id) != "open", 20)
    return shop.status(id)


# ---------------------------------------------------------------- what is asked for is done


def test_a_resync_is_stored_carried_and_done(
    errands: ErrandQueue, shop: Shop, ledger: MemoryLeaseStore, run: Callable[[], ErrandRunner]
) -> None:
    shop.database.put(ORDERS, id=1, name="a")
    id = submit(errands, shop, "resync", schema="shop")
    assert shop.status(id) == "open"
    run()
    assert ends(shop, id) == "done"
    assert shop.phases() == {
        STREAM.id: Phase.STREAMING,
        TABLE.id: Phase.PLANNED,
        POLL.id: Phase.IDLE,
    }
    assert shop.warehouse.markers[STREAM.id].epoch == 1
    assert [u.unit for u in ledger.units()] == [STREAM]


@pytest.mark.parametrize(("stood_at", "goes_on"), [("1", True), ("900", False)])
def test_a_resync_to_a_log_that_was_reset_makes_what_it_numbers_land(
    errands: ErrandQueue, shop: Shop, run: Callable[[], ErrandRunner], stood_at: str, goes_on: bool
) -> None:
    """Else rows with the high numbers of before would stay as they are for ever (guarantee 6)."""
    shop.database.put(ORDERS, id=1, name="a")
    for unit in (STREAM, TABLE):
        shop.warehouse.markers[unit.id] = Marker(
            unit, phase=Phase.STREAMING, position=Position(stood_at), truncated_at=900
        )
    run()
    assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    moved = shop.warehouse.markers[STREAM.id].position
    assert moved is not None
    assert moved.token == "1"
    # Rows read anew with a number up to this one do not land.
    assert shop.warehouse.markers[TABLE.id].truncated_at == (900 if goes_on else 0)


def test_a_resync_of_a_polled_schema_makes_what_is_numbered_anew_land(
    errands: ErrandQueue, shop: Shop, run: Callable[[], ErrandRunner]
) -> None:
    """No stream's position tells whether the source's log is still the one it was."""
    del shop.warehouse.markers[STREAM.id]
    shop.warehouse.markers[TABLE.id] = Marker(TABLE, phase=Phase.STREAMING, truncated_at=900)
    shop.database.put(ORDERS, id=1, name="a")
    run()
    assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    assert shop.warehouse.markers[TABLE.id].truncated_at == 0


def test_one_table_is_resynced_by_either_of_its_names(
    errands: ErrandQueue, shop: Shop, run: Callable[[], ErrandRunner]
) -> None:
    run()
    for name in ("orders", "shop.orders"):
        assert ends(shop, submit(errands, shop, "resync", schema="shop", table=name)) == "done"
    assert shop.warehouse.markers[TABLE.id].epoch == 2
    assert shop.warehouse.markers[STREAM.id].epoch == 0


def test_a_failed_unit_is_revived_in_the_destination_and_in_the_ledger(
    errands: ErrandQueue, shop: Shop, ledger: MemoryLeaseStore, run: Callable[[], ErrandRunner]
) -> None:
    shop.bookkeeping().metadata().mark(STREAM.id, Phase.FAILED)
    ledger.ensure([STREAM])
    [lease] = ledger.claim("one", 1, ttl=10, slots=1)
    ledger.release(lease, dead=True)
    run()
    assert ends(shop, submit(errands, shop, "revive", unit=STREAM.id)) == "done"
    assert shop.phases()[STREAM.id] is Phase.STREAMING
    assert [u.state for u in ledger.units()] == ["due"]


def test_a_schema_pauses_at_its_place_and_resumes_there(
    errands: ErrandQueue, shop: Shop, ledger: MemoryLeaseStore, run: Callable[[], ErrandRunner]
) -> None:
    ledger.ensure([STREAM, POLL])
    fence = shop.warehouse.markers[STREAM.id].fence
    run()
    assert ends(shop, submit(errands, shop, "pause", schema="shop")) == "done"
    paused = shop.phases()
    assert (paused[STREAM.id], paused[POLL.id]) == (Phase.PAUSED, Phase.PAUSED)
    assert paused[CHUNK.id] is Phase.DONE
    assert shop.warehouse.markers[STREAM.id].fence > fence  # whoever is at it is told
    assert ledger.units() == []
    assert ends(shop, submit(errands, shop, "resume", schema="shop")) == "done"
    assert shop.phases()[STREAM.id] is Phase.STREAMING
    assert shop.warehouse.markers[STREAM.id].position == Position("0")
    assert {u.unit for u in ledger.units()} == {STREAM, POLL}


def test_a_replay_offers_the_unit_of_its_table_dead_or_not_unless_it_is_paused(
    errands: ErrandQueue, shop: Shop, ledger: MemoryLeaseStore, run: Callable[[], ErrandRunner]
) -> None:
    unit = Unit.of_replay("shop", ORDERS)
    metadata = shop.bookkeeping().metadata()
    metadata.replay("shop", ORDERS, [])
    run()
    asked = {"schema": "shop", "table": "shop.orders"}
    assert ends(shop, submit(errands, shop, "replay", **asked)) == "done"
    assert [(u.unit, u.state) for u in ledger.units()] == [(unit, "due")]
    [lease] = ledger.claim("one", 1, ttl=10, slots=1)
    ledger.release(lease, dead=True)
    assert ends(shop, submit(errands, shop, "replay", **asked)) == "done"
    assert [(u.unit, u.state) for u in ledger.units()] == [(unit, "due")]
    ledger.wipe()
    metadata.mark(unit.id, Phase.PAUSED)
    assert ends(shop, submit(errands, shop, "replay", **asked)) == "done"
    assert ledger.units() == []
    assert shop.phases()[unit.id] is Phase.PAUSED


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("resync", {"schema": "nobody"}, "configured schema"),
        ("resync", {"schema": "shop", "table": "nothing"}, "table of schema"),
        ("resync", {}, "arguments"),
        ("resync", {"schema": "shop", "desk": "x"}, "arguments"),
        ("resync", {"schema": 7}, "text as schema"),
        ("revive", {"unit": "stream:nobody"}, "id of a unit"),
        ("replay", {"schema": "shop", "table": "shop.orders"}, "marked for replay"),
    ],
)
def test_an_errand_that_cannot_be_done_ends_with_its_reason(
    errands: ErrandQueue,
    shop: Shop,
    run: Callable[[], ErrandRunner],
    name: str,
    arguments: dict[str, Any],
    reason: str,
) -> None:
    run()
    id = submit(errands, shop, name, **arguments)
    assert ends(shop, id) == "failed"
    assert reason in shop.warehouse.errands[id]["result"]


@pytest.mark.parametrize("masks", [True, False])
def test_a_bug_in_an_errand_is_kept_without_the_password_it_tells(
    errands: ErrandQueue,
    shop: Shop,
    run: Callable[[], ErrandRunner],
    monkeypatch: pytest.MonkeyPatch,
    masks: bool,
) -> None:
    """Guarantee 10; without the masking, which is the broken twin, it would be in both places."""

    def breaks(*_: object) -> SourceConnector:
        raise ValueError("cannot reach mongodb://reader:hunter2-geheim@db/shop")

    monkeypatch.setattr(shop, "source", breaks)
    if not masks:
        monkeypatch.setattr(logs, "masked", str)
    # Before anybody runs: who starts while it is stored and not yet sent sends it too, and what rq
    # keeps last would tell of the second time, which finds it done.
    id = submit(errands, shop, "resync", schema="shop")
    run()
    assert ends(shop, id) == "failed"

    def traceback() -> str:
        carried = Job.fetch(id, connection=errands.connection, serializer=JSONSerializer)
        result = carried.latest_result()
        return (result and result.exc_string) or ""

    assert wait_until(lambda: "cannot reach" in traceback(), 20)
    for kept in (traceback(), shop.warehouse.errands[id]["result"]):
        assert "db/shop" in kept
        assert ("geheim" in kept) != masks


def test_an_unknown_errand_is_not_even_stored(errands: ErrandQueue, shop: Shop) -> None:
    with pytest.raises(ConfigError, match="resync"):
        submit(errands, shop, "os.system", schema="shop")
    assert shop.warehouse.errands == {}


# ---------------------------------------------------------------- nothing is lost


def test_a_wipe_between_intent_and_run_loses_nothing(
    errands: ErrandQueue, shop: Shop, server: RedisServer, run: Callable[[], ErrandRunner]
) -> None:
    id = submit(errands, shop, "resync", schema="shop")
    with server.client() as client:
        client.flushall()
    run()
    assert ends(shop, id) == "done"


def test_whoever_notices_the_wipe_sends_open_intents_again_and_only_those(
    errands: ErrandQueue, shop: Shop, server: RedisServer
) -> None:
    metadata = shop.bookkeeping().metadata()
    done, open = (submit(errands, shop, "resync", schema="shop") for _ in range(2))
    metadata.end_errand(done, status="done")
    assert errands.carry_open(metadata) == []  # still on its way
    with server.client() as client:
        client.flushall()
    assert errands.carry_open(metadata) == [open]
    assert errands.carry_open(metadata) == []
    assert errands.queue.job_ids == [open]


def test_a_wipe_is_noticed_at_once_by_the_ledgers_new_incarnation(
    errands: ErrandQueue, shop: Shop, server: RedisServer
) -> None:
    ledger = RedisLeaseStore(server.url, "prod")
    runner = ErrandRunner(errands, ledger, shop, look_every=0.02, send_again_every=3600)
    runner.start()
    assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    # As it is when Redis is wiped between the sending and the carrying: an intent, and no more.
    shop.bookkeeping().metadata().add_errand("lost", "resync", {"schema": "shop"})
    with server.client() as client:
        client.flushall()
    assert ends(shop, "lost") == "done"
    runner.stop()
    ledger.close()


def test_who_does_not_look_at_the_incarnation_leaves_the_lost_errand_waiting(
    errands: ErrandQueue, shop: Shop, server: RedisServer, ledger: MemoryLeaseStore
) -> None:
    """The broken twin: this ledger is always the same one."""
    runner = ErrandRunner(errands, ledger, shop, look_every=0.02, send_again_every=3600)
    runner.start()
    assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    shop.bookkeeping().metadata().add_errand("lost", "resync", {"schema": "shop"})
    with server.client() as client:
        client.flushall()
    for _ in range(2):  # each after a look of the runner's
        assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    assert shop.status("lost") == "open"
    runner.stop()


def test_an_errand_is_taken_back_once_and_only_while_nobody_has_it(
    errands: ErrandQueue, shop: Shop, run: Callable[[], ErrandRunner]
) -> None:
    id = submit(errands, shop, "resync", schema="shop")
    assert errands.take_back(id)
    assert not errands.take_back(id)
    assert not errands.connection.exists(Errand.key_for(id))
    run()
    carried = submit(errands, shop, "resync", schema="shop")
    assert ends(shop, carried) == "done"
    assert not errands.take_back(carried)


def test_an_intent_is_stored_though_redis_is_away(
    errands: ErrandQueue, shop: Shop, server: RedisServer, run: Callable[[], ErrandRunner]
) -> None:
    server.kill9()
    with pytest.raises(LedgerUnavailable, match=f":{server.port}"):
        submit(errands, shop, "resync", schema="shop")
    [id] = shop.warehouse.errands
    run()
    server.start()
    assert ends(shop, id) == "done"


@pytest.mark.parametrize("server_away", ["source", "destination"])
def test_an_errand_is_tried_again_while_a_server_is_away(
    errands: ErrandQueue, shop: Shop, run: Callable[[], ErrandRunner], server_away: str
) -> None:
    id = submit(errands, shop, "resync", schema="shop")
    shop.away, shop.attempts = server_away, 0
    run()
    assert wait_until(lambda: shop.attempts > 5, 20)
    assert shop.status(id) == "open"
    shop.away = ""
    assert ends(shop, id) == "done"


def test_a_runner_stops_though_redis_is_away(
    errands: ErrandQueue, shop: Shop, server: RedisServer, run: Callable[[], ErrandRunner]
) -> None:
    runner = run()
    id = submit(errands, shop, "resync", schema="shop")
    assert ends(shop, id) == "done"
    server.kill9()
    runner.stop(limit=20)
    assert runner._thread is not None
    assert not runner._thread.is_alive()


def test_all_keys_lie_under_a_prefix_of_their_own(
    errands: ErrandQueue, shop: Shop, server: RedisServer, run: Callable[[], ErrandRunner]
) -> None:
    run()
    ends(shop, submit(errands, shop, "resync", schema="shop"))
    with server.client() as client:
        keys = client.keys("*")
    assert keys
    assert all(key.startswith(f"{PREFIX}:".encode()) for key in keys)


# ---------------------------------------------------------------- nothing else is done


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """A module that tells whether it was imported; `evil_module.run` can be named in Redis."""
    trace = tmp_path / "imported"
    module = tmp_path / "evil_module.py"
    module.write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\ndef run(*a): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield trace.exists
    sys.modules.pop("evil_module", None)


def foreign_queue(server: RedisServer, serializer: Any = JSONSerializer) -> tuple[Any, Queue]:
    """What anybody with write access to this Redis can use."""
    client = redis.Redis(port=server.port)
    return client, Queue("prod", connection=client, serializer=serializer)


POISON: dict[str, Callable[[Queue, str], Job]] = {
    "a function of some module": lambda queue, id: queue.enqueue_call("evil_module.run"),
    "a function of the standard library": lambda queue, id: queue.enqueue_call(
        "os.system", args=("touch evil",)
    ),
    "an errand nobody intended": lambda queue, id: queue.enqueue_call("pause", args=("shop",)),
    "another errand than was intended": lambda queue, id: queue.enqueue_call("pause", job_id=id),
    "a callback": lambda queue, id: queue.enqueue_call(
        "nothing",
        on_success=Callback("evil_module.run"),
        on_failure=Callback("evil_module.run"),
        on_stopped=Callback("evil_module.run"),
    ),
    "an intended errand with callbacks": lambda queue, id: queue.enqueue_call(
        "resync", job_id=id, on_success=Callback("evil_module.run")
    ),
}


@pytest.mark.parametrize("poison", POISON)
def test_what_is_no_errand_is_refused_and_never_imported(
    errands: ErrandQueue,
    shop: Shop,
    server: RedisServer,
    run: Callable[[], ErrandRunner],
    evil: Callable[[], bool],
    poison: str,
) -> None:
    id = submit(errands, shop, "resync", schema="shop", table="orders")
    errands.connection.delete(errands.queue.key)
    client, queue = foreign_queue(server)
    job = POISON[poison](queue, id)
    run()
    client.close()
    assert ends(shop, id) == "done"  # sent again, and done in spite of all
    assert wait_until(lambda: errands.queue.count == 0, 20)
    assert not evil()
    assert "evil_module" not in sys.modules
    assert Phase.PAUSED not in shop.phases().values()
    assert errands.connection.exists(Errand.key_for(job.id))


def test_a_refusal_is_logged(
    errands: ErrandQueue, shop: Shop, ledger: MemoryLeaseStore, server: RedisServer
) -> None:
    client, queue = foreign_queue(server)
    job = queue.enqueue_call("evil_module.run")
    runner = ErrandRunner(errands, ledger, shop, look_every=0.02)
    with structlog.testing.capture_logs() as logs:
        runner.start()
        assert wait_until(lambda: job.get_status() is JobStatus.FAILED, 20)
        runner.stop()
    client.close()
    assert [(line["event"], line["id"]) for line in logs] == [("errand_refused", job.id)]


def test_a_pickle_is_refused_and_never_unpickled(
    errands: ErrandQueue,
    shop: Shop,
    server: RedisServer,
    run: Callable[[], ErrandRunner],
    evil: Callable[[], bool],
) -> None:
    client, queue = foreign_queue(server, DefaultSerializer)
    job = queue.enqueue_call("resync", args=("shop",))
    data = client.hget(job.key, "data")
    assert not data.startswith(b"[")
    # By hand: to unpickle this is to import evil_module.
    client.hset(job.key, "data", b"cevil_module\nrun\n(tR.")
    other = queue.enqueue_call("resync")
    client.hset(other.key, "meta", b"cevil_module\nrun\n(tR.")
    run()
    assert wait_until(lambda: job.get_status() is JobStatus.FAILED, 20)
    assert ends(shop, submit(errands, shop, "resync", schema="shop")) == "done"
    client.close()
    assert not evil()


@pytest.mark.parametrize("field", ["created_at", "timeout", "origin", "data", "dependency_ids"])
def test_a_broken_record_does_not_stop_the_errands_behind_it(
    errands: ErrandQueue,
    shop: Shop,
    server: RedisServer,
    run: Callable[[], ErrandRunner],
    field: str,
) -> None:
    client, queue = foreign_queue(server)
    job = queue.enqueue_call("resync")
    client.hset(job.key, field, b"\xff\x00?")
    id = submit(errands, shop, "resync", schema="shop")
    run()
    assert ends(shop, id) == "done"
    client.close()


def test_rq_as_it_comes_would_import_what_redis_says(
    server: RedisServer, evil: Callable[[], bool]
) -> None:
    """The broken twin: without our class of job the module above is imported."""
    client, queue = foreign_queue(server)
    queue.enqueue_call("evil_module.run")

    class InAThread(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

        def _install_signal_handlers(self) -> None: ...

        def subscribe(self) -> None: ...

    InAThread([queue], connection=client, serializer=JSONSerializer).work(burst=True)
    client.close()
    assert evil()


def test_the_documented_rights_suffice_and_give_no_others(
    shop: Shop,
    ledger: MemoryLeaseStore,
    start_server: Callable[[RedisServer], RedisServer],
) -> None:
    page = (Path(__file__).parents[2] / "docs/operations/redis.md").read_text()
    rights = [
        re.findall(rf"^```{block}\n(.*?)\n```$", page, re.M | re.S)[0]
        for block in ("acl", "acl-errands")
    ]
    user = " ".join(rights).replace("CHANGE-ME", "secret")
    server = start_server(RedisServer("redis7", users=[user]))
    url = f"redis://cartridge-warp:secret@127.0.0.1:{server.port}/0"
    errands = ErrandQueue(url, "prod")
    runner = ErrandRunner(errands, ledger, shop, look_every=0.02)
    runner.start()
    id = submit(errands, shop, "resync", schema="shop")
    assert ends(shop, id) == "done"
    runner.stop()
    for command in ("FLUSHALL", "KEYS *", "SCAN 0", "CONFIG GET *", "GET rq:queues", "GET x"):
        with pytest.raises(NoPermissionError):
            errands.connection.execute_command(*command.split())
    store = RedisLeaseStore(url, "prod")
    assert store.ensure([STREAM]) == 1
    store.close()
    errands.close()


def test_the_list_of_names_is_the_list_of_functions() -> None:
    from warp.errands import NAMES

    assert set(ERRANDS) == NAMES


def test_a_cluster_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="cluster"):
        ErrandQueue("redis+cluster://localhost:7000", "prod")
