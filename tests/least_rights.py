"""Logins with the rights that the pages of docs/ give them and no others, by their own lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

DOCS: Final = Path(__file__).parents[1] / "docs"
PASSWORD: Final = "s3cret-of-tests"


def blocks(page: str, language: str) -> list[str]:
    """The code of a page, one text for each of its blocks."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", (DOCS / page).read_text(), re.M | re.S)


def make_postgresql_writer(
    admin: psycopg.Connection[Any], role: str, schemas: Sequence[str]
) -> None:
    """The role of docs/destinations/postgresql.md, in the database of the connection."""
    [rights, _] = blocks("destinations/postgresql.md", "sql")
    names = {"cartridge_warp": role, "warehouse": admin.info.dbname}
    for statement in _statements(rights):
        each = schemas if re.search(r"\bshop\b", statement) else [""]
        for schema in each:
            _run(admin, statement, {**names, "shop": schema})


def make_postgresql_reader(
    admin: psycopg.Connection[Any], role: str, *, owner: str, schema: str
) -> None:
    """The role of docs/sources/postgresql.md that is a member of the tables' owner."""
    page = (DOCS / "sources/postgresql.md").read_text()
    [created] = [b for b in blocks("sources/postgresql.md", "sql") if "CREATE ROLE" in b]
    [member] = re.findall(r"`(GRANT shop_owner TO [^`]*)`", page)
    names = {"cdc": role, "shop_owner": owner, "shop": admin.info.dbname}
    for statement in _statements(f"{created}\n{member}"):
        if not statement.startswith(("ALTER SYSTEM", "SELECT")):  # settings of the whole server
            _run(admin, statement, names)


def mysql_reader(user: str, database: str, *, mariadb: bool) -> Iterator[str]:
    """What makes the user of docs/sources/mysql.md; its password is PASSWORD."""
    [rights] = [b for b in blocks("sources/mysql.md", "sql") if "CREATE USER" in b]
    of_mariadb, of_mysql = re.fullmatch(r"-- MariaDB\n(.*)-- MySQL\n(.*)", rights, re.S).groups()  # type: ignore[union-attr]
    # `_` and `%` are wildcards in a grant.
    escaped = "`" + re.sub(r"([\\_%])", r"\\\1", database) + "`"
    for statement in _statements(of_mariadb if mariadb else of_mysql):
        named = re.sub(r"\bwarp\b", f"`{user}`", statement).replace("'…'", f"'{PASSWORD}'")
        yield named.replace("ON shop.*", f"ON {escaped}.*")


def mysql_writer(user: str, metadata: str, database: str) -> Iterator[str]:
    """What makes the databases and the user of docs/destinations/mysql.md; its password is
    PASSWORD."""
    [rights] = blocks("destinations/mysql.md", "sql")
    names = {"cartridge_warp_metadata": metadata, "cartridge_warp": user, "shop": database}
    for statement in _statements(rights):
        # `_` is a wildcard in a grant.
        named = re.sub(r"\b\w+\b", lambda found: names.get(found[0], found[0]), statement)
        named = re.sub(
            r"ON (\w+)\.\*", lambda f: f"ON `{f[1].replace('_', chr(92) + '_')}`.*", named
        )
        yield named.replace("'CHANGE-ME'", f"'{PASSWORD}'")


def _statements(text: str) -> Iterator[str]:
    lines = (line.split("--")[0].rstrip() for line in text.splitlines())
    yield from filter(None, (part.strip() for part in "\n".join(lines).split(";")))


def _run(admin: psycopg.Connection[Any], statement: str, names: Mapping[str, str]) -> None:
    def named(found: re.Match[str]) -> str:
        return sql.Identifier(names[found[0]]).as_string(None)

    words = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    given = re.sub(rf"\b(?:{words})\b", named, statement)
    secret = sql.Literal(PASSWORD).as_string(None)
    admin.execute(re.sub(r"'(?:…|CHANGE-ME)'", lambda _: secret, given).encode())
