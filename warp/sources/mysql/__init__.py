"""MySQL and MariaDB as a source: 8.0 and 10.5 or later, through their binary log.

A database is a namespace.  Reading is split by what is read: `stream` (the log, as `dump` brings
it and `binlog` decodes it), `snapshot` (key ranges); `position` says what a place in the log is,
`columns` what a column's values are, and `preflight` what the server must be set to.
"""

from warp.sources.mysql.connection import MysqlOptions
from warp.sources.mysql.connector import MysqlSource

__all__ = ["MysqlOptions", "MysqlSource"]
