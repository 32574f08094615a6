"""A Redis that runs the ledger's scripts, and nothing else, on a clock of the test's.

One interpreter and one compilation for all runs: fakeredis makes both anew for every call, which
would be nine tenths of a simulated run.  It keeps the ledger's contract like every other server
(`test_simulated_edges.py`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import lupa.lua51
from redis.exceptions import NoScriptError

from warp.machine import Machine


class ScriptedRedis:
    """The server.  `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.values: dict[str, Any] = {}
        self.listeners: list[Listener] = []
        self._scripts: dict[str, Any] = {}

    def wipe(self) -> None:
        self.values = {}

    def copy(self) -> dict[str, Any]:
        """All it holds, as a replica has it that is promoted later."""
        return copy.deepcopy(self.values)

    def become(self, replica: dict[str, Any]) -> None:
        self.values = copy.deepcopy(replica)
        self._scripts.clear()

    def run_known(self, digest: str, count: int, arguments: Sequence[Any]) -> Any:
        if digest not in self._scripts:
            raise NoScriptError("NOSCRIPT No matching script")
        return self._run(self._scripts[digest], count, arguments)

    def run(self, text: str, count: int, arguments: Sequence[Any]) -> Any:
        script = _compiled(text)
        self._scripts[hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()] = script
        return self._run(script, count, arguments)

    def _run(self, script: Any, count: int, arguments: Sequence[Any]) -> Any:
        texts = [_text(one) for one in arguments[count:]]
        return _answer(script(self._call, _keys(arguments[:count]), _lua().table_from(texts)))

    def _call(self, command: str, *arguments: Any) -> Any:
        answer = getattr(self, f"_{command.lower()}")(*map(_text, arguments))
        return _lua().table_from(answer) if isinstance(answer, list) else answer

    # ------------------------------------------------------------ commands

    def _time(self) -> list[Any]:
        micros = round(self.clock() * 1_000_000)
        return [str(micros // 1_000_000), str(micros % 1_000_000)]

    def _publish(self, channel: str, message: str) -> int:
        for listener in self.listeners:
            listener.hear()
        return len(self.listeners)

    def _get(self, key: str) -> Any:
        return self.values.get(key, False)

    def _set(self, key: str, value: str, *options: str) -> Any:
        if "NX" in options and key in self.values:
            return False
        self.values[key] = value
        return "OK"

    def _del(self, *keys: str) -> int:
        return sum(self.values.pop(key, None) is not None for key in keys)

    def _hash(self, key: str) -> dict[str, str]:
        found: dict[str, str] = self.values.setdefault(key, {})
        return found

    def _hget(self, key: str, field: str) -> Any:
        return self._hash(key).get(field, False)

    def _hmget(self, key: str, *fields: str) -> list[Any]:
        stored = self._hash(key)
        return [stored.get(field, False) for field in fields]

    def _hset(self, key: str, *pairs: str) -> int:
        self._hash(key).update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _hdel(self, key: str, *fields: str) -> int:
        stored = self._hash(key)
        return sum(stored.pop(field, None) is not None for field in fields)

    def _hgetall(self, key: str) -> list[Any]:
        return [part for pair in self._hash(key).items() for part in pair]

    def _hincrby(self, key: str, field: str, by: str) -> int:
        stored = self._hash(key)
        stored[field] = str(int(stored.get(field, "0")) + int(by))
        return int(stored[field])

    def _members(self, key: str) -> dict[str, None]:
        found: dict[str, None] = self.values.setdefault(key, {})
        return found

    def _sadd(self, key: str, *members: str) -> int:
        stored = self._members(key)
        before = len(stored)
        stored.update(dict.fromkeys(members))
        return len(stored) - before

    def _srem(self, key: str, *members: str) -> int:
        stored = self._members(key)
        before = len(stored)
        for member in members:
            stored.pop(member, None)
        return before - len(stored)

    def _scard(self, key: str) -> int:
        return len(self._members(key))

    def _scores(self, key: str) -> dict[str, float]:
        found: dict[str, float] = self.values.setdefault(key, {})
        return found

    def _zadd(self, key: str, *arguments: str) -> int:
        option = arguments[0] if arguments[0] in ("NX", "GT") else ""
        pairs = arguments[1:] if option else arguments
        stored = self._scores(key)
        before = len(stored)
        for text, member in zip(pairs[::2], pairs[1::2], strict=True):
            score, known = float(text), stored.get(member)
            if known is None or not option or (option == "GT" and score > known):
                stored[member] = score
        return len(stored) - before

    def _zrem(self, key: str, *members: str) -> int:
        stored = self._scores(key)
        return sum(stored.pop(member, None) is not None for member in members)

    def _zscore(self, key: str, member: str) -> Any:
        score = self._scores(key).get(member)
        return False if score is None else _text(score)

    def _zcard(self, key: str) -> int:
        return len(self._scores(key))

    def _within(self, key: str, least: str, most: str) -> list[tuple[float, str]]:
        (low, low_open), (high, high_open) = _bound(least), _bound(most)
        return sorted(
            (score, member)
            for member, score in self._scores(key).items()
            if (score > low or (score == low and not low_open))
            and (score < high or (score == high and not high_open))
        )

    def _zcount(self, key: str, least: str, most: str) -> int:
        return len(self._within(key, least, most))

    def _zrangebyscore(self, key: str, least: str, most: str, *options: str) -> list[Any]:
        found = self._within(key, least, most)
        if "LIMIT" in options:
            place = options.index("LIMIT")
            first, count = int(options[place + 1]), int(options[place + 2])
            found = found[first : first + count]
        return _shown(found, scores="WITHSCORES" in options)

    def _zrange(self, key: str, first: str, last: str, *options: str) -> list[Any]:
        found = self._within(key, "-inf", "+inf")
        end = len(found) if last == "-1" else int(last) + 1
        return _shown(found[int(first) : end], scores="WITHSCORES" in options)


class RedisConnection:
    """One process's client: what `RedisLeaseStore` asks of a `redis.Redis`."""

    def __init__(self, server: ScriptedRedis, machine: Machine) -> None:
        self.connection_pool = _Pool()
        self._server = server
        self._machine = machine

    def evalsha(self, digest: str, count: int, *arguments: Any) -> Any:
        return self._server.run_known(digest, count, arguments)

    def eval(self, text: str, count: int, *arguments: Any) -> Any:
        return self._server.run(text, count, arguments)

    def pubsub(self, **options: Any) -> Listener:
        return Listener(self._server, self._machine)


class Listener:
    """Hears the bell.  Lost when its process dies, as a connection is."""

    def __init__(self, server: ScriptedRedis, machine: Machine) -> None:
        self._server = server
        self._rings = 0
        self._changed = machine.condition()

    def subscribe(self, channel: str) -> None:
        self._server.listeners.append(self)

    def hear(self) -> None:
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def get_message(self, timeout: float) -> str | None:
        with self._changed:
            if not self._rings and timeout > 0:
                self._changed.wait(timeout)
            if not self._rings:
                return None
            self._rings -= 1
            return "due"

    def close(self) -> None:
        if self in self._server.listeners:
            self._server.listeners.remove(self)


class _Pool:
    connection_kwargs: ClassVar[dict[str, Any]] = {"host": "simulated"}


def _bound(text: str) -> tuple[float, bool]:
    return (float(text[1:]), True) if text.startswith("(") else (float(text), False)


def _shown(found: Sequence[tuple[float, str]], *, scores: bool) -> list[Any]:
    if not scores:
        return [member for _, member in found]
    return [part for score, member in found for part in (member, _text(score))]


def _text(value: Any) -> str:
    """As Redis is told: a whole number has no point."""
    if type(value) is str:
        return value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return value.decode() if isinstance(value, bytes) else str(value)


def _answer(value: Any) -> Any:
    """As Redis answers what a script returned."""
    if lupa.lua51.lua_type(value) == "table":
        answers: list[Any] = []
        while (item := value[len(answers) + 1]) is not None:
            answers.append(_answer(item))
        return answers
    if isinstance(value, bool):
        return 1 if value else None
    return int(value) if isinstance(value, float) else value


# One interpreter for all: a compiled script keeps nothing between two calls.
@cache
def _lua() -> Any:
    return lupa.lua51.LuaRuntime()


@cache
def _keys(names: tuple[str, ...]) -> Any:
    return _lua().table_from(names)


@cache
def _compiled(text: str) -> Any:
    called = f"local call, KEYS, ARGV = ...\nlocal redis = {{call = call, pcall = call}}\n{text}"
    return _lua().eval(f"function(...) {called} end")
