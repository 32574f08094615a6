"""What every connection to MySQL or MariaDB needs, to read from it or to write to it: the login in
a connection string, TLS, which of the two answered, and how names are quoted.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from warp.diagnosis import encryption
from warp.errors import UnitFailed
from warp.model import Diagnosis
from warp.options import ConnectorOptions

DEFAULT_PORT: Final = 3306

# A server could not make or write a file of its own, or its engine says so; only the number of the
# operating system tells why.  3 was seen of MariaDB 10.11 with a full disk, also where a statement
# only looks something up in the information schema, which needs a temporary file.
_OF_FILES: Final = frozenset({1, 3, 20, 1004, 1005, 1026, 1030})
_NO_ROOM: Final = re.compile(r"\b(?:errcode|errno|error):? (?:28|122)\b", re.IGNORECASE)
# And what then becomes of the table that the server had made for one statement: 126 was seen for
# the index of one.  The next statement has a new one.
_BROKEN: Final = frozenset({126, 127, 134, 135, 136, 145, 1034, 1035, 1194, 1195})
_OF_ONE_STATEMENT: Final = re.compile(r"#sql[-_]", re.IGNORECASE)


class Tls(StrEnum):
    PREFERRED = "preferred"
    REQUIRED = "required"
    VERIFY = "verify"
    OFF = "off"


class Flavour(StrEnum):
    MYSQL = "mysql"
    MARIADB = "mariadb"


class FamilyOptions(ConnectorOptions):
    """What a block of type `mysql` says on either side."""

    tls: Tls = Field(
        Tls.PREFERRED,
        description="`preferred` where the server offers it, `required`, `verify` (required, and "
        "the certificate must be of the host and signed by `tls_ca` or the system), or `off`; "
        "`verify` where only `tls_ca` is given",
    )
    tls_ca: Path | None = Field(None, description="PEM file of the authority to trust")
    tls_cert: Path | None = Field(None, description="PEM file of our own certificate")
    tls_key: Path | None = Field(None, description="PEM file of our own key")

    @model_validator(mode="before")
    @classmethod
    def _an_authority_is_asked(cls, data: Any) -> Any:
        """Who names an authority means it to vouch for the server; it never counts for nothing."""
        if not isinstance(data, Mapping) or data.get("tls_ca") is None:
            return data
        said = data.get("tls", Tls.VERIFY)
        if said in (Tls.PREFERRED, Tls.REQUIRED, Tls.OFF):
            raise PydanticCustomError(
                "at",
                "expected `verify` beside `tls_ca`, found {said}, which trusts any server; "
                "remove one of the two",
                {"path": ("tls",), "said": repr(str(said))},
            )
        return {**data, "tls": said}


@dataclass(frozen=True, slots=True)
class Login:
    """What a connection string says.  Holds a secret."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None
    unix_socket: str | None = None

    @staticmethod
    def parse(options: FamilyOptions, refused: type[UnitFailed]) -> Login:
        """`refused` is what is raised where the connection string cannot be read."""
        try:
            parts = urlsplit(options.url)
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise refused(
                f"expected a connection string mysql://user:password@host:3306/database, found one "
                f"that cannot be read ({_without_value(error)})"
            ) from None
        parameters = dict(parse_qsl(parts.query))
        unix_socket = parameters.pop("unix_socket", None)
        if parameters:
            raise refused(
                f"expected no parameter but unix_socket in the connection string, found "
                f"{', '.join(sorted(parameters))}; TLS is set by `tls`, `tls_ca`, `tls_cert` and "
                "`tls_key` beside it"
            )
        path = unquote(parts.path.lstrip("/"))
        return Login(
            host=parts.hostname or "127.0.0.1",
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=options.database or path or None,
            unix_socket=unix_socket,
        )

    @property
    def place(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"


def _without_value(error: ValueError) -> str:
    """urlsplit repeats the port that it cannot read, which may be a piece of a password."""
    return re.sub(r"'.*'", "'…'", str(error))


@dataclass(frozen=True, slots=True)
class Server:
    """Which server answered."""

    flavour: Flavour
    version: tuple[int, int, int]
    said: str  # the version as the server says it

    @property
    def is_mariadb(self) -> bool:
        return self.flavour is Flavour.MARIADB

    @staticmethod
    def of(said: str, refused: type[UnitFailed] = UnitFailed) -> Server:
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", said.removeprefix("5.5.5-"))
        if found is None:
            raise refused(f"a version of MySQL or MariaDB was expected, found {said!r}")
        flavour = Flavour.MARIADB if "mariadb" in said.lower() else Flavour.MYSQL
        return Server(flavour, (int(found[1]), int(found[2]), int(found[3])), said)


CIPHER: Final = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"


def of_wire(login: Login, cipher: str) -> Diagnosis:
    """`cipher` is what the server says of this very connection; empty without TLS."""
    host = None if login.unix_socket else login.host
    mend = "set `tls: verify` beside the connection string (docs/operations/tls.md)"
    return encryption("mysql-encryption", [host], bool(cipher), mend)


def identifier(*names: str) -> str:
    """Names as SQL: `a`.`b`, with every backtick doubled."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def unverified() -> ssl.SSLContext:
    """TLS with whoever answers; without the system's certificates, which take long to load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if TYPE_CHECKING:
    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection  # not to be subscripted


class Driver(_Base):
    def _create_ssl_ctx(self, given: Any) -> ssl.SSLContext:
        """The driver's own loads the system's certificates, a tenth of a second, for nothing."""
        return given if isinstance(given, ssl.SSLContext) else unverified()


def lacks_room(code: int, said: str) -> bool:
    """Is the server's disk full, or its quota used up?  It may have room again."""
    if code in _BROKEN:
        return _OF_ONE_STATEMENT.search(said) is not None
    return code in _OF_FILES and _NO_ROOM.search(said) is not None


def tls_arguments(options: FamilyOptions, refused: type[UnitFailed]) -> dict[str, Any]:
    """What the driver needs to know about TLS."""
    if options.tls is Tls.OFF:
        return {"ssl_disabled": True}
    named = {"tls_ca": options.tls_ca, "tls_cert": options.tls_cert, "tls_key": options.tls_key}
    if options.tls is Tls.PREFERRED and not any(named.values()):
        return {}
    try:
        context = unverified()
        if options.tls is Tls.VERIFY:
            context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert is not None:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f"{name} {path}" for name, path in named.items() if path)
        raise refused(f"expected readable PEM files, found: {error} ({files})") from error
    return {"ssl": context}
