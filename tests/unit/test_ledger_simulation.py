"""The ledger under every order of events: claims, pauses, crashes, wipes and clocks set back.

A state machine drives the real scripts (in fakeredis, on a clock of its own) together with a
destination that checks fences as ours does.  The workers are as bad as workers can be: they never
look at a deadline, so each is a zombie whenever the schedule says so.  After every step

* what the scripts answered is what the in-memory reference answers, and both hold the same;
* the destination holds one unbroken row of batches per unit, under fences that never go back.

A simulation that finds nothing proves nothing, so it counts what it met, and it is run against
planted bugs, each of which it must find.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from operator import methodcaller
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import warp.leases.redis as redis_ledger
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import KEYS, RedisLeaseStore
from warp.model import Chunk, Lease, WorkUnit
from warp.testing.fake_redis import FakeServer, FakeTime, fake_time
from warp.testing.lease_contract import ORDERS, POLL, STREAM

# Times are multiples of 1/8 s: exact as floats, as milliseconds and as microseconds.
TTL = 2.5
SLOTS = 2
CHUNK = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
UNITS = [STREAM, POLL, CHUNK]
WORKERS = ["one", "two"]
MAX_TRIES = 3
HEALTHY_AFTER = 8.0

Event = str
met: Counter[Event] = Counter()


class Destination:
    """The marker half of a destination, and the log of what was let in."""

    def __init__(self, *, checks_fence: bool, checks_batch: bool) -> None:
        self.checks_fence = checks_fence
        self.checks_batch = checks_batch
        self.fence = {unit.id: 0 for unit in UNITS}
        self.batch = {unit.id: 0 for unit in UNITS}
        self.log: dict[str, list[tuple[int, int]]] = {unit.id: [] for unit in UNITS}
        self.let_in: list[Lease] = []  # writers that had been superseded

    def adopt(self, lease: Lease) -> int | None:
        """The batch to go on from; None where a fence at least as new stands here."""
        if lease.fence <= self.fence[lease.unit.id]:
            return None
        self.fence[lease.unit.id] = lease.fence
        return self.batch[lease.unit.id]

    def write(self, lease: Lease, previous: int) -> bool:
        unit = lease.unit.id
        if self.checks_fence and self.fence[unit] != lease.fence:
            met["a zombie's write was refused"] += 1
            return False
        if self.checks_batch and self.batch[unit] != previous:
            met["a repeated write was refused"] += 1
            return False
        if self.fence[unit] != lease.fence:
            self.let_in.append(lease)
        self.batch[unit] = previous + 1
        self.log[unit].append((lease.fence, previous + 1))
        return True


class Fleet(RuleBasedStateMachine):
    checks_fence: ClassVar[bool] = True
    checks_batch: ClassVar[bool] = True
    clock: ClassVar[FakeTime]

    @initialize()
    def start(self) -> None:
        self.server = FakeServer()
        options: dict[str, Any] = {
            "lease_ttl": TTL,
            "max_tries": MAX_TRIES,
            "healthy_after": HEALTHY_AFTER,
        }
        self.redis = RedisLeaseStore(self.server.client(), "test", **options)
        self.reference = MemoryLeaseStore(clock=self.clock.time, **options)
        self.destination = Destination(
            checks_fence=self.checks_fence, checks_batch=self.checks_batch
        )
        self.claimed: dict[str, list[Lease]] = {w: [] for w in WORKERS}  # not adopted yet
        self.held: dict[str, dict[str, tuple[Lease, int]]] = {w: {} for w in WORKERS}
        self.past: list[Lease] = []  # every lease there ever was
        self.both(lambda store: store.ensure(UNITS))

    def both(self, call: Callable[[Any], Any]) -> Any:
        answer, expected = call(self.redis), call(self.reference)
        assert answer == expected, f"the scripts say {answer}, the reference {expected}"
        return answer

    # ------------------------------------------------------------ what workers do

    @rule(worker=st.sampled_from(WORKERS), count=st.integers(1, 3))
    def claim(self, worker: str, count: int) -> None:
        seen = {u.unit.id: u for u in self.reference.units()}
        leases = self.both(lambda store: store.claim(worker, count, ttl=TTL, slots=SLOTS))
        self.claimed[worker] += leases
        self.past += leases
        for lease in leases:
            before = seen[lease.unit.id]
            met["claimed"] += 1
            met["claimed from an expired owner"] += before.state == "leased"
            met["claimed after waiting its time"] += before.state == "later"

    @rule(worker=st.sampled_from(WORKERS))
    def adopt(self, worker: str) -> None:
        """A step of its own, so that anything can happen between the claim and the adoption."""
        if not self.claimed[worker]:
            return
        lease = self.claimed[worker].pop(0)
        batch = self.destination.adopt(lease)
        if batch is not None:
            self.held[worker][lease.unit.id] = (lease, batch)
            return
        floor = self.destination.fence[lease.unit.id]
        higher = self.both(lambda store: store.refence(lease, floor))
        met["refenced" if higher else "refence refused"] += 1
        if higher:
            self.claimed[worker].append(higher)

    @rule(worker=st.sampled_from(WORKERS), answered=st.sampled_from([True, True, False]))
    def write(self, worker: str, answered: bool) -> None:
        for unit, (lease, batch) in list(self.held[worker].items()):
            if not self.destination.write(lease, batch):
                # Was it ours, and only the answer lost?  The marker knows.
                if self.destination.fence[unit] == lease.fence:
                    self.held[worker][unit] = (lease, self.destination.batch[unit])
                    met["a lost answer was settled by the marker"] += 1
                else:
                    del self.held[worker][unit]
            elif answered:
                self.held[worker][unit] = (lease, batch + 1)
            else:
                met["an answer was lost"] += 1

    @rule(worker=st.sampled_from(WORKERS))
    def work(self, worker: str) -> None:
        """The common run of steps; the fine ones above break it up."""
        self.claim(worker, 3)
        for _ in range(6):
            self.adopt(worker)
        self.write(worker, True)

    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker: str) -> None:
        leases = [lease for lease, _ in self.held[worker].values()]
        shed, kept = self.both(lambda store: store.renew(worker, leases, ttl=TTL, slots=SLOTS))
        met["asked to shed"] += shed > 0
        for lease, ours in zip(leases, kept, strict=True):
            if not ours:
                met["found a lease lost"] += 1
                del self.held[worker][lease.unit.id]

    @rule(
        worker=st.sampled_from(WORKERS),
        unit=st.sampled_from(UNITS),
        delay=st.sampled_from([0.0, 0.0, 1.0, None]),
        outcome=st.sampled_from(["ok", "ok", "failed", "failed", "dead"]),
    )
    def release(self, worker: str, unit: WorkUnit, delay: float | None, outcome: str) -> None:
        if unit.id not in self.held[worker]:
            return
        lease, _ = self.held[worker].pop(unit.id)
        self.release_as(outcome, lease, delay)

    def release_as(self, outcome: str, lease: Lease, delay: float | None) -> None:
        failed, dead = outcome == "failed", outcome == "dead"
        ours = self.both(lambda store: store.release(lease, delay=delay, failed=failed, dead=dead))
        met[f"released {outcome}" if ours else "released too late"] += 1
        if ours and delay is None and outcome == "ok":
            offered = any(u.unit == lease.unit for u in self.reference.units())
            met["offered while leased" if offered else "finished"] += 1

    @rule(pair=st.permutations(WORKERS), first=st.booleans())
    def take_over(self, pair: list[str], first: bool) -> None:
        """The old owner, paused past its lease, writes before or after the new one does."""
        old, new = pair
        self.reconcile()
        self.work(old)
        self.sleep_past_the_lease()
        self.claim(new, 3)
        for _ in range(6):
            self.adopt(new)
        for writer in (old, new) if first else (new, old):
            self.write(writer, True)
        self.renew(old)

    @rule(worker=st.sampled_from(WORKERS), other=st.sampled_from(WORKERS), turns=st.integers(1, 8))
    def keep(self, worker: str, other: str, turns: int) -> None:
        """A steady owner, beside somebody who would take its units."""
        self.work(worker)
        for _ in range(turns):
            self.clock.pass_time(TTL / 2)
            self.renew(worker)
        self.renew(other)
        self.claim(other, 1)

    @rule(data=st.data(), how=st.sampled_from(["renew", "refence", "release"]))
    def use_an_old_lease(self, data: st.DataObject, how: str) -> None:
        if not self.past:
            return
        lease = data.draw(st.sampled_from(self.past))
        match how:
            case "renew":
                _, [held] = self.both(
                    lambda store: store.renew(lease.owner, [lease], ttl=TTL, slots=SLOTS)
                )
            case "refence":
                held = self.both(lambda store: store.refence(lease, 0))
            case _:
                held = self.both(lambda store: store.release(lease))
        met["an old lease was refused" if not held else "an old lease was a living one"] += 1

    @rule(worker=st.sampled_from(WORKERS))
    def lose_an_answer(self, worker: str) -> None:
        self.work(worker)
        self.write(worker, False)
        self.write(worker, True)

    @rule(
        worker=st.sampled_from(WORKERS),
        delay=st.sampled_from([None, None, 0.0, 1.0]),
        offered=st.booleans(),
    )
    def finish(self, worker: str, delay: float | None, offered: bool) -> None:
        self.work(worker)
        for unit in UNITS:
            if offered:
                self.offer(unit, 0.5)
            self.release(worker, unit, delay, "ok")

    @rule(
        worker=st.sampled_from(WORKERS),
        how=st.sampled_from(["fails", "crashes", "sticks"]),
        pause=st.sampled_from([61.0, 1.5]),
    )
    def until_dead(self, worker: str, how: str, pause: float) -> None:
        """A unit fails again and again: by an error, with its process, or inside a living one."""
        before = self.dead()
        for _ in range(MAX_TRIES):
            self.clock.pass_time(pause)
            self.crash(worker)
            self.claim(worker, 1)
            for lease in self.claimed[worker]:
                if how == "fails":
                    self.release_as("failed", lease, 0.0)
            if how != "fails":
                self.clock.pass_time(TTL / 2)
                if how == "sticks":
                    self.renew(worker)
                self.clock.pass_time(TTL / 2)
        self.both(lambda store: store.ensure(UNITS))
        met[f"dead: {how}"] += self.dead() > before
        self.revive()

    def dead(self) -> int:
        return sum(u.state == "dead" for u in self.reference.units())

    @rule(worker=st.sampled_from(WORKERS), gone=st.booleans())
    def drain(self, worker: str, gone: bool) -> None:
        self.both(lambda store: store.drain(worker))
        assert self.both(lambda store: store.claim(worker, 1, ttl=TTL, slots=SLOTS)) == []
        met["drained"] += 1
        if gone:  # and started anew under the same name
            self.crash(worker)
            self.sleep_past_the_lease()

    # ------------------------------------------------------------ what the coordinator does

    @rule()
    def reconcile(self) -> None:
        met["reconciled something"] += self.both(lambda store: store.ensure(UNITS)) > 0

    @rule(unit=st.sampled_from(UNITS), delay=st.sampled_from([0.0, 0.5, 5.0]))
    def offer(self, unit: WorkUnit, delay: float) -> None:
        self.both(lambda store: store.offer(unit, delay=delay))

    @rule(unit=st.sampled_from(UNITS))
    def withdraw(self, unit: WorkUnit) -> None:
        met["withdrawn"] += self.both(lambda store: store.withdraw([unit.id]))

    @rule()
    def revive(self) -> None:
        for id in [unit.id for unit in UNITS]:
            met["revived"] += self.both(methodcaller("revive", id))

    # ------------------------------------------------------------ what happens to them

    @rule(eighths=st.sampled_from([1, 2, 4, 8, 19, 40]))
    def pass_time(self, eighths: int) -> None:
        self.clock.pass_time(eighths / 8)

    @rule()
    def sleep_past_the_lease(self) -> None:
        self.clock.pass_time(TTL + 0.125)

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        met["crashed with leases"] += bool(self.held[worker] or self.claimed[worker])
        self.held[worker].clear()
        self.claimed[worker].clear()

    @rule(
        eighths=st.sampled_from([0, 0, 1, 8, 40]),
        empty=st.booleans(),
        noticed=st.sampled_from([True, True, False]),
    )
    def fail_over(self, eighths: int, empty: bool, noticed: bool) -> None:
        """Redis comes back empty or not, and on a machine whose clock may be behind."""
        self.work("one")
        if empty:
            met["wiped under leases"] += any(self.held.values())
            self.server.wipe()
            self.reference.wipe()
        self.clock.pass_time(-eighths / 8)
        if noticed:
            self.reconcile()

    # ------------------------------------------------------------ what must always hold

    @invariant()
    def one_effective_writer(self) -> None:
        if not hasattr(self, "destination"):
            return
        assert self.destination.let_in == [], "a superseded writer wrote"
        for unit, log in self.destination.log.items():
            batches, fences = [batch for _, batch in log], [fence for fence, _ in log]
            assert batches == list(range(1, len(log) + 1)), f"gap or duplicate in {unit}: {log}"
            assert fences == sorted(fences), f"an older fence wrote after a newer one: {unit} {log}"

    @rule()
    def look(self) -> None:
        self.both(lambda store: store.stats())
        self.both(lambda store: sorted(store.workers(), key=lambda w: w.id))
        self.keys_agree_with_each_other()

    @invariant()
    def both_ledgers_hold_the_same(self) -> None:
        if hasattr(self, "destination"):
            self.both(lambda store: sorted(store.units(), key=lambda u: u.unit.id))

    def keys_agree_with_each_other(self) -> None:
        key = dict(zip(KEYS, self.redis.keys, strict=True))
        with self.server.client().pipeline(transaction=False) as pipe:
            pipe.zrange(key["due"], 0, -1, withscores=True)
            for name in ("later", "exp", "dead", "workers"):
                pipe.zrange(key[name], 0, -1)
            for name in ("own", "since", "again", "spec", "tries", "cap"):
                pipe.hkeys(key[name])
            pipe.hvals(key["held"])
            pipe.smembers(key["demand"])
            pipe.smembers(key["chunks"])
            due, *found = pipe.execute()
        ready = {unit for unit, _ in due}
        later, leased, dead, workers, own, since, again, spec, tries, cap = map(set, found[:10])
        held, demand, chunks = found[10:]
        places = [*ready, *later, *leased, *dead]
        assert len(places) == len(set(places)), "a unit in two places"
        assert own == since == leased
        assert again <= leased
        assert sum(map(int, held)) == len(leased)
        assert demand == ready | leased
        assert chunks == leased & {CHUNK.id.encode()}
        assert spec == set(places)
        assert tries <= set(places)
        assert cap == workers
        assert {u for u, score in due if score < 0} == ready - {CHUNK.id.encode()}

    def teardown(self) -> None:
        """Whatever happened: one reconciliation and one fresh worker serve every unit."""
        if not hasattr(self, "destination"):
            return
        self.keys_agree_with_each_other()
        self.both(lambda store: store.ensure(UNITS))
        self.revive()
        self.clock.pass_time(70.0)
        self.both(lambda store: store.ensure([]))
        self.clock.pass_time(70.0)
        before = dict(self.destination.batch)
        leases = self.both(lambda store: store.claim("fresh", 5, ttl=TTL, slots=5))
        assert {lease.unit for lease in leases} == {
            u.unit for u in self.reference.units() if u.state != "dead"
        }
        self.claimed["one"], self.held["one"] = leases, {}
        for _ in range(8):
            self.adopt("one")
        self.write("one", True)
        for lease in leases:
            assert self.destination.batch[lease.unit.id] > before[lease.unit.id], "no progress"


def simulate(machine: type[Fleet], examples: int, *, seeded: bool = True) -> None:
    with fake_time() as machine.clock:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=50,
                deadline=None,
                derandomize=seeded,
                database=None,
                phases=[Phase.generate] if seeded else list(Phase),
                suppress_health_check=list(HealthCheck),
            ),
        )


# What a run of CI must have met, and how often at least; a rule that stops doing its work shows.
MET = {
    "a lost answer was settled by the marker": 1,
    "a repeated write was refused": 1,
    "a zombie's write was refused": 1,
    "an answer was lost": 1,
    "an old lease was refused": 1,
    "asked to shed": 1,
    "claimed": 100,
    "claimed after waiting its time": 1,
    "claimed from an expired owner": 1,
    "crashed with leases": 1,
    "dead: crashes": 1,
    "dead: fails": 1,
    "dead: sticks": 1,
    "drained": 1,
    "finished": 1,
    "found a lease lost": 1,
    "offered while leased": 1,
    "reconciled something": 1,
    "refence refused": 1,
    "refenced": 1,
    "released failed": 1,
    "released ok": 1,
    "released too late": 1,
    "revived": 1,
    "wiped under leases": 1,
    "withdrawn": 1,
}


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination="pretended",
    fault=("superseded", "FLUSHALL", "clock set back"),
)
def test_the_ledger_keeps_its_promises_in_any_order_of_events() -> None:
    met.clear()
    simulate(Fleet, 25)
    assert {event: n for event, n in MET.items() if met[event] < n} == {}, dict(met)


@pytest.mark.soak
def test_the_ledger_keeps_its_promises_for_a_long_time() -> None:
    simulate(Fleet, int(os.environ.get("CARTRIDGE_WARP_TRIALS", "2000")), seeded=False)


# ---------------------------------------------------------------- planted bugs


class WithoutFence(Fleet):
    checks_fence = False


class WithoutBatchNumber(Fleet):
    checks_batch = False


@pytest.mark.parametrize("machine", [WithoutFence, WithoutBatchNumber])
def test_it_finds_a_destination_without_one_half_of_the_fence(machine: type[Fleet]) -> None:
    with pytest.raises(AssertionError, match=r"superseded writer|gap or duplicate"):
        simulate(machine, 200)


BUGS = {
    "claim leaves the unit in due": ("claim", "redis.call('ZREM', DUE, unpack(units))", ""),
    "claim forgets the expiry": ("claim", "redis.call('ZADD', EXP, unpack(leased))", ""),
    "claim does not count what it holds": (
        "claim",
        "redis.call('HINCRBY', HELD, worker, #units)",
        "",
    ),
    "the fence does not grow": ("claim", "math.max(tonumber(last[i] or 0) + 1, us)", "1"),
    "the fence starts anew after a wipe": (
        "claim",
        "math.max(tonumber(last[i] or 0) + 1, us)",
        "tonumber(last[i] or 0) + 1",
    ),
    "a draining worker claims": ("claim", "if draining(worker) or", "if"),
    "claiming proves life": ("claim", "WORKERS, 'NX',", "WORKERS,"),
    "a worker with its share takes all": ("claim", "all.mine + taken >= all.share", "false"),
    "chunks have no quota": ("claim", "leased_chunks < quota", "false"),
    "ensure adds leased units": ("ensure", "or redis.call('ZSCORE', EXP, unit)", ""),
    "ensure revives the dead": ("ensure", "or redis.call('ZSCORE', DEAD, unit)", ""),
    "ensure does not sweep": ("ensure", "sweep(now)", ""),
    "an offer while leased is forgotten": ("offer", "redis.call('HSET', AGAIN, unit, at)", ""),
    "a later offer wins": ("offer", "tonumber(waits_for) <= at", "tonumber(waits_for) >= at"),
    "a renewal ignores the fence": (
        "renew",
        "and issued[i] == ARGV[5 + count + i]",
        "",
    ),
    "a release ignores the fence": (
        "prelude",
        "redis.call('HGET', OWN, unit) == worker and redis.call('HGET', FENCE, unit) == fence",
        "redis.call('HGET', OWN, unit) == worker",
    ),
    "a renewal does not renew": ("renew", "if held then", "if false then"),
    "nothing is shed": ("renew", "answer[1] = math.ceil((all.mine - all.share) * 0.8)", ""),
    "anyone releases": ("release", "if not holds(worker, unit, fence) then return 0 end", ""),
    "a success leaves the failures": ("release", "redis.call('HDEL', TRIES, unit)", ""),
    "a failure does not wait": ("release", "math.max(delay, backoff(tries))", "delay"),
    "a finished unit stays in demand": ("release", "redis.call('SREM', DEMAND, unit)", ""),
    "anyone refences": ("refence", "if not holds(worker, unit, fence) then return '' end", ""),
    "a refence ignores the floor": ("refence", "math.max(tonumber(fence), floor)", "0"),
    "nothing is reaped": ("prelude", "  reap(now)\n", ""),
    "nothing is promoted": ("prelude", "  promote(now)\n", ""),
    "a reaped unit keeps its count": (
        "prelude",
        "if owner and redis.call('HINCRBY', HELD, owner, -1) <= 0 then",
        "if false then",
    ),
    "a crash sets aside at once": ("prelude", "tries = MAX_TRIES - 1", "tries = MAX_TRIES"),
    "crashes are not counted": ("prelude", "redis.call('HINCRBY', TRIES, unit, 1)", "1"),
    "long holds change nothing": ("prelude", "ended - since >= HEALTHY", "false"),
    "back-off does not grow": ("prelude", "2 ^ math.min(tries - 1, 16)", "1"),
    "dead workers count": ("prelude", "redis.call('HDEL', CAP, worker)", ""),
    "revival remembers failures": ("revive", "redis.call('HDEL', TRIES, unit)", ""),
    "withdrawal takes leased units": ("withdraw", "redis.call('ZSCORE', EXP, unit)", "false"),
    "draining is forgotten": ("drain", "redis.call('HSET', CAP, ARGV[3], -1)", ""),
}


# The others take longer to find; `make soak` looks for every one.
QUICK = {
    "claim leaves the unit in due",
    "claim does not count what it holds",
    "the fence does not grow",
    "ensure adds leased units",
    "anyone releases",
    "nothing is reaped",
    "nothing is promoted",
    "a reaped unit keeps its count",
    "crashes are not counted",
    "withdrawal takes leased units",
}


@pytest.mark.parametrize(
    "bug", [b if b in QUICK else pytest.param(b, marks=pytest.mark.soak) for b in BUGS]
)
def test_it_finds_a_planted_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, line, mutation = BUGS[bug]
    original = redis_ledger._read

    def mutated(name: str) -> str:
        text = original(name)
        if name != part:
            return text
        assert line in text, f"the line of the planted bug is gone from {part}.lua: {line}"
        return text.replace(line, mutation, 1)

    monkeypatch.setattr(redis_ledger, "_read", mutated)
    redis_ledger._script.cache_clear()
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011  any complaint will do: it was found
            simulate(Fleet, 300)
    finally:
        redis_ledger._script.cache_clear()
