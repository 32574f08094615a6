"""MySQL and MariaDB as a destination: rows, quarantine, audit and marker in one transaction."""

from warp.destinations.mysql.connector import MysqlDestination
from warp.destinations.mysql.metadata import MysqlMetadata
from warp.destinations.mysql.session import MysqlWriterOptions

__all__ = ["MysqlDestination", "MysqlMetadata", "MysqlWriterOptions"]
