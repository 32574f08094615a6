"""Errands: what an operator asks for once.  The intent is stored in the destination; rq carries it.

The intent comes first, so that a Redis lost in between loses nothing: whoever notices the loss
calls `carry_open` and every intent that is not done travels again.  rq carries the errand's id and
its short name only; what to do is read from the intent.  `workers.errands` carries them out.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from warp.errors import ConfigError, LedgerUnavailable, StartFailed
from warp.interfaces import MetadataStore

PREFIX: Final = "cw-rq"
os.environ["RQ_KEY_PREFIX"] = PREFIX  # rq reads it when it is imported, and only then

import redis  # noqa: E402
import rq.defaults  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.connection import parse_url  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402
from redis.retry import Retry  # noqa: E402
from rq.job import Job, JobStatus  # noqa: E402
from rq.queue import Queue  # noqa: E402
from rq.serializers import JSONSerializer  # noqa: E402

NAMES: Final = frozenset({"resync", "recover", "revive", "pause", "resume", "replay"})
LONGEST: Final = 120  # seconds an errand may take; the long part of the work is done by units
KEEP_RESULT: Final = 24 * 3600
KEEP_FAILURE: Final = 7 * 24 * 3600


class Errand(Job):
    """An rq job that imports nothing and calls nobody, whatever its record in Redis says.

    rq would import the function and the three callbacks by the names it finds there, so that
    whoever can write to Redis could have any importable function called.
    """

    func: ClassVar[None] = None
    success_callback: ClassVar[None] = None
    failure_callback: ClassVar[None] = None
    stopped_callback: ClassVar[None] = None

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Never: the addresses come from Redis."""


def intend(metadata: MetadataStore, name: str, arguments: Mapping[str, Any]) -> str:
    """Store an intent; its id.  From here on the errand will be done, whatever is lost."""
    if name not in NAMES:
        raise ConfigError(f"expected an errand ({', '.join(sorted(NAMES))}), found {name!r}")
    id = uuid.uuid4().hex
    metadata.add_errand(id, name, arguments)
    return id


class ErrandQueue:
    """The way of errands to the workers of one namespace."""

    def __init__(self, redis_url: str, namespace: str, *, timeout: float = 2.0) -> None:
        if rq.defaults.RQ_KEY_PREFIX != PREFIX:
            raise StartFailed(
                f"expected rq to keep its keys under {PREFIX!r}, found "
                f"{rq.defaults.RQ_KEY_PREFIX!r}; import warp.errands before rq, and use rq 3.0 "
                "or later"
            )
        if "+cluster://" in redis_url:
            raise ConfigError(
                "expected a single Redis for errands, found a cluster, which rq's workers cannot "
                "use; give errands a Redis of their own",
                place="coordination.redis_url",
            )
        try:
            options: dict[str, Any] = parse_url(redis_url)  # type: ignore[no-untyped-call]
        except ValueError:
            raise ConfigError(
                "expected a Redis URL, found one that cannot be read",
                place="coordination.redis_url",
            ) from None
        self.address = str(options.get("path") or f"{options.get('host')}:{options.get('port')}")
        self.connection: Any = redis.Redis.from_url(
            redis_url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self.queue = Queue(
            namespace,
            connection=self.connection,
            job_class=Errand,
            serializer=JSONSerializer,
            default_timeout=LONGEST,
        )

    def submit(self, metadata: MetadataStore, name: str, arguments: Mapping[str, Any]) -> str:
        """Store the intent, then send it; its id.

        LedgerUnavailable means that it is stored and not sent: it will be, by `carry_open`.
        """
        id = intend(metadata, name, arguments)
        self._send(id, name)
        return id

    def carry_open(self, metadata: MetadataStore) -> list[str]:
        """Send every intent that is neither done nor on its way; their ids.

        For whoever finds that Redis was wiped.  Harmless at any time and from any process: an
        errand carried twice finds its intent done.
        """
        sent = []
        for id, name, _ in metadata.open_errands():
            with self._reaching():
                # Not by its status alone: the record can outlive the place in the queue.
                travelling = id in self.queue.job_ids or self._status(id) is JobStatus.STARTED
            if name in NAMES and not travelling:
                self._send(id, name)
                sent.append(id)
        return sent

    def take_back(self, id: str) -> bool:
        """Take an errand that nobody has begun from the queue; False where somebody has it."""
        with self._reaching():
            taken = bool(self.connection.lrem(self.queue.key, 0, id))
            if taken:
                self.connection.delete(Errand.key_for(id))
        return taken

    def _send(self, id: str, name: str) -> None:
        with self._reaching():
            self.queue.enqueue_call(
                name,
                job_id=id,
                timeout=LONGEST,
                result_ttl=KEEP_RESULT,
                failure_ttl=KEEP_FAILURE,
                description=f"{name} {id}",
            )

    def _status(self, id: str) -> JobStatus | None:
        status = self.connection.hget(Errand.key_for(id), "status")
        known = {s.value: s for s in JobStatus}
        return known.get(bytes(status).decode("utf-8", "replace")) if status else None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(
                f"expected Redis at {self.address} to take an errand, found "
                f"{type(error).__name__}: {error}; its intent is stored and will be sent again",
                place=self.address,
            ) from error

    def close(self) -> None:
        self.connection.close()
