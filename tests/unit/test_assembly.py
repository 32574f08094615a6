"""What shares a stream, and what it carries, as the configuration says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from config_fakes import FakeSource, fake_connectors  # noqa: F401  a fixture

from coordinator.cli import prepare
from warp.assembly import Plugged
from warp.config import Settings, load
from warp.errors import ConfigError
from warp.interfaces import SourceTraits
from warp.model import SHARED, TableId
from warp.streams import Together
from warp.testing.memory import MemoryDestination, MemoryDestinationOptions

pytestmark = pytest.mark.usefixtures("fake_connectors")


class Source(FakeSource):
    """What the assembly asks of a connector; both schemas are there."""

    def __init__(self, options: Any, selection: Any) -> None: ...

    def check(self) -> None: ...

    def namespaces(self) -> list[str]:
        return ["shop", "crm"]

    def tables(self) -> list[TableId]:
        return [TableId("shop", "orders"), TableId("shop", "users")]

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def traits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "traits", SourceTraits(follows_twice=False), raising=False)
    monkeypatch.setattr("config_fakes.FakeSource", Source)


def settings(tmp_path: Path, schemas: list[dict[str, Any]], **more: Any) -> Settings:
    file = tmp_path / "config.yaml"
    blocks = {
        "source": {"connection_string": "mysql://localhost/shop", "database": "shop"},
        "destination": {"connection_string": "postgresql://localhost/warehouse"},
        "schemas": schemas,
        "mode": "multi",
    }
    file.write_text(yaml.safe_dump(blocks | more))
    return load(file)


SHOP, CRM = {"name": "shop", "mode": "stream"}, {"name": "crm", "mode": "stream"}
NIGHTLY = {"name": "nightly", "mode": "batch", "schedule": "0 3 * * *"}


def test_the_schemas_in_stream_mode_share_a_stream_where_following_twice_is_dear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged = Plugged(settings(tmp_path, [SHOP, NIGHTLY, CRM]))
    assert plugged.sharing() == ("shop", "crm")
    assert plugged.knows(SHARED)
    monkeypatch.setattr(Source, "traits", SourceTraits())
    assert plugged.sharing() == ()
    assert not plugged.knows(SHARED)


def test_the_shared_selection_is_of_all_its_schemas(tmp_path: Path) -> None:
    plugged = Plugged(settings(tmp_path, [SHOP, CRM]))
    both = plugged.selection(SHARED)
    assert isinstance(both, Together)
    found = [both(TableId(name, "t")) for name in ("shop", "crm", "other")]
    assert [one and one.schema for one in found] == ["shop", "crm", None]


@pytest.mark.parametrize(
    ("shop", "same"),
    [
        ({"tables": ["orders"]}, False),
        ({"destination_schema": "elsewhere"}, False),
        ({"stream_batch_size": 7, "dead_letter_queue": False}, True),
    ],
)
def test_what_a_stream_carries_is_named_by_its_tables_and_not_by_its_pace(
    tmp_path: Path, shop: dict[str, Any], same: bool
) -> None:
    before = Plugged(settings(tmp_path, [SHOP, CRM]))
    after = Plugged(settings(tmp_path, [SHOP | shop, CRM]))
    for schema in (SHARED, "shop"):
        assert (before.follows(schema) == after.follows(schema)) is same
    assert before.follows("crm") == after.follows("crm")


def test_a_schema_more_or_less_is_another_stream(tmp_path: Path) -> None:
    one, two = (Plugged(settings(tmp_path, of)) for of in ([SHOP], [SHOP, CRM]))
    assert one.follows(SHARED) != two.follows(SHARED)
    again = Plugged(settings(tmp_path, [CRM, SHOP]))
    assert again.follows(SHARED) == two.follows(SHARED)


def test_a_table_in_two_schemas_of_one_stream_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = {"name": "again", "mode": "stream", "tables": ["orders"], "destination_schema": "copy"}
    plugged = Plugged(settings(tmp_path, [SHOP, twice]))
    destination = MemoryDestination(MemoryDestinationOptions(), lambda table: None)
    monkeypatch.setattr(plugged, "bookkeeping", lambda: destination)
    with pytest.raises(ConfigError, match=r"shop\.orders in 'shop' and 'again'"):
        prepare(plugged._settings, plugged)
