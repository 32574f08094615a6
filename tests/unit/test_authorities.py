"""An authority that the configuration names vouches for the server, or else it is refused: it never
counts for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warp.config import Settings, load
from warp.errors import ConfigError

MYSQL = {"connection_string": "mysql://reader:hunter2@db/shop"}
POSTGRESQL = {"connection_string": "postgresql://writer:hunter2@db/warehouse"}


def configured(
    folder: Path, source: dict[str, str] = MYSQL, destination: dict[str, str] = POSTGRESQL
) -> Settings:
    file = folder / "config.json"
    written = {"source": source, "destination": destination, "schemas": [{"name": "shop"}]}
    file.write_text(json.dumps(written))
    return load(file, {})


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_mysql_of_which_an_authority_is_named_is_verified(tmp_path: Path, end: str) -> None:
    named = MYSQL | {"tls_ca": "/etc/warp/ca.pem"}
    settings = configured(tmp_path, **{end: named})
    assert getattr(settings, end).options.tls == "verify"
    assert configured(tmp_path).source.options.tls == "preferred"  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", ["preferred", "required", "off"])
def test_an_authority_beside_words_that_ask_for_none_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, source=MYSQL | {"tls_ca": "/etc/warp/ca.pem", "tls": said})
    assert str(refused.value).startswith(
        f"WARP-100 source.tls: expected `verify` beside `tls_ca`, found '{said}', which trusts any "
        "server; remove one of the two"
    )


@pytest.mark.parametrize("end", ["source", "destination"])
@pytest.mark.parametrize(
    ("query", "taken"),
    [
        ("sslrootcert=/etc/warp/ca.pem", False),
        ("sslrootcert=/etc/warp/ca.pem&sslmode=prefer", False),
        ("sslrootcert=/etc/warp/ca.pem&sslmode=disable", False),
        ("sslrootcert=/etc/warp/ca.pem&sslmode=require", True),  # libpq verifies then
        ("sslrootcert=/etc/warp/ca.pem&sslmode=verify-full", True),
        ("sslrootcert=system", True),
        ("sslmode=require", True),
    ],
)
def test_an_authority_for_a_postgresql_comes_with_a_mode_that_asks_it(
    tmp_path: Path, end: str, query: str, taken: bool
) -> None:
    block = {"connection_string": f"{POSTGRESQL['connection_string']}?{query}"}
    if taken:
        assert configured(tmp_path, **{end: block})
        return
    with pytest.raises(ConfigError, match="expected sslmode=verify-full") as refused:
        configured(tmp_path, **{end: block})
    assert f"WARP-100 {end}.connection_string" in str(refused.value)
    assert "hunter2" not in str(refused.value)
