"""What each error of a MySQL or MariaDB destination means: wait, stop, or one row's fault.

The numbers were seen on MariaDB 10.11 or MySQL 9.7 except where a comment says otherwise.
"""

from __future__ import annotations

from typing import Final

import pymysql

DUPLICATE: Final = 1062
SAME_INDEX: Final = 1061  # an index of this name is there
LOCK_WAIT: Final = 1205
DEADLOCK: Final = 1213
ROW_TOO_LARGE: Final = frozenset({1117, 1118})  # too many columns; a row that no page holds
NO_LOCAL_FILES: Final = frozenset({1148, 3948, 4166})  # LOAD DATA LOCAL is switched off

# One row's fault, so that the others can land without it.
_OF_A_VALUE: Final = frozenset(
    {
        1048,  # a column that cannot be NULL
        DUPLICATE,
        1105,  # unknown error: what some functions of the owner's triggers say
        1118,  # the row is larger than a page takes
        1169,  # a unique constraint, of other engines
        1242,  # a trigger's subquery
        1263,  # NULL into a column that cannot be NULL, of LOAD DATA
        1264,  # out of range
        1265,  # truncated
        1292,  # no date, no number
        1300,  # no character of utf8mb4
        1364,  # a column without a default, which an adopted table has
        1366,  # no value of the column's type
        1367,
        1406,  # too long
        1411,
        1441,  # a date beyond the calendar
        1451,  # foreign keys: we do not check them, triggers may
        1452,
        1526,  # no partition for the value
        1557,
        1644,  # SIGNAL in a trigger of the table's owner
        1690,  # out of range in an expression
        1761,
        1762,
        3140,  # no JSON
        3819,  # a CHECK (MySQL)
        3903,
        4025,  # a CHECK (MariaDB)
        4088,
    }
)
# The table is not as it was registered: no such column, no such table, another number of columns.
MOVED: Final = frozenset({1054, 1136, 1146, 1412})
_LOGIN: Final = frozenset({1045, 1698, 1251, 2059, 2061, 3118, 3159, 1862, 1820, 1130})
_SSL: Final = 2026  # the driver's own
_RIGHTS: Final = frozenset({1044, 1142, 1143, 1227, 1370, 1410})
# Everything that another try, or a server that has come up, mends.
_TRANSIENT: Final = frozenset(
    {
        1021,  # disk full
        1040,  # too many connections
        1053,  # server shutdown in progress
        1077,
        1079,
        1114,  # the table is full: of temporary tables it is the disk
        1158,
        1159,
        1160,
        1161,
        1203,  # this user has too many connections
        LOCK_WAIT,
        DEADLOCK,
        1226,  # a resource limit of the user, by the hour
        1317,  # query interrupted
        1412,  # the table's definition has changed
        1614,
        1637,
        1927,  # connection was killed (MariaDB)
        1969,  # max_statement_time exceeded
        2002,
        2003,
        2006,
        2013,
        2014,
        2055,
        3024,  # max_execution_time exceeded
        3032,  # offline mode
        3058,  # a deadlock of user-level locks
        3101,  # group replication rolled the transaction back
        3169,  # session was killed
        4031,  # disconnected because of inactivity
    }
)
ADVICE: Final = {
    1290: "the server takes no writes: connect to the primary",
    1836: "the server takes no writes: connect to the primary",
    1049: "create the database, or let cartridge-warp make it",
    1146: "run any cartridge-warp command that prepares the metadata, such as `validate`",
    1665: "set binlog_format = ROW (or MIXED) at the server",
}


class NotAsSent(Exception):
    """LOAD DATA LOCAL says of values it could not store as they are in warnings only."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.number = number


def code_of(error: BaseException) -> int:
    """The server's or the driver's number; 0 where there is none."""
    if isinstance(error, NotAsSent):
        return error.number
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def said_by(error: BaseException) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def is_of_a_value(error: BaseException) -> bool:
    """Is it one row's fault, so that the others can land without it?"""
    if isinstance(error, pymysql.err.Error):
        return code_of(error) in _OF_A_VALUE
    return isinstance(error, NotAsSent | UnicodeError | OverflowError)


def is_of_tls(code: int, said: str) -> bool:
    """Would the driver not go on with this server?"""
    return code == _SSL or "CERTIFICATE_VERIFY_FAILED" in said or "server doesn't support" in said


def is_login(code: int) -> bool:
    return code in _LOGIN


def is_of_a_right(code: int) -> bool:
    return code in _RIGHTS


def is_transient(code: int) -> bool:
    return code in _TRANSIENT


def is_moved(error: BaseException) -> bool:
    return isinstance(error, pymysql.err.Error) and code_of(error) in MOVED
