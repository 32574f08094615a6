"""The first configuration of somebody new, as `cartridge-warp init` writes it.  Pure.

What stands between quotes is data that somebody else chose: names of tables, addresses of servers.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import yaml

from commands.choosing import LONGEST, plain
from warp import plugins
from warp.errors import ConfigError
from warp.model import TableId
from warp.options import redact

_MOST_LISTED: Final = 100  # tables of a schema that the file names where all of them are carried
_WIDTH: Final = 48  # a comment behind a value begins here, where the value leaves it room
_MAGIC: Final = re.compile(r"[*?\[]")
_REFERENCE: Final = re.compile(r"\$\{[^}]*\}")

EVERY_QUARTER: Final = "*/15 * * * *"


@dataclass(frozen=True, slots=True)
class Address:
    """A connection string as the file has it: no secret is in it (guarantee 10)."""

    text: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets, by their name

    @classmethod
    def of(cls, url: str, end: str) -> Address:
        """`end` names the variables: SOURCE_PASSWORD, or SOURCE_URL where the whole is a secret.

        `${…}` that is in it already stays, and so does a login without a password.
        """
        try:
            login = urlsplit(url).netloc.rpartition("@")[0]
        except ValueError:
            return cls._whole(url, end)
        password = login.partition(":")[2]
        # A password that is not percent-encoded ends elsewhere than one thinks.
        rest = url.replace(f"{login}@", "", 1) if login else url
        if "@" in _REFERENCE.sub("", rest) or redact(rest) != rest:
            return cls._whole(url, end)
        if not password or _REFERENCE.fullmatch(password):
            return cls(url)
        if "${" in url:
            # Half of it is the environment's already: what the other half is, is not ours to guess.
            raise ConfigError(
                "expected the password as ${NAME} too, where a part of the URL is, found it "
                "written out; put it into a variable of the environment",
                place=end,
            )
        name = f"{end.upper()}_PASSWORD"
        return cls(url.replace(f":{password}@", f":${{{name}}}@", 1), {name: password})

    @classmethod
    def _whole(cls, url: str, end: str) -> Address:
        name = f"{end.upper()}_URL"
        return cls(f"${{{name}}}", {name: url})


@dataclass(frozen=True, slots=True)
class Listed:
    """A table of the source, as far as somebody who chooses wants to know it."""

    id: TableId
    key: tuple[str, ...]
    rows: int | None = None  # about
    timed: bool | None = None  # has it the column that a schedule looks at?  None: nobody knows

    @property
    def told(self) -> str:
        size = "" if self.rows is None else f"about {self.rows:,} rows, "
        key = f"key {', '.join(self.key)}" if self.key else "no key"
        return plain(size + key, LONGEST)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A schema, its tables, and which of them are carried."""

    name: str
    tables: tuple[Listed, ...]  # all that are there
    entries: tuple[str, ...] = ()  # of `tables:`; empty: all of them
    stream: bool = True
    destination_schema: str | None = None

    def carried(self) -> list[Listed]:
        return [t for t in self.tables if not self.entries or matches(self.entries, t.id)]


@dataclass(frozen=True, slots=True)
class Starting:
    """All that the file says."""

    source: Address
    destination: Address
    schemas: tuple[Chosen, ...]
    source_type: str | None = None  # None: as the connection string's scheme says
    destination_type: str | None = None
    redis: Address | None = None
    output: str = "config.yaml"
    to_mend: tuple[str, ...] = ()  # what `doctor` would fail on, a line each

    @property
    def variables(self) -> dict[str, str]:
        """Secrets that the file refers to and that nobody has put into the environment yet."""
        ends = (self.source, self.destination, self.redis)
        return {name: value for end in ends if end for name, value in end.variables.items()}


# -- which tables


def entry(table: TableId) -> str:
    """How exactly this table is written among `tables:`, whatever its name."""
    name = table.name if table.name[:1] != "!" else str(table)
    if name[:1] == "!":  # of a namespace of that kind: no other way to write it
        return "?" + glob.escape(name[1:])
    return glob.escape(name) if _MAGIC.search(name) else name


def matches(entries: Sequence[str], table: TableId) -> bool:
    """Does the configuration mean this table by one of these?"""
    names = (table.name, str(table))
    return any(
        fnmatch.fnmatchcase(name, one) if _MAGIC.search(one) else name == one
        for one in entries
        for name in names
    )


def chosen(answer: str, tables: Sequence[Listed], *, by_number: bool = True) -> tuple[str, ...]:
    """What somebody means by `all`, or by names, patterns and numbers with commas between.

    A name wins over a pattern and over a number, so that every table can be named.
    """
    if answer.strip() in ("", "all", "*"):
        return ()
    named = {name: t for t in tables for name in (str(t.id), t.id.name)}
    found: list[str] = []
    for part in [answer] if answer in named else [p.strip() for p in answer.split(",")]:
        if part in named:
            found.append(entry(named[part].id))
        elif by_number and part.isdecimal() and 1 <= int(part) <= len(tables):
            found.append(entry(tables[int(part) - 1].id))
        elif _MAGIC.search(part) and any(matches([part], t.id) for t in tables):
            found.append(part)
        elif part:
            number = f", or a number from 1 to {len(tables)}" if by_number else ""
            raise ConfigError(
                f"expected a table, or a pattern that fits one{number}, found {part!r}; "
                f"{plugins.nearest(part, [t.id.name for t in tables])}",
                place="tables",
            )
    return tuple(dict.fromkeys(found))


# -- the text


