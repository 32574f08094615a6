"""Can this server do what we need?  Looked at before work starts, and by `doctor`.

Each finding carries the statement that mends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from psycopg import sql

from warp.diagnosis import encryption
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Capture, Diagnosis, Verdict
from warp.sources.postgresql.catalog import Catalog, Table
from warp.sources.postgresql.publication import Publication
from warp.sources.postgresql.replication import Replication
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.slots import PLUGIN, Slot

OLDEST: Final = 150000
_LONG_OPEN: Final = 60.0  # seconds
_MUCH_RETAINED: Final = 1 << 30

Selected = Sequence[tuple[Table, Capture]]


def diagnose(
    server: Server, catalog: Catalog, slot: Slot, publication: Publication, selected: Selected
) -> list[Diagnosis]:
    """Everything that was looked at."""
    ((version, standby, level, slots, slots_used, senders, senders_used, kept, *of_role),) = (
        server.ask("preflight", doing="look at the server's settings")
    )
    role, replicates, creates, database, sees_others = of_role
    found = [
        _encryption(server),
        _judged(
            "version",
            version >= OLDEST,
            "server",
            "PostgreSQL 15 or later",
            _version(version),
            "upgrade the server",
        ),
    ]
    followed = [table for table, capture in selected if capture is Capture.LOG]
    if followed or not selected:
        found.append(
            _judged(
                "primary",
                not standby,
                "server",
                "a primary",
                "a standby" if standby else "one",
                "name the primary in the connection string",
            )
        )
        found.append(
            _judged(
                "wal-level",
                level == "logical",
                "wal_level",
                "logical",
                level,
                "ALTER SYSTEM SET wal_level = 'logical'; and restart the server",
            )
        )
        right = _judged(
            "replication",
            replicates,
            f"role {role}",
            "the attribute REPLICATION",
            "it" if replicates else "none",
            _sql("ALTER ROLE {} REPLICATION", sql.Identifier(role)),
        )
        found.append(right)
        if not standby and level == "logical":
            found += _slot(slot, slots, slots_used, database)
            if replicates:
                found.append(_sender(server, senders, senders_used))
            found.append(_retention(kept))
            found += _open_transactions(server, slot)
            found += _idle_slots(server, slot)
        found.append(_sight(sees_others, role))
        found += _publication(publication, followed, creates, role, database)
    found += _tables(server, publication, selected, role)
    return found


def _encryption(server: Server) -> Diagnosis:
    ((encrypted,),) = server.ask("encryption", doing="look at the connection")
    return encryption(
        "postgresql-encryption",
        server.host.split(","),
        bool(encrypted),
        "add sslmode=verify-full to the connection string (docs/operations/tls.md)",
    )


def _judged(
    code: str,
    good: bool,
    subject: str,
    expected: str,
    found: str,
    mend: str,
    bad: Verdict = Verdict.FAILED,
) -> Diagnosis:
    verdict = Verdict.OK if good else bad
    return Diagnosis(f"postgresql-{code}", verdict, subject, expected, found, "" if good else mend)


def _sql(template: str, *parts: sql.Composable) -> str:
    return sql.SQL(template).format(*parts).as_string()


def _version(number: int) -> str:
    return f"PostgreSQL {number // 10000}.{number % 10000}"


def _slot(slot: Slot, slots: int, used: int, database: str) -> list[Diagnosis]:
    state = slot.state()
    name = f"slot {slot.name}"
    drop = _sql("SELECT pg_drop_replication_slot({})", sql.Literal(slot.name))
    if state is None:
        return [
            _judged(
                "slots-free",
                used < slots,
                "max_replication_slots",
                "a free slot",
                f"{used} of {slots} in use",
                f"ALTER SYSTEM SET max_replication_slots = {slots + 5}; and restart, or drop one "
                "that nobody uses (SELECT pg_drop_replication_slot('…'))",
            )
        ]
    found = [
        _judged(
            "slot",
            state.plugin == PLUGIN and state.database == database,
            name,
            f"one of {PLUGIN} in {database}",
            f"{state.plugin} in {state.database or 'none'}",
            f"name another with `slot:`, or {drop}",
        ),
        _judged(
            "slot-lost",
            not state.lost,
            name,
            "a slot that holds its log",
            f"lost ({state.reason or 'its log was removed'})" if state.lost else "one",
            "run `cartridge-warp recover SCHEMA`, which makes it anew",
        ),
    ]
    if state.safe_bytes is not None and state.retained_bytes:
        found.append(
            _judged(
                "slot-room",
                state.safe_bytes > state.retained_bytes / 4,
                name,
                "room until its log is removed",
                f"{state.safe_bytes:,} bytes left, {state.retained_bytes:,} held",
                "raise max_slot_wal_keep_size, or let the stream catch up",
                Verdict.WARNING,
            )
        )
    return found


def _sender(server: Server, senders: int, used: int) -> Diagnosis:
    """Tried for real: pg_hba.conf may let a role in for queries and not for this."""
    said = "it connects"
    try:
        Replication(server).close()
    except (SourceRefused, SourceUnavailable) as error:
        said = error.message
    return _judged(
        "senders-free",
        said == "it connects",
        "replication connection",
        f"a free one of max_wal_senders ({senders}, {used} in use)",
        said,
        f"ALTER SYSTEM SET max_wal_senders = {senders + 5}; and restart; and let the role in by "
        "pg_hba.conf",
    )


def _retention(kept: str) -> Diagnosis:
    return _judged(
        "retention",
        kept != "-1",
        "max_slot_wal_keep_size",
        "a bound on the log that a slot may hold",
        "none: while nobody follows the slot, the log grows until the disk is full"
        if kept == "-1"
        else kept,
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()",
        Verdict.WARNING,
    )


def _open_transactions(server: Server, slot: Slot) -> list[Diagnosis]:
    rows = server.ask("running", doing="look at open transactions")
    old = [row for row in rows if row[2] is None or row[2] > _LONG_OPEN]
    making = slot.state() is None
    pids = ", ".join(str(pid) for pid, _, _ in old if pid)
    return [
        _judged(
            "open-transactions",
            not (old and making),
            "open transactions",
            "none that is long open, for making the slot waits for them",
            slot.running() if old else "none",
            f"wait, or SELECT pg_terminate_backend(pid) for {pids or 'the prepared ones'}",
            Verdict.WARNING,
        )
    ]


def _idle_slots(server: Server, slot: Slot) -> list[Diagnosis]:
    rows = server.ask("idle_slots", doing="look at the slots")
    return [
        _judged(
            "idle-slot",
            False,
            f"slot {name}",
            "no slot that nobody follows",
            f"it holds {retained or 0:,} bytes of the log",
            _sql("SELECT pg_drop_replication_slot({}), if nobody needs it", sql.Literal(name)),
            Verdict.WARNING,
        )
        for name, retained in rows
        if name != slot.name or (retained or 0) > _MUCH_RETAINED
    ]


def _sight(sees: bool, role: str) -> Diagnosis:
    return _judged(
        "sees-sessions",
        sees,
        f"role {role}",
        "the role pg_read_all_stats",
        "it" if sees else "none: chunks also wait for sessions that are idle in a transaction",
        _sql("GRANT pg_read_all_stats TO {}", sql.Identifier(role)),
        Verdict.WARNING,
    )


def _publication(
    publication: Publication, followed: Sequence[Table], creates: bool, role: str, database: str
) -> list[Diagnosis]:
    state = publication.state()
    name = f"publication {publication.name}"
    publishable = [table for table in followed if not table.obstacle]
    if state is None:
        grant = _sql(
            "GRANT CREATE ON DATABASE {} TO {}", sql.Identifier(database), sql.Identifier(role)
        )
        made = publication.creating(publishable).as_string()
        return [
            _judged(
                "publication",
                creates,
                name,
                "it, or the right to make it",
                "the right" if creates else "neither",
                f"{grant}; or have an administrator run: {made}",
            )
        ]
    altering = sql.Identifier(publication.name)
    return [
        _judged(
            "publication-whole",
            state.whole,
            name,
            "all of insert, update, delete and truncate",
            "them" if state.whole else "not all of them",
            _sql(
                "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')", altering
            ),
        ),
        _judged(
            "publication-root",
            state.via_root or not any(t.partitioned for t in followed),
            name,
            "partitions published under their root's name",
            "so" if state.via_root else "each under its own",
            _sql("ALTER PUBLICATION {} SET (publish_via_partition_root = true)", altering),
        ),
    ]


def _tables(
    server: Server, publication: Publication, selected: Selected, role: str
) -> list[Diagnosis]:
    rights = {
        row[0]: row[1:]
        for row in server.ask(
            "rights",
            {"oids": [table.oid for table, _ in selected]},
            doing="look at the rights on tables",
        )
    }
    state = publication.state()
    followed = [table for table, capture in selected if capture is Capture.LOG]
    # One of many is left out; a schema of which nothing can be followed is a mistake.
    useless = bool(followed) and all(table.obstacle for table in followed)
    left_out = Verdict.FAILED if useless else Verdict.WARNING
    found: list[Diagnosis] = []
    for table, capture in selected:
        if table.oid not in rights:  # dropped since
            continue
        enters, reads, owns, filtered, owner = rights[table.oid]
        name = sql.Identifier(table.id.namespace, table.id.name)
        to = sql.Identifier(role)
        bad: list[Any] = []
        if not enters:
            grant = _sql("GRANT USAGE ON SCHEMA {} TO {}", sql.Identifier(table.id.namespace), to)
            bad.append(("rights", "USAGE on its schema", "none", grant, Verdict.FAILED))
        if not reads:
            grant = _sql("GRANT SELECT ON {} TO {}", name, to)
            bad.append(("rights", "SELECT on it", "none", grant, Verdict.FAILED))
        if filtered:
            mend = _sql("ALTER ROLE {} BYPASSRLS", to)
            seen = "row-level security, under which it silently sees fewer rows"
            bad.append(("row-security", f"all rows for {role}", seen, mend, Verdict.FAILED))
        if capture is Capture.LOG:
            if table.obstacle:
                mend = _sql("ALTER TABLE {} ADD PRIMARY KEY (…)", name)
                if table.identity == "n":
                    mend = _sql("ALTER TABLE {} REPLICA IDENTITY DEFAULT", name)
                if not table.logged:
                    mend = _sql("ALTER TABLE {} SET LOGGED", name)
                mend += f", or leave the table out: `!{table.id.name}` under `tables`"
                told = "a key in the log"
                bad.append(("replica-identity", told, table.obstacle, mend, left_out))
            elif not table.published and not (owns and (state is None or state.ours)):
                mend = "; ".join(s.as_string() for s in publication.adding(table))
                if state is None:
                    mend = publication.creating([table]).as_string()
                grant = _sql("GRANT {} TO {}", sql.Identifier(owner), to)
                bad.append(
                    (
                        "published",
                        f"it in the publication {publication.name}",
                        "it left out, and no right to add it (it is its owner's)",
                        f"as its owner: BEGIN; {mend}; COMMIT; or {grant}",
                        Verdict.FAILED,
                    )
                )
        for code, expected, seen, mend, verdict in bad:
            found.append(
                Diagnosis(f"postgresql-{code}", verdict, f"table {table.id}", expected, seen, mend)
            )
        if not bad:
            found.append(
                Diagnosis(
                    "postgresql-table",
                    Verdict.OK,
                    f"table {table.id}",
                    "a table that can be read",
                    "one",
                )
            )
    return found
