"""Planted passwords turn up nowhere but in what was given to us (guarantee 10).

The fleet got them in three ways: a file, a variable that the configuration names, and a variable
of ours.  It logged, failed, crashed and was taken over with them.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import programs
import psycopg
import pytest
from eventful import SECRETS, Day, lines_of
from psycopg import sql

from warp import startup
from warp.assembly import Plugged
from warp.config import Settings, load
from warp.errors import WarpError
from warp.own_process import free_port

pytestmark = [pytest.mark.xdist_group("eventful"), pytest.mark.timeout(400)]

PLANTED = tuple({form for s in SECRETS.values() for form in (s, quote(s, safe=""))})


def shown(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


@pytest.fixture(scope="module")
def settings(eventful: Day) -> Settings:
    return load(eventful.fleet.config, eventful.environment)


def test_the_fleet_did_use_them(eventful: Day, settings: Settings) -> None:
    """Else the tests below would find nothing because nothing is there."""
    given = " ".join(
        (str(getattr(settings.source.options, "url", "")), *eventful.environment.values())
    )

    assert len(shown(given)) == len(SECRETS)
    assert {secret for secret in settings.secrets if secret in SECRETS.values()} == set(
        SECRETS.values()
    )


@pytest.mark.holds(
    guarantee=10, source="mongodb", destination="postgresql", fault="planted passwords"
)
def test_no_line_of_any_process_shows_one(eventful: Day) -> None:
    logs = {" ".join(c.arguments[:1]): c.said() for c in eventful.fleet.commands}

    assert "".join(logs.values()).count("\n") > 50
    assert {name: shown(said) for name, said in logs.items() if shown(said)} == {}


def test_no_page_shows_one(eventful: Day) -> None:
    assert {name for name, page in eventful.pages.items() if shown(page.text)} == set()


def test_no_value_in_redis_shows_one(eventful: Day) -> None:
    assert any("stream:plain" in value for value in eventful.redis_values)
    assert shown("\n".join(eventful.redis_values)) == []


def test_no_row_of_the_metadata_shows_one(eventful: Day) -> None:
    found, read = {}, 0
    with psycopg.connect(eventful.fleet.pg_url) as connection:
        tables = connection.execute(
            "select table_name from information_schema.tables"
            " where table_schema = 'cartridge_warp_metadata'"
        ).fetchall()
        for (table,) in tables:
            name = sql.Identifier("cartridge_warp_metadata", table)
            for (row,) in connection.execute(sql.SQL("select t::text from {} t").format(name)):
                read += 1
                if shown(row):
                    found[table] = shown(row)

    assert {"error_log", "sync_markers", "quarantine"} <= {table for (table,) in tables}
    assert read > 20
    assert found == {}


def test_no_repr_and_no_answer_of_a_command_shows_one(eventful: Day, settings: Settings) -> None:
    assembly = Plugged(settings)
    things: list[object] = [settings, settings.source, settings.source.options, assembly]
    things += [settings.destination, settings.destination.options, settings.coordination]
    with contextlib.closing(startup.open_ledger(settings)) as ledger:
        things.append(ledger)
        with contextlib.closing(assembly.bookkeeping()) as destination:
            things += [destination, destination.metadata()]
            with contextlib.closing(assembly.source("plain")) as source:
                things.append(source)
                texts = [text for thing in things for text in (repr(thing), str(thing))]
    for arguments in (("config", "show", "--json"), ("errors", "--json"), ("doctor", "--json")):
        done = programs.run(
            "commands.cli",
            *arguments,
            "--config",
            str(eventful.fleet.config),
            env={**os.environ, **eventful.environment},
        )
        texts += [done.stdout, done.stderr]

    assert [shown(text) for text in texts if shown(text)] == []


def servers_that_are_away(tmp_path: Path, source: str, destination: str) -> Settings:
    """The same secrets, at ports where nobody listens."""
    urls = {
        "mongodb": "mongodb://u:{}@127.0.0.1:{}/shop",
        "mysql": "mysql://u:{}@127.0.0.1:{}/shop",
        "postgresql": "postgresql://u:{}@127.0.0.1:{}/shop",
        "redis": "redis://u:{}@127.0.0.1:{}/0",
    }

    def url(kind: str, secret: str) -> str:
        return urls[kind].format(quote(SECRETS[secret], safe=""), free_port())

    more = ", server_selection_timeout: 100ms" if source == "mongodb" else ""
    file = tmp_path / f"{source}.yaml"
    file.write_text(
        f"source: {{type: {source}, connection_string: '{url(source, 'mongodb')}'{more}}}\n"
        f"destination: {{connection_string: '{url(destination, 'postgresql')}'}}\n"
        f"coordination: {{redis_url: '{url('redis', 'redis')}'}}\n"
        "schemas: [{name: shop}]\n"
    )
    return load(file)


def what_fails(settings: Settings) -> Iterator[Callable[[], object]]:
    assembly = Plugged(settings)
    yield lambda: startup.open_ledger(settings).incarnation()
    yield lambda: assembly.bookkeeping().check()
    yield lambda: assembly.source("shop").check()
    yield lambda: assembly.source("shop").position()


@pytest.mark.parametrize("destination", ["mysql", "postgresql"])
@pytest.mark.parametrize("source", ["mongodb", "mysql", "postgresql"])
@pytest.mark.holds(
    guarantee=10,
    source=("mongodb", "postgresql", "mysql", "mariadb"),  # these two have one connector
    destination=("postgresql", "mariadb"),
    fault="planted passwords",
)
def test_no_error_and_no_traceback_shows_one(tmp_path: Path, source: str, destination: str) -> None:
    texts = []
    for fails in what_fails(servers_that_are_away(tmp_path, source, destination)):
        with pytest.raises(WarpError) as caught:
            fails()
        chain = "".join(traceback.format_exception(caught.value))
        texts += [str(caught.value), repr(caught.value), chain]

    assert any("127.0.0.1" in text for text in texts)
    assert [shown(text) for text in texts if shown(text)] == []


def test_a_mistake_in_a_secret_is_told_without_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"source: {{connection_string: 'nosuch://u:{PLANTED[0]}@h/d', databse: x}}\n")

    with pytest.raises(WarpError) as caught:
        load(file)

    assert shown("".join(traceback.format_exception(caught.value))) == []


def test_every_line_of_a_unit_carries_its_run_unit_worker_fence_and_batch(eventful: Day) -> None:
    ids = {"run", "unit", "worker", "fence", "batch"}
    workers = [c for c in eventful.fleet.commands if c.arguments[0] == "workers.cli"]
    of_units = [line for c in workers for line in lines_of(c) if "unit" in line]

    events = {line["event"] for line in of_units}
    assert {"unit_released", "unit_stopped", "fence_refused"} <= events
    # Of another thread's lines, which tell about a unit and not what it does.
    elsewhere = {"unit_shed", "unit_stalled", "unit_not_handed_back"}
    lacking = [x for x in of_units if not ids <= set(x) and x["event"] not in elsewhere]
    assert lacking == []
    batches = [line.get("batch") for line in of_units if line["unit"] == "stream:plain"]
    assert any(isinstance(batch, int) and batch > 1 for batch in batches)
