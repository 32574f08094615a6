"""What a Redis server must be and allow for a ledger, decided from what it answered.  Pure.

`RedisLeaseStore.diagnose` asks; docs/operations/redis.md has the rights in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from warp.diagnosis import encryption, failed, ok, warning
from warp.model import Diagnosis

OLDEST: Final = (6, 2)
COMMANDS: Final = (
    "-@all +eval +evalsha +time +get +set +hget +hmget +hset +hdel +hgetall +del +sadd +srem "
    "+scard +zadd +zrem +zscore +zcard +zcount +zrange +zrangebyscore +publish +subscribe "
    "+unsubscribe +ping +hello +select"
)
ERRANDS: Final = "~cw-rq:* +@read +@write +@transaction -@dangerous -scan -randomkey +info"
_MOST_TOLD: Final = 3


def of_server(hello: Mapping[str, Any], *, cluster: bool) -> Iterator[Diagnosis]:
    """`hello` is the answer to HELLO, `cluster` whether we speak to it as to a cluster."""
    said = str(hello.get("version", "0"))
    product = "Valkey" if hello.get("server") == "valkey" else "Redis"
    version = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    expected = "Redis 6.2 or later, or Valkey"
    if version < OLDEST:
        yield failed(
            "redis-version", "server", expected, f"{product} {said}", "upgrade the server to 6.2"
        )
    else:
        yield ok("redis-version", "server", expected, f"{product} {said}")
    # A cluster's client finds the primary of a key by itself, whichever node it asked.
    role = str(hello.get("role", "master"))
    if role in ("replica", "slave") and not cluster:
        yield failed(
            *("redis-primary", "server", "a primary", "a replica, which takes no writes"),
            "connect to the primary; or REPLICAOF NO ONE",
        )
    else:
        yield ok("redis-primary", "server", "a primary", "a cluster" if cluster else "a primary")
    if hello.get("mode") == "cluster" and not cluster:
        yield warning(
            *("redis-cluster", "server", "a URL that says so where the server is a cluster"),
            "a cluster's node",
            "write redis+cluster:// or rediss+cluster:// in coordination.redis_url",
        )


def of_wire(address: str, *, encrypted: bool) -> Diagnosis:
    """`address` is host:port, or the path of a socket."""
    mend = "write rediss:// in coordination.redis_url (docs/operations/tls.md)"
    return encryption("redis-encryption", [address.rpartition(":")[0] or None], encrypted, mend)


def of_rights(denied: Sequence[str], user: str, namespace: str) -> Diagnosis:
    """`denied` are the lines that rights.lua returned."""
    code, subject = "redis-rights", f"keys cw:{{{namespace}}}:*"
    expected = "the commands and keys of the ledger"
    if not denied:
        return ok(code, subject, expected, "allowed")
    more = f" and {len(denied) - _MOST_TOLD} more" if len(denied) > _MOST_TOLD else ""
    base = namespace.removesuffix(".lead")
    pattern = " ".join(f"~cw:{{{n}}}:* &cw:{{{n}}}:bell" for n in (base, f"{base}.lead"))
    return failed(
        code,
        subject,
        expected,
        "; ".join(denied[:_MOST_TOLD]) + more,
        f"ACL SETUSER {user} {pattern} {COMMANDS}",
    )


def of_eviction(memory: Mapping[str, Any] | None, user: str) -> Diagnosis:
    """`memory` is INFO memory; None where that is denied."""
    code, subject, expected = "redis-eviction", "maxmemory-policy", "noeviction"
    if memory is None:
        return warning(
            code, subject, expected, "not known: INFO is denied", f"ACL SETUSER {user} +info"
        )
    policy = str(memory.get("maxmemory_policy", ""))
    if policy == "noeviction":
        return ok(code, subject, expected, policy)
    return warning(
        code,
        subject,
        f"{expected}: an evicted key costs a reconciliation",
        policy,
        "CONFIG SET maxmemory-policy noeviction; then CONFIG REWRITE",
    )


def of_errands(user: str, *, allowed: bool) -> Diagnosis:
    code, subject, expected = "redis-errands", "keys cw-rq:*", "the rights that rq needs"
    if allowed:
        return ok(code, subject, expected, "allowed")
    return warning(
        code,
        subject,
        f"{expected}, by which `pause`, `resume`, `resync` and `revive` travel",
        "denied",
        f"ACL SETUSER {user} {ERRANDS}",
    )
