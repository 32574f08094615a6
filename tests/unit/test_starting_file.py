"""The first configuration says what was chosen, whatever the names, and holds no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from commands.starting_file import Address, Chosen, Listed, Starting, chosen, entry, matches, text
from warp.config import Settings, load
from warp.errors import ConfigError
from warp.model import TableId

SECRET = "geheim"
HOSTILE = [
    "orders",
    'we"ird: {x} ${HOME} #\n',
    "!no",
    "a*b",
    "[x]",
    "1",
    "a,b",
    "all",
    "\x1b[2J\u2028\x7f",
    "- true",
]

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


def listed(name: str, *key: str, namespace: str = "shop") -> Listed:
    return Listed(TableId(namespace, name), key, 12_345, True)


def starting(*schemas: Chosen) -> Starting:
    source = Address.of(f"postgresql://me:{SECRET}@db:5432/shop?sslmode=require", "source")
    destination = Address.of("postgresql://me@warehouse/w", "destination")
    return Starting(source, destination, schemas, "postgresql", "postgresql")


def read(tmp_path: Path, what: Starting) -> tuple[str, Settings]:
    file = tmp_path / "config.yaml"
    file.write_text(text(what), encoding="utf-8")
    return file.read_text(encoding="utf-8"), load(file, {"SOURCE_PASSWORD": SECRET})


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("mysql://root@h:1/", "mysql://root@h:1/"),
        (f"mongodb://u:{SECRET}@h/d", "mongodb://u:${SOURCE_PASSWORD}@h/d"),
        (f"mongodb://u:{SECRET}@a,b/d", "mongodb://u:${SOURCE_PASSWORD}@a,b/d"),
        ("mongodb://u:${P}@h/", "mongodb://u:${P}@h/"),
        ("${MONGODB_URL}", "${MONGODB_URL}"),
        (f"postgresql://h/d?password={SECRET}", "${SOURCE_URL}"),
        (f"postgresql://u:{SECRET}/x@h/d", "${SOURCE_URL}"),
        (f"mongodb://u:x@h/?tlsCertificateKeyFilePassword={SECRET}", "${SOURCE_URL}"),
        ("mongodb://[::1", "${SOURCE_URL}"),
    ],
)
@pytest.mark.holds(guarantee=10, source="none", destination="pretended", fault="planted passwords")
def test_a_secret_is_in_a_variable_and_not_in_the_file(url: str, written: str) -> None:
    address = Address.of(url, "source")
    assert address.text == written
    assert SECRET not in repr(address)
    secrets = {"${SOURCE_PASSWORD}": SECRET, "${SOURCE_URL}": url}
    held = {secret for name, secret in secrets.items() if name in written}
    assert set(address.variables.values()) == held


def test_without_the_variable_the_password_would_be_in_the_file() -> None:
    url = f"mongodb://u:{SECRET}@h/d"
    destination = Address.of("postgresql://h/w", "destination")
    assert SECRET in text(Starting(Address(url), destination, (Chosen("shop", ()),)))
    assert SECRET not in text(Starting(Address.of(url, "source"), destination, ()))


def test_a_password_beside_a_variable_is_left_to_the_person() -> None:
    with pytest.raises(ConfigError, match="password as") as caught:
        Address.of(f"mongodb://u:{SECRET}@${{HOST}}/", "source")
    assert SECRET not in str(caught.value)


def test_the_file_reads_back_as_what_was_chosen(tmp_path: Path) -> None:
    tables = tuple(listed(name, "id") for name in HOSTILE)
    namespace = 'sh"op ${X}'
    one = Chosen(namespace, tables, tuple(entry(t.id) for t in tables[:5]))
    written, settings = read(tmp_path, starting(one, Chosen("later", (), (), stream=False)))

    assert SECRET not in written
    first, later = settings.schemas
    assert (first.name, first.include) == (namespace, one.entries)
    assert (later.name, later.schedule) == ("later", "*/15 * * * *")
    assert "\x1b" not in written
    for name in HOSTILE:
        shown = TableId("shop", name)
        assert matches(one.entries, shown) == (name in HOSTILE[:5])


@hypothesis(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(namespace=names, name=names, other=names)
def test_an_entry_means_its_table(tmp_path: Path, namespace: str, name: str, other: str) -> None:
    table = TableId(namespace, name)
    one = Chosen("shop", (Listed(table, ("id",)),), (entry(table),))
    _, read_back = read(tmp_path, starting(one))
    (schema,) = read_back.schemas
    assert schema.include == (entry(table),)
    assert not schema.exclude
    assert matches(schema.include, table)
    if name[0] != "!" and other != name and other != str(table):
        assert not matches([entry(table)], TableId("elsewhere", other))


def test_tables_are_named_by_name_pattern_and_number() -> None:
    tables = [listed(name, "id") for name in HOSTILE]
    for name in HOSTILE:
        if name != "all":  # which means all; that table has its number
            assert chosen(name, tables) == (entry(TableId("shop", name)),)
    assert chosen("all", tables) == chosen("", tables) == ()
    assert chosen("orders, 4", tables) == ("orders", "a[*]b")
    assert chosen("shop.orders", tables) == ("orders",)
    assert chosen("ord*", tables) == ("ord*",)
    for wrong in ("ordres", "99", "nothing*"):
        with pytest.raises(ConfigError, match="table"):
            chosen(wrong, tables)
    with pytest.raises(ConfigError, match="did you mean 'orders'"):
        chosen("ordesr, 1", tables, by_number=False)


def test_tables_without_a_key_are_read_whole_and_not_left_out(tmp_path: Path) -> None:
    """A log does not say which of their rows has changed."""
    odd = "l*og ${x}"
    schema = Chosen("shop", (listed("orders", "id"), listed(odd)))
    written, settings = read(tmp_path, starting(schema))

    selection = settings.resolve("shop", ["shop"])

    def capture(name: str) -> str:
        chosen = selection(TableId("shop", name))
        assert chosen is not None
        return chosen.capture

    assert [capture(name) for name in (odd, "orders", "l-og ${x}")] == ["hash", "log", "log"]
    assert "read whole" in written