def text(starting: Starting) -> str:
    """The whole file."""
    lines = [*_head(starting), *_ends(starting), "", "schemas:"]
    for schema in starting.schemas:
        lines += _schema(schema)
    lines += [*_read_whole(starting.schemas), *_rest(starting)]
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    """A text as YAML, whatever is in it; `${` in it means itself."""
    return _scalar(value.replace("${", "$${"))


def _scalar(value: str) -> str:
    dumped = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=1 << 30)
    return str(dumped).removesuffix("\n")


def _beside(line: str, comment: str) -> str:
    """A line and what there is to say about it."""
    return f"{line:{_WIDTH}}  # {comment}" if comment else line


def _head(starting: Starting) -> Iterator[str]:
    file = shlex.quote(plain(starting.output if starting.output != "-" else "config.yaml"))
    yield "# Written by `cartridge-warp init`.  Every setting is in docs/configuration.md."
    yield "#"
    for told, command in (
        ("what would happen", f"cartridge-warp plan --config {file}"),
        ("copy, then end", f"cartridge-warp --config {file} --once"),
        ("copy, then follow", f"cartridge-warp --config {file}"),
    ):
        yield f"#   {told + ':':20}{command}"
    if starting.variables:
        yield "#"
        yield "# `${NAME}` is read from the environment.  Still to be put there:"
        yield "#"
        for name in starting.variables:
            whole = name.endswith("_URL")
            what = "the whole connection string" if whole else "the password, percent-encoded"
            yield f"#   {name:20}{what}"
    if starting.to_mend:
        yield "#"
        yield "# `cartridge-warp doctor` says that this must be mended first:"
        yield "#"
        yield from (f"#   {plain(line)}" for line in starting.to_mend)
    yield ""


def _ends(starting: Starting) -> Iterator[str]:
    yield "source:"
    if starting.source_type:
        yield f"  type: {starting.source_type}"
    yield f"  connection_string: {_scalar(starting.source.text)}"
    yield ""
    yield "destination:"
    if starting.destination_type:
        yield f"  type: {starting.destination_type}"
    yield f"  connection_string: {_scalar(starting.destination.text)}"
    if not any(schema.destination_schema for schema in starting.schemas):
        yield _beside('  # schema: "…"', "of all tables; as at the source where not given")


def _schema(schema: Chosen) -> Iterator[str]:
    yield f"  - name: {quoted(schema.name)}"
    if schema.stream:
        yield _beside("    mode: stream", "changes come from the log, all the time")
    else:
        yield _beside("    mode: batch", "changes are looked for on a schedule")
        yield _beside(f'    schedule: "{EVERY_QUARTER}"', "a cron expression")
        yield "    # Rows are found by the column `updated_at`; a table without it is read whole"
        yield "    # each time.  Another column: change_detection: {column: …}"
    if schema.destination_schema:
        yield _beside(
            f"    destination_schema: {quoted(schema.destination_schema)}",
            "both ends are one server: not onto itself",
        )
    if schema.entries:
        yield _beside("    tables:", "only these; without `tables:` all, and later ones too")
        known = {entry(t.id): t for t in schema.tables}
        for one in schema.entries:
            told = known[one].told if one in known else _pattern(one, schema.tables)
            yield _beside(f"      - {quoted(one)}", told)
        return
    yield "    # All tables, later ones too.  Fewer: `tables:` with names and patterns; `!name`"
    yield "    # leaves out.  Now there are:"
    width = max((len(plain(t.id.name, LONGEST)) for t in schema.tables), default=0)
    for table in schema.tables[:_MOST_LISTED]:
        timed = ", no updated_at" if not schema.stream and table.timed is False else ""
        yield f"    #   {plain(table.id.name, LONGEST):{width}}  {table.told}{timed}"
    if len(schema.tables) > _MOST_LISTED:
        yield f"    #   and {len(schema.tables) - _MOST_LISTED:,} more"


def _pattern(pattern: str, tables: Sequence[Listed]) -> str:
    count = sum(matches([pattern], t.id) for t in tables)
    return f"{count} tables now, and later ones"


def _read_whole(schemas: Sequence[Chosen]) -> Iterator[str]:
    """A log does not say which row of a table without a key has changed (guarantee 4)."""
    keyless = [t for s in schemas if s.stream for t in s.carried() if not t.key]
    if not keyless:
        return
    yield ""
    yield "# These have no key, so that no log says which row has changed: they are read whole."
    yield "tables:"
    for table in keyless:
        # By both names, so that no table of another schema is meant.
        name = str(table.id)
        exact = "?" + name[1:] if name[:1] == "!" else name
        yield f"  - name: {quoted(glob.escape(exact) if _MAGIC.search(name) else exact)}"
        yield "    change_detection: {strategy: hash}"
        yield "    polling_interval: 15m"


def _rest(starting: Starting) -> Iterator[str]:
    yield ""
    yield "monitoring:"
    yield "  prometheus:"
    yield _beside("    enabled: false", "true: a page at /, /metrics, /healthz, /readyz")
    yield "    port: 8080"
    yield ""
    yield "error_handling:"
    yield _beside("  dead_letter_queue: true", "rows that are refused are set aside, with why")
    yield _beside("  on_lost_position: stop", "or `recover`, `resync`: docs/operations")
    yield ""
    if starting.redis is not None:
        yield "coordination:"
        yield f"  redis_url: {_scalar(starting.redis.text)}"
        return
    yield "# One command starts a Redis of its own.  Several machines need one between them:"
    yield "# coordination:"
    yield '#   redis_url: "${REDIS_URL}"'
