"""What each error of MySQL and MariaDB means for the unit: wait, stop, or the log is gone.

Error 1236 stands for a dozen things that only its text tells apart; each text below was seen on
MariaDB 10.11 or MySQL 9.7 except where a comment says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pymysql

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.mysql_family import lacks_room
from warp.options import redact

TABLE_DEFINITION_CHANGED: Final = 1412
NO_SUCH_TABLE: Final = 1146
LOCK_WAIT: Final = 1205
BAD_FIELD: Final = 1054
NO_SUCH_KEY: Final = 1176
FATAL_READING_BINLOG: Final = 1236

_LOGIN: Final = frozenset({1045, 1698, 1251, 2059, 2061, 3118, 3159, 1862, 1820, 1130})
_RIGHTS: Final = frozenset({1044, 1142, 1143, 1227, 1370, 1095})
# Everything that another try, or a server that has come up, mends.
_TRANSIENT: Final = frozenset(
    {
        1040,  # too many connections
        1053,  # server shutdown in progress
        1077,  # normal shutdown
        1079,  # shutdown complete
        1158,  # network errors
        1159,
        1160,
        1161,
        1203,  # this user has too many connections
        1205,  # lock wait timeout: an ALTER is under way
        1213,  # deadlock
        1226,  # a resource limit of the user, by the hour
        1290,  # --read-only and the like
        1317,  # query interrupted
        1412,  # table definition has changed
        1927,  # connection was killed (MariaDB)
        1969,  # max_statement_time exceeded
        2002,
        2003,
        2006,
        2013,
        2055,
        3024,  # max_execution_time exceeded
        3032,  # offline mode
        3169,  # session was killed
        4031,  # disconnected by the server because of inactivity
    }
)
_NO_TABLE: Final = frozenset({NO_SUCH_TABLE, BAD_FIELD, NO_SUCH_KEY, 1049, 1051, 1109})

# By a server that was told to have, or to have not, global ids, of what it wrote before.
_OTHER_IDS: Final = re.compile(r"cannot replicate (?:anonymous|gtid-)", re.IGNORECASE)

# What the server says of a place that its log no longer, or never, had.
_GONE: Final = re.compile(
    r"could not find first log file name"
    r"|could not find gtid state requested"
    r"|purged required binary logs|has purged"
    r"|gtid .* is not in the master'?s binlog|which is not in the master"
    r"|slave has more gtids than|replica has more gtids than"
    r"|impossible position|bogus data|log event entry exceeded max_allowed_packet"
    r"|read.*binlog.* position|not a binlog file|error in log format|binlog truncated"
    r"|client requested (?:master|source) to start repl"
    r"|an attempt was made to start replication",
    re.IGNORECASE,
)


def code_of(error: BaseException) -> int:
    """The server's or the driver's number; 0 where there is none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def text_of(error: BaseException) -> str:
    said = error.args[1] if len(error.args) > 1 else str(error)
    return redact(str(said))


def is_transient(code: int) -> bool:
    return code in _TRANSIENT


def translate(code: int, said: str, doing: str) -> WarpError:
    """The error of ours that a server's error is.  `doing` completes "could not …"."""
    if code == FATAL_READING_BINLOG:
        return of_the_log(said)
    if "CERTIFICATE_VERIFY_FAILED" in said or "server doesn't support" in said or code == 2026:
        return SourceRefused(
            f"TLS as the configuration asks for it was expected; could not {doing}: {said} "
            f"({code}); correct `tls` and `tls_ca`, or the server's certificate"
        )
    if code in _LOGIN:
        return SourceRefused(
            f"a login that works was expected; could not {doing}: {said} ({code}); check user, "
            "password and from which hosts the user may connect"
        )
    if code in _RIGHTS:
        return SourceRefused(
            f"more rights were expected; could not {doing}: {said} ({code}); "
            "docs/sources/mysql.md has the GRANT statements"
        )
    if code in _NO_TABLE:
        return SourceUnavailable(
            f"could not {doing}: {said} ({code}); the table was changed or dropped meanwhile"
        )
    if lacks_room(code, said):
        return SourceUnavailable(f"could not {doing}: {said} ({code}); make room at the server")
    if code in _TRANSIENT or code == 0:
        return SourceUnavailable(
            f"a server that answers was expected; could not {doing}: {said} ({code}); start the "
            "server or correct the source's connection string"
        )
    return SourceRefused(f"could not {doing}: {said} (error {code})")


def of_the_log(said: str) -> WarpError:
    """What the server means when it ends the stream of its log with error 1236."""
    if _GONE.search(said):
        return PositionLost(
            f"the binary log was expected to hold the marker's place, found: {said}; changes in "
            "between are gone from it: run `cartridge-warp recover SCHEMA`, which writes only rows "
            "that differ, or `cartridge-warp resync SCHEMA`, which reads all of them again, and "
            "keep the log for longer (binlog_expire_logs_seconds)"
        )
    if _OTHER_IDS.search(said):
        return PositionLost(
            f"transactions as gtid_mode has them were expected in the log, found: {said}; set "
            "gtid_mode back and run `cartridge-warp revive UNIT` until the stream has "
            "passed them, or run `cartridge-warp resync SCHEMA`"
        )
    if "same server_uuid/server_id" in said or "same server_id" in said:
        return SourceUnavailable(f"the server ended the stream of its log: {said}")
    if "checksum" in said.lower():
        return SourceRefused(
            f"a reader that understands checksums was expected by the server, found: {said}; "
            "this is a fault of ours: report it"
        )
    if "not open" in said.lower() or "is not enabled" in said.lower():
        return SourceRefused(
            f"a server that writes a binary log was expected, found: {said}; set log_bin and "
            "restart it"
        )
    return SourceUnavailable(f"the server ended the stream of its log: {said} (1236)")


def refused(packet: bytes, doing: str) -> WarpError:
    """What a packet means in which the server refuses: 0xFF, number, [`#` and SQLSTATE], text."""
    said = packet[3:].decode("utf-8", "replace")
    if said.startswith("#"):
        said = said[6:]
    return translate(int.from_bytes(packet[1:3], "little"), redact(said), doing)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Errors of the driver inside leave as errors of ours."""
    try:
        yield
    except pymysql.err.Error as error:
        raise translate(code_of(error), text_of(error), doing) from error
    except RuntimeError as error:
        # PyMySQL's own: a password that only the package `cryptography` can send without TLS.
        if "cryptography" not in str(error):
            raise
        raise SourceRefused(
            f"the package cryptography was expected for this login without TLS; could not {doing}: "
            "run `pip install 'pymysql[rsa]'`, or set `tls: required`"
        ) from error
    except OSError as error:
        raise SourceUnavailable(
            f"a server that answers was expected; could not {doing}: {error}"
        ) from error
