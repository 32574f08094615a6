"""The connection string of a PostgreSQL, read from or written to."""

from __future__ import annotations

from typing import Annotated, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, SecretStr

from warp.options import Secret, expected

# With `require` libpq too verifies, where an authority is named; the others go on without.
_VERIFIES: Final = ("require", "verify-ca", "verify-full")
_SYSTEM: Final = "system"  # which makes `verify-full` the default


def _checked(value: SecretStr) -> SecretStr:
    try:
        said = conninfo_to_dict(value.get_secret_value())
    except psycopg.Error:
        # The driver's message quotes the string, password and all (guarantee 10).
        raise expected("a PostgreSQL URL such as postgresql://user@host:5432/database") from None
    mode = said.get("sslmode")
    if said.get("sslrootcert", _SYSTEM) != _SYSTEM and mode not in _VERIFIES:
        # libpq would try TLS with that authority, and go on in clear where it fails.
        raise expected(
            "sslmode=verify-full beside sslrootcert, without which another server is trusted "
            f"all the same (sslmode is {mode or 'not given'})"
        )
    return value


PostgresUrl = Annotated[Secret, AfterValidator(_checked)]
