"""PostgreSQL as a destination: rows, quarantine, audit and marker in one transaction."""

from warp.destinations.postgresql.connector import PostgresDestination
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.session import PostgresOptions

__all__ = ["PostgresDestination", "PostgresMetadata", "PostgresOptions"]
