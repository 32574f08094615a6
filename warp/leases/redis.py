"""The ledger in Redis: one script per step, so that each step happens whole or not at all.

The scripts are the `.lua` files beside this module; `lua/prelude.lua` opens with the table of
keys.  Redis holds hints only.  Whatever happens to it, the destination checks the fence itself
(guarantee 2), and the coordinator builds the ledger anew (guarantee 7).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any, Final, TypeAlias

import redis
import structlog
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
)
from redis.retry import Retry

from warp.errors import ConfigError, LedgerUnavailable, UnitRefused
from warp.leases import look, spec
from warp.machine import THIS_MACHINE, Machine
from warp.model import (
    Diagnosis,
    Lease,
    LeasedUnit,
    LedgerStats,
    Verdict,
    WorkerState,
    WorkUnit,
)

log = structlog.get_logger(__name__)

Client: TypeAlias = redis.Redis | RedisCluster

KEYS: Final = (
    *("due", "later", "exp", "own", "fence", "since", "again", "tries", "spec"),
    *("workers", "cap", "held", "demand", "dead", "gen", "chunks", "rss"),
    "bell",  # a channel; last
)
MOST_RENEWED: Final = 250
LONGEST_ID: Final = 4_096  # bytes; schema, namespace and table are a few hundred at most
_MOST_OFFERED: Final = 500  # units of one `ensure` call: about 2 ms of the server's time
# Seconds: a peer that has vanished cannot be told from one that has nothing to say, so a line on
# which nobody rang is made anew.
_SILENT: Final = 30.0
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# RedisClusterException is no RedisError.
_FAILURES: Final = (RedisError, RedisClusterException, OSError)
_CLUSTER: Final = "+cluster://"


class RedisLeaseStore:
    """`warp.interfaces.LeaseStore` on Redis 6.2 or later, Valkey, or a cluster of either.

    Pass a URL (`redis://`, `rediss://`, `unix://`, `redis+cluster://`, `rediss+cluster://`) and
    connections get what the ledger needs: answers within a fifth of the lease, and no call ever
    sent twice behind our back, since a claim whose answer was lost has happened.  A client of your
    own must be set up so too.
    """

    def __init__(
        self,
        client_or_url: Client | str,
        namespace: str,
        *,
        lease_ttl: float = 10.0,
        max_tries: int = 10,
        healthy_after: float | None = None,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        """`max_tries` consecutive failures or crashes set a unit aside.

        A hold of `healthy_after` seconds lets them count anew.  The default is longer than a unit
        without progress is kept alive, else a stuck unit would look healthy each time.
        """
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigError(
                f"expected a ledger namespace of letters, digits, '_', '.' and '-', "
                f"found {namespace!r}; change coordination.namespace",
                place="coordination.namespace",
            )
        if healthy_after is None:
            healthy_after = max(90.0, 8 * lease_ttl)
        self.namespace = namespace
        self.keys = tuple(f"cw:{{{namespace}}}:{key}" for key in KEYS)
        self._lease_ttl = lease_ttl
        self._machine = machine
        self._settings = (max_tries, _ms(healthy_after))
        self._client: Client | None = None
        self._connect: Callable[[], Client] | None = None
        self._own_client = isinstance(client_or_url, str)
        self._encrypted = False  # of a client of somebody else nobody knows
        if isinstance(client_or_url, str):
            self.address, self.user, self._connect = _connector(
                client_or_url, timeout=lease_ttl / 5
            )
            self._encrypted = client_or_url.startswith("rediss")
        else:
            self.address, self.user = _address_of(client_or_url), "default"
            self._client = client_or_url
        self._connecting = threading.Lock()
        self._listening = threading.Lock()  # held by the one thread that uses _pubsub
        self._pubsub: Any = None
        self._heard_at = 0.0
        self._closed = False
        self.on_refused: Callable[[UnitRefused], object] = lambda error: None  # to count them

    # ------------------------------------------------------------ what should run

    def ensure(self, units: Sequence[WorkUnit]) -> int:
        added = 0
        for part in _parts(units, _MOST_OFFERED) if units else [()]:
            arguments: list[str | bytes] = []
            for unit in part:
                arguments += (unit.id, spec.encode(unit))
            added += self._run("ensure", *arguments)
        return added

    def offer(self, unit: WorkUnit, *, delay: float = 0.0) -> bool:
        return bool(self._run("offer", unit.id, _ms(delay), spec.encode(unit)))

    def withdraw(self, unit_ids: Sequence[str]) -> int:
        return sum(self._run("withdraw", *part) for part in _parts(unit_ids, _MOST_OFFERED))

    def revive(self, unit_id: str) -> bool:
        return bool(self._run("revive", unit_id))

    # ------------------------------------------------------------ who runs it

    def claim(self, worker: str, count: int, *, ttl: float, slots: int) -> list[Lease]:
        found = self._run("claim", worker, count, _ms(ttl), slots)
        leases: list[Lease] = []
        for id, fence, stored in zip(found[::3], found[1::3], found[2::3], strict=True):
            try:
                unit = spec.decode(_own_id(id), _bytes(stored))
            except UnitRefused as error:
                self._refuse(worker, id, fence, error)
            else:
                leases.append(Lease(unit, worker, int(fence)))
        return leases

    def _refuse(self, worker: str, id: Any, fence: Any, error: UnitRefused) -> None:
        """A unit nobody can read must not stop the worker that met it.

        Nor may it be set aside at once: that a chunk was given up would be kept in the destination,
        though the coordinator's next round writes the unit as it should be (guarantee 7).
        """
        log.error(
            "unit_refused",
            unit=_text(id)[:200],
            error=str(error),
            action="held back; find out who writes to this Redis",
        )
        self.on_refused(error)
        if _text(id) == _text(error.place):
            self._run("release", worker, id, fence, 0, "failed")
        else:  # no unit of ours has such an id, so nobody will write it anew
            self._run("release", worker, id, fence, -1, "ok")

    def renew(
        self, worker: str, leases: Sequence[Lease], *, ttl: float, slots: int, memory: int = 0
    ) -> tuple[int, list[bool]]:
        if len(leases) > MOST_RENEWED:
            raise ValueError(f"expected at most {MOST_RENEWED} leases, found {len(leases)}")
        units, fences = [held.unit.id for held in leases], [str(held.fence) for held in leases]
        shed, *kept = self._run("renew", worker, _ms(ttl), slots, memory, *units, *fences)
        return int(shed), [bool(k) for k in kept]

    def release(
        self, lease: Lease, *, delay: float | None = 0.0, failed: bool = False, dead: bool = False
    ) -> bool:
        outcome = "dead" if dead else "failed" if failed else "ok"
        wait = -1 if delay is None else _ms(delay)
        id, fence = lease.unit.id, str(lease.fence)
        return bool(self._run("release", lease.owner, id, fence, wait, outcome))

    def refence(self, lease: Lease, floor: int) -> Lease | None:
        spec.refuse_foreign_fence(lease.unit.id, floor)
        fence = self._run("refence", lease.owner, lease.unit.id, str(lease.fence), str(floor))
        return lease.refenced(int(fence)) if fence else None

    def drain(self, worker: str) -> None:
        self._run("drain", worker, _ms(self._lease_ttl))

    def mend(self) -> list[str]:
        found = [_text(one) for one in self._run("mend", self._machine.new_id())]
        if found:
            log.error(
                "ledger_mended",
                ledger=self.address,
                found=found,
                action="find out who writes to this Redis",
            )
        return found

    # ------------------------------------------------------------ what is to be seen

    def incarnation(self) -> str:
        return _text(self._run("incarnation", self._machine.new_id()))

    def stats(self) -> LedgerStats:
        due, later, leased, expired, dead, demand, oldest, capacity, workers = self._run("stats")
        return LedgerStats(
            due=due,
            later=later,
            leased=leased,
            expired=expired,
            dead=dead,
            demand=demand,
            oldest_due=oldest / 1000,
            capacity=capacity,
            workers=workers,
        )

    def units(self) -> list[LeasedUnit]:
        return [
            LeasedUnit(
                unit=_readable(id, stored),
                state=_text(state),
                owner=_text(owner),
                fence=int(fence),
                tries=int(tries),
                expires_in=expires_in / 1000,
            )
            for id, state, owner, fence, tries, expires_in, stored in self._run("units")
        ]

    def workers(self) -> list[WorkerState]:
        return [
            WorkerState(_text(id), slots, held, alive_for / 1000, memory=int(memory))
            for id, slots, held, alive_for, memory in self._run("workers")
        ]

    def diagnose(self) -> list[Diagnosis]:
        """What the server is and allows, each with what mends it.  Leaves nothing behind.

        Raises LedgerUnavailable where it cannot be asked.
        """
        client: Any = self._connected()
        cluster = isinstance(client, RedisCluster)
        try:
            there = {"target_nodes": client.get_random_node()} if cluster else {}
            hello = _pairs(client.execute_command("HELLO", **there))
            found = [look.of_wire(self.address, encrypted=self._encrypted)]
            found += look.of_server(hello, cluster=cluster)
            if any(one.verdict is Verdict.FAILED for one in found):
                return found
            found.append(look.of_rights(self._denied(), self.user, self.namespace))
            try:
                memory = client.info("memory", **there)
            except NoPermissionError:
                memory = None
            found.append(look.of_eviction(memory, self.user))
            if not cluster:  # rq knows no cluster; a command carries its errand out itself
                try:
                    client.set("cw-rq:look", "", px=1)
                    found.append(look.of_errands(self.user, allowed=True))
                except NoPermissionError:
                    found.append(look.of_errands(self.user, allowed=False))
        except _FAILURES as error:
            raise self._unavailable(error) from error
        return found

    def _denied(self) -> list[str]:
        try:
            return [_text(line) for line in self._run("rights", f"look:{self._machine.new_id()}")]
        except LedgerUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):  # no script may run, or on no key
                return [str(error.__cause__)]
            raise

    # ------------------------------------------------------------ the bell

    def wait(self, timeout: float) -> None:
        deadline = self._machine.monotonic() + timeout
        # One thread listens; another that waits meanwhile merely sleeps.
        if self._listening.acquire(blocking=False):
            try:
                if self._hear(deadline):
                    return
            except (LedgerUnavailable, *_FAILURES) as error:
                log.debug("bell_unavailable", ledger=self.address, error=type(error).__name__)
                self._stop_listening()
            finally:
                if self._closed:
                    self._stop_listening()
                self._listening.release()
        self._machine.sleep(max(0.0, deadline - self._machine.monotonic()))

    def _hear(self, deadline: float) -> bool:
        """True when the bell rang since the last call; what rang several times counts once."""
        if self._pubsub is None:
            client: Any = self._connected()
            self._pubsub = client.pubsub(ignore_subscribe_messages=True)
            self._pubsub.subscribe(self.keys[-1])
            self._heard_at = self._machine.monotonic()
        rang = False
        while True:
            left = 0.0 if rang else max(0.0, deadline - self._machine.monotonic())
            # None also stands for the answer to SUBSCRIBE, hence the loop.
            if self._pubsub.get_message(timeout=left) is not None:
                rang = True
                self._heard_at = self._machine.monotonic()
            elif rang or self._machine.monotonic() >= deadline:
                if self._machine.monotonic() > self._heard_at + _SILENT:
                    self._stop_listening()
                return rang

    def _stop_listening(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            pubsub.close()

    def close(self) -> None:
        self._closed = True
        # A thread inside wait() closes its own connection when it is done.
        if self._listening.acquire(blocking=False):
            try:
                self._stop_listening()
            finally:
                self._listening.release()
        with self._connecting:
            if self._own_client and self._client is not None:
                self._client.close()
                self._client = None

    # ------------------------------------------------------------ the calls

    def _run(self, name: str, *arguments: Any) -> Any:
        digest, text = _script(name)
        call = (len(self.keys), *self.keys, *self._settings, *arguments)
        try:
            client: Any = self._connected()
            try:
                return client.evalsha(digest, *call)
            except NoScriptError:
                # It did not run: the server is new, or was wiped.  EVAL keeps it for next time.
                return client.eval(text, *call)
        except _FAILURES as error:
            if "WRONGTYPE" in str(error) and name != "mend":
                self.mend()
            raise self._unavailable(error) from error

    def _connected(self) -> Client:
        client = self._client
        if client is not None:
            return client
        with self._connecting:
            if self._closed or self._connect is None:
                raise LedgerUnavailable("this process has closed the ledger", place=self.address)
            if self._client is None:
                try:
                    self._client = self._connect()  # a cluster client talks to the cluster here
                except _FAILURES as error:
                    raise self._unavailable(error) from error
            return self._client

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        advice = "the call is tried again later"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            # Another certificate may come to the server, and no stream need stop for it.
            advice = (
                "correct ssl_ca_certs in the URL of Redis, or the server's certificate; " + advice
            )
        return LedgerUnavailable(
            f"expected Redis at {self.address} to answer, found {type(error).__name__}: "
            f"{str(error) or 'no reason given'}; {advice}",
            place=self.address,
        )


@cache
def _script(name: str) -> tuple[str, str]:
    """(SHA-1, text) of a script behind the prelude."""
    text = f"{_read('prelude')}\n{_read(name)}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text


def _read(name: str) -> str:
    return (resources.files("warp.leases") / "lua" / f"{name}.lua").read_text("utf-8")


def _connector(url: str, *, timeout: float) -> tuple[str, str, Callable[[], Client]]:
    """(host:port, the user, how to connect).

    Raises ConfigError without showing the URL: it has secrets.
    """
    cluster = _CLUSTER in url
    plain = url.replace(_CLUSTER, "://", 1)
    try:
        options: dict[str, Any] = parse_url(plain)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ConfigError(
            "expected a URL such as redis://user:password@host:6379/0, found one that cannot be "
            "read; characters such as / : @ # in the password must be percent-encoded",
            place="coordination.redis_url",
        ) from None
    address = options.get("path") or f"{options.get('host', 'localhost')}:{_port(options)}"
    user = str(options.get("username") or "default")
    # redis-py repeats a command by itself when its answer is lost (three times by default), and a
    # claim that is repeated leaves a unit leased to nobody.
    never = Retry(NoBackoff(), 0)
    limits: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": never,
    }
    if cluster:
        return str(address), user, lambda: RedisCluster.from_url(plain, **limits)
    return str(address), user, lambda: redis.Redis.from_url(plain, **limits)


def _address_of(client: Client) -> str:
    if isinstance(client, RedisCluster):
        node = client.get_default_node()  # type: ignore[no-untyped-call]
        return f"{node.host}:{node.port}" if node else "a cluster without nodes"
    options = client.connection_pool.connection_kwargs
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{_port(options)}")


def _port(options: dict[str, Any]) -> int:
    return int(options.get("port") or 6379)


def _pairs(answer: Any) -> dict[str, Any]:
    """HELLO's answer, which is a flat list or a mapping by the protocol spoken."""
    if isinstance(answer, dict):
        items = list(answer.items())
    else:
        items = list(zip(answer[::2], answer[1::2], strict=True))
    return {_text(k): _text(v) if isinstance(v, bytes | str) else v for k, v in items}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    source: Iterable[Any] = iter(items)
    while part := list(islice(source, size)):
        yield part


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _text(value: Any) -> str:
    """For display and for what our own scripts wrote; never fails."""
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "backslashreplace")


def _own_id(value: Any) -> str:
    """The id of what may be a unit of ours."""
    raw = _bytes(value)
    try:
        if len(raw) <= LONGEST_ID:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    raise UnitRefused(f"expected the id of a unit, up to {LONGEST_ID} bytes of UTF-8, found other")


def _readable(id: Any, stored: Any) -> WorkUnit:
    try:
        return spec.decode(_own_id(id), _bytes(stored))
    except UnitRefused:
        return spec.stand_in(_text(id))
