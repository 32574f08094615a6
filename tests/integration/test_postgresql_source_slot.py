"""The slot: what may be forgotten, and that nothing is ever skipped without a word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from postgresql_shop import Shop, everything, follow, seen

from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.headroom import State, state_of
from warp.model import ChangeBatch, Position
from warp.own_process import wait_until
from warp.sources.postgresql import PostgresSource
from warp.sources.postgresql.position import lsn_of
from warp.sources.postgresql.stream import LogStream, _Progress
from warp.testing.servers import Postgres


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id int primary key, name text)")
    return shop


@pytest.fixture
def own(start_server: Callable[[Postgres], Postgres]) -> Iterator[Shop]:
    """A server of its own, to be broken."""
    settings = {"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    server = start_server(Postgres(settings=settings))
    with Shop(server.url) as shop:
        shop.run("create table shop.orders (id int primary key, name text)")
        shop.server = server
        yield shop


def put(shop: Shop, *ids: int) -> None:
    for id in ids:
        shop.run("insert into shop.orders values (%s, 'a')", (id,))


def start(source: PostgresSource, position: Position) -> Iterator[ChangeBatch]:
    return source.get_changes(position, selection=everything, idle=0.05)


def confirmed(shop: Shop) -> int:
    ((lsn,),) = shop.run(
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s",
        (shop.slot,),
    )
    return lsn_of(lsn)


def place(position: Position) -> int:
    return lsn_of(position.token.partition("@")[0])


# -- guarantee 3


def _followed_without_acknowledging(shop: Shop) -> tuple[int, int]:
    """(the slot's confirmed place, the end of the last batch) after rows and idle batches."""
    source = shop.source()
    first = source.position()
    put(shop, *range(30))
    rows = 0
    for batch in start(source, first):
        rows += len(batch)
        if rows >= 30 and not len(batch):
            break
    source.close()
    return confirmed(shop), place(batch.end)


@pytest.mark.holds(guarantee=3, source="postgresql", destination="pretended", fault="no fault")
def test_the_slot_is_confirmed_no_further_than_was_acknowledged(shop: Shop) -> None:
    held, delivered = _followed_without_acknowledging(shop)
    assert held < delivered
    # So that a successor who has only the first position finds all of it.
    source = shop.source()
    batches = start(source, source.position())
    put(shop, 100)
    batch = next(batch for batch in batches if len(batch))
    source.acknowledge(batch.end)
    assert wait_until(lambda: bool(next(batches)) or confirmed(shop) >= place(batch.end), 10)
    source.close()


def test_without_waiting_for_acknowledgement_the_slot_would_run_ahead(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: what was delivered counts as durable."""
    move = _Progress.move
    streams: list[LogStream] = []
    follow_ = LogStream.follow

    def noted(self: LogStream, *args: object) -> object:
        streams.append(self)
        return follow_(self, *args)  # type: ignore[arg-type]

    def hasty(self: _Progress, lsn: int, at: float) -> None:
        move(self, lsn, at)
        streams[-1].acknowledge(lsn)

    monkeypatch.setattr(LogStream, "follow", noted)
    monkeypatch.setattr(_Progress, "move", hasty)
    held, delivered = _followed_without_acknowledging(shop)
    assert held >= delivered


def test_a_quiet_table_holds_none_of_the_log(shop: Shop) -> None:
    source = shop.source()
    first = source.position()
    batches = start(source, first)
    next(batches)
    shop.admin.execute("reset role")
    shop.run("create table public.noise as select repeat('x', 200) from generate_series(1, 20000)")
    ((end,),) = shop.run("select pg_current_wal_flush_lsn()::text")
    shop.run("drop table public.noise")
    retained = source.headroom(first).retained
    assert retained is not None
    assert retained > 4_000_000

    def let_go() -> bool:
        shop.run("select pg_log_standby_snapshot()")  # as the server does now and then
        batch = next(batches)
        assert not len(batch)
        source.acknowledge(batch.end)
        held = source.headroom(batch.end).retained or 0
        return confirmed(shop) >= lsn_of(end) and held < 100_000

    assert wait_until(let_go, 20)
    source.close()


# -- a lost position


def test_a_dropped_slot_stops_with_what_to_do(shop: Shop) -> None:
    source = shop.source()
    position = source.position()
    shop.drop_slot()
    put(shop, 1)
    assert state_of(source.headroom(position)) is State.LOST
    with pytest.raises(PositionLost, match=r"does not exist.*cartridge-warp resync"):
        next(start(source, position))


@pytest.mark.holds(guarantee=6, source="postgresql", destination="pretended", fault="lost position")
def test_a_slot_made_anew_does_not_pass_for_the_old_one(shop: Shop) -> None:
    source = shop.source()
    position = source.position()
    shop.drop_slot()
    put(shop, 1)
    source.position()  # such as the coordinator asks to see how late the stream is
    with pytest.raises(PositionLost, match="has let go of the log"):
        next(start(source, position))


def test_without_that_look_the_rows_in_between_would_be_skipped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: the server starts where the slot is, and says nothing."""
    monkeypatch.setattr(LogStream, "_nothing_skipped", lambda self, place: None)
    source = shop.source()
    position = source.position()
    shop.drop_slot()
    put(shop, 1)
    source.position()
    put(shop, 2)
    assert [row[2]["id"] for row, _ in follow(source, position, 1)] == [2]


@pytest.mark.holds(guarantee=6, source="postgresql", destination="pretended", fault="lost position")
def test_a_publication_made_anew_has_not_published_what_was_in_between(shop: Shop) -> None:
    source = shop.source()
    position = source.position()
    shop.admin.execute("reset role")
    shop.run(f'drop publication "{shop.publication}"')
    put(shop, 1)
    with pytest.raises(PositionLost, match=r"publication pub .* is gone"):
        next(start(source, position))
    source.position()
    with pytest.raises(PositionLost, match="is another than the marker's"):
        next(start(source, position))


@pytest.mark.holds(guarantee=6, source="postgresql", destination="pretended", fault="lost position")
def test_a_position_of_another_server_is_lost(shop: Shop) -> None:
    source = shop.source()
    position = source.position()
    lsn, _, rest = position.token.partition("@")
    system, timeline, publication, horizon = rest.split(".")
    other = Position(f"{lsn}@{int(system) + 1}.{timeline}.{publication}.{horizon}")
    with pytest.raises(PositionLost, match="a place in the log of the server"):
        next(start(source, other))
    future = Position(f"{lsn}@{system}.{int(timeline) + 1}.{publication}.{horizon}")
    with pytest.raises(PositionLost, match="timeline"):
        next(start(source, future))
    with pytest.raises(SourceRefused, match="a position of a PostgreSQL log was expected"):
        next(start(source, Position("at:1:2")))


@pytest.mark.holds(guarantee=6, source="postgresql", destination="pretended", fault="lost position")
def test_an_invalidated_slot_stops_and_a_resync_makes_it_anew(own: Shop) -> None:
    source = own.source()
    position = source.position()
    room = source.headroom(position).bytes
    assert room is not None
    assert room > 0
    states = []

    def lost() -> bool:
        states.append(state_of(source.headroom(position)))
        own.admin.execute("reset role")
        own.run("create table if not exists public.fill (t text)")
        own.run("insert into public.fill select repeat('x', 1000) from generate_series(1, 20000)")
        own.run("select pg_switch_wal()")
        own.run("checkpoint")
        state = own.run(
            "select wal_status from pg_replication_slots where slot_name = %s", (own.slot,)
        )
        return bool(state == [("lost",)])

    assert wait_until(lost, 60)
    assert state_of(source.headroom(position)) is State.LOST
    assert states[0] is State.OK
    with pytest.raises(PositionLost, match="cartridge-warp resync"):
        next(start(source, position))
    again = source.position()
    put(own, 5)
    assert [row[2]["id"] for row, _ in follow(source, again, 1)] == [5]


def test_a_promoted_server_goes_on_where_its_history_has_the_marker(own: Shop) -> None:
    source = own.source()
    position = source.position()
    put(own, 1)
    source.close()
    own.admin.close()
    # What a promotion does to the log: a new timeline, from the end of the old one.
    own.server.stop()
    data = own.server.directory / "data"
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write("restore_command = '/bin/false'\nrecovery_target_timeline = 'latest'\n")
    (data / "recovery.signal").touch()
    own.server.start()
    own.admin = own.connect()

    def promoted() -> bool:
        return own.run("select pg_is_in_recovery()") == [(False,)]

    assert wait_until(promoted, 20)
    put(own, 2)
    source = own.source()
    here = source.position()
    assert here.token.split(".")[1] == "2"
    assert [row[2]["id"] for row, _ in follow(source, position, 2)] == [1, 2]
    lsn, _, rest = here.token.partition("@")
    system, _, publication, horizon = rest.split(".")
    # A marker that the old primary had reached after the new one left its timeline.
    beyond = Position(f"{lsn}@{system}.1.{publication}.{horizon}")
    with pytest.raises(PositionLost, match="which this server \\(timeline 2\\) left before"):
        next(start(source, beyond))


# -- a second consumer, a lost connection


def test_a_second_consumer_waits_and_names_the_first(shop: Shop) -> None:
    first, second = shop.source(), shop.source()
    position = first.position()
    batches = start(first, position)
    next(batches)
    with pytest.raises(SourceUnavailable, match=r"is active for PID \d+"):
        next(start(second, position))
    first.close()
    with pytest.raises(SourceUnavailable, match="the connector was closed"):
        next(batches)

    def follows() -> bool:
        try:
            return next(start(second, position)) is not None
        except SourceUnavailable:
            return False

    assert wait_until(follows, 10)


def test_a_killed_connection_is_unavailable_and_nothing_is_lost(shop: Shop) -> None:
    source = shop.source()
    position = source.position()
    batches = start(source, position)
    put(shop, 1)
    first = next(batch for batch in batches if len(batch))
    put(shop, 2)
    shop.admin.execute("reset role")
    shop.run(
        "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots "
        "where slot_name = %s",
        (shop.slot,),
    )
    got = seen(first)
    with pytest.raises(SourceUnavailable):
        got += [row for batch in batches for row in seen(batch)]
    got += [row for row, _ in follow(shop.source(), first.end, 1)]
    assert [row[2]["id"] for row in got][-1] == 2


@pytest.mark.holds(guarantee=7, source="postgresql", destination="pretended", fault="server crash")
def test_a_restarted_server_goes_on_from_the_marker(own: Shop) -> None:
    source = own.source()
    position = source.position()
    batches = start(source, position)
    put(own, 1)
    first = next(batch for batch in batches if len(batch))
    source.acknowledge(first.end)
    own.server.restart(hard=True)
    with pytest.raises(SourceUnavailable):
        list(batches)
    own.admin.close()
    with psycopg.connect(own.url, autocommit=True) as again:
        again.execute("insert into shop.orders values (2, 'b')")
    assert [row[2]["id"] for row, _ in follow(own.source(), first.end, 1)] == [2]
    own.server.stop()
    with pytest.raises(SourceUnavailable, match="start the server or correct"):
        source.tables()
    own.server.start()
    assert source.tables()  # the same connector, once the server is back
    own.admin = psycopg.connect(own.url, autocommit=True)


def test_closing_ends_a_read_that_waits(shop: Shop) -> None:
    source = shop.source()
    batches = source.get_changes(source.position(), selection=everything, idle=30.0)
    next(batches)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(SourceUnavailable, match="was closed"):
            next(batches)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    source.close()
    assert ended.wait(5)
    reader.join()


# -- making it


def test_a_slot_that_cannot_be_made_names_who_is_in_the_way(shop: Shop) -> None:
    with shop.another() as other:
        other.execute("insert into shop.orders values (1, 'a')")
        pid = other.info.backend_pid
        with pytest.raises(SourceUnavailable, match=rf"open: pid {pid} for \d+ s.*slot_timeout"):
            shop.source(slot_timeout="500ms").position()
    assert shop.run("select 1 from pg_replication_slots where slot_name = %s", (shop.slot,)) == []
    shop.source().position()


def test_a_slot_of_somebody_else_is_not_taken(shop: Shop) -> None:
    shop.admin.execute("reset role")
    shop.run("select pg_create_physical_replication_slot(%s)", (shop.slot,))
    with pytest.raises(SourceRefused, match=r"expected to be of pgoutput .* found \(physical\)"):
        shop.source().position()


def test_wrong_logins_are_refused_and_absent_servers_are_unavailable(shop: Shop) -> None:
    nobody = shop.source(connection_string=shop.url.replace("postgres@", "nobody_here@"))
    with pytest.raises(SourceRefused, match="check the user and the password"):
        nobody.tables()
    absent = shop.source(connection_string="postgresql://u:sesame@127.0.0.1:1/x")
    with closing(absent), pytest.raises(SourceUnavailable) as failed:
        absent.namespaces()
    assert "sesame" not in str(failed.value)
