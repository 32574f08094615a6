"""The contract of the ledger: subclass it in a test file and your LeaseStore is tested.

    class TestMine(LeaseStoreContract):
        def make(self): return MyLeaseStore(...)      # the same store, from another process
        def pass_time(self, seconds): ...             # on the store's own clock

No case waits for real time to pass.  A store on a real server is tested by moving what it holds
into the past: `age_redis` does that for Redis.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pytest

from warp.errors import UnitFailed
from warp.interfaces import LeaseStore
from warp.model import Chunk, Lease, LeasedUnit, TableId, WorkerState, WorkUnit

TTL = 10.0
SLACK = 2.0  # seconds a real server's clock may move on during one case
ORDERS = TableId("shop", "orders")
STREAM = WorkUnit.stream("shop")
POLL = WorkUnit.poll("shop", ORDERS)


def streams(count: int) -> list[WorkUnit]:
    return [WorkUnit.stream(f"schema-{n:03}") for n in range(count)]


def chunks(count: int) -> list[WorkUnit]:
    return [
        WorkUnit.of_chunk("shop", Chunk(ORDERS, n, f"[{n}]", f"[{n + 1}]", 100), 0)
        for n in range(count)
    ]


class LeaseStoreContract(ABC):
    @abstractmethod
    def make(self) -> LeaseStore:
        """A store on the ledger of this case: each call is another process of the same fleet."""

    @abstractmethod
    def pass_time(self, seconds: float) -> None: ...

    @abstractmethod
    def wipe(self) -> None:
        """Lose everything, as FLUSHALL does."""

    @pytest.fixture(autouse=True)
    def _store(self) -> Any:
        self.names = (f"worker-{n}" for n in itertools.count(1))
        self.ledger = self.make()
        yield
        self.ledger.close()

    # ------------------------------------------------------------ in the words of a test

    def worker(self) -> str:
        return next(self.names)

    def claim(self, worker: str, count: int = 100, *, slots: int = 100) -> list[Lease]:
        return self.ledger.claim(worker, count, ttl=TTL, slots=slots)

    def claim_one(self, worker: str = "") -> Lease:
        [lease] = self.claim(worker or self.worker(), 1)
        return lease

    def renew(
        self, worker: str, leases: Sequence[Lease], slots: int = 100
    ) -> tuple[int, list[bool]]:
        return self.ledger.renew(worker, leases, ttl=TTL, slots=slots)

    def seen(self, unit: WorkUnit) -> LeasedUnit:
        [found] = [u for u in self.ledger.units() if u.unit.id == unit.id]
        return found

    def state(self, unit: WorkUnit) -> str:
        found = [u.state for u in self.ledger.units() if u.unit.id == unit.id]
        return found[0] if found else "unknown"

    def crash(self, *units: WorkUnit, worker: str = "") -> None:
        """Claimed by a worker of their own, which then is never heard of again."""
        worker = worker or self.worker()
        assert {lease.unit for lease in self.claim(worker)} == set(units)
        self.pass_time(TTL + 0.1)

    # ------------------------------------------------------------ offering

    def test_ensure_adds_what_is_unknown_and_only_once(self) -> None:
        assert self.ledger.ensure([STREAM, POLL]) == 2
        assert self.ledger.ensure([STREAM, POLL]) == 0
        assert self.ledger.stats().due == 2

    def test_ensure_takes_no_units_and_many(self) -> None:
        assert self.ledger.ensure([]) == 0
        assert self.ledger.ensure(streams(1_234)) == 1_234
        assert self.ledger.stats().due == 1_234

    def test_ensure_leaves_leased_waiting_and_dead_units_alone(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one()
        self.ledger.offer(POLL, delay=60)
        dead = streams(1)[0]
        self.ledger.ensure([dead])
        self.ledger.release(self.claim_one(), dead=True)
        assert self.ledger.ensure([STREAM, POLL, dead]) == 0
        assert [self.state(u) for u in (STREAM, POLL, dead)] == ["leased", "later", "dead"]
        assert self.ledger.release(lease)

    def test_a_unit_comes_back_from_a_claim_as_it_was_offered(self) -> None:
        units = [STREAM, POLL, WorkUnit.of_chunk("shop", Chunk(ORDERS, 3, None, '["b\\u0000"]'), 2)]
        self.ledger.ensure(units)
        assert {lease.unit for lease in self.claim(self.worker())} == set(units)

    def test_an_offer_with_a_delay_waits_for_its_time(self) -> None:
        worker = self.worker()
        assert self.ledger.offer(POLL, delay=30)
        assert self.claim(worker) == []
        self.pass_time(31)
        assert [lease.unit for lease in self.claim(worker)] == [POLL]

    def test_of_two_offers_the_earlier_wins(self) -> None:
        assert self.ledger.offer(POLL, delay=30)
        assert not self.ledger.offer(POLL, delay=60)
        assert self.ledger.offer(POLL, delay=15)
        self.pass_time(16)
        assert [lease.unit for lease in self.claim(self.worker())] == [POLL]

    def test_an_offer_of_a_ready_unit_changes_nothing(self) -> None:
        self.ledger.offer(POLL)
        assert not self.ledger.offer(POLL, delay=0)
        assert not self.ledger.offer(POLL, delay=60)
        assert self.ledger.stats().due == 1

    def test_a_unit_offered_while_leased_runs_again_though_it_finished(self) -> None:
        self.ledger.offer(POLL)
        lease = self.claim_one()
        assert self.ledger.offer(POLL, delay=30)
        assert not self.ledger.offer(POLL, delay=60)
        assert self.state(POLL) == "leased"
        assert self.ledger.release(lease, delay=None)
        assert self.state(POLL) == "later"
        self.pass_time(31)
        assert self.claim_one().unit == POLL

    def test_the_note_of_an_offer_is_used_once(self) -> None:
        self.ledger.offer(POLL)
        lease = self.claim_one()
        self.ledger.offer(POLL)
        self.ledger.release(lease, delay=None)
        lease = self.claim_one()
        self.ledger.release(lease, delay=None)
        assert self.state(POLL) == "unknown"

    # ------------------------------------------------------------ claiming

    def test_a_unit_has_one_owner(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one("one")
        assert self.make().claim("two", 5, ttl=TTL, slots=5) == []
        assert (lease.unit, lease.owner) == (STREAM, "one")
        assert self.seen(STREAM).owner == "one"
        assert self.seen(STREAM).fence == lease.fence

    def test_a_claim_takes_no_more_than_it_asks_for(self) -> None:
        self.ledger.ensure(streams(10))
        assert len(self.claim(self.worker(), 3)) == 3
        assert self.ledger.stats().due == 7
        assert self.claim(self.worker(), 0) == []

    def test_the_oldest_ready_unit_comes_first(self) -> None:
        first, second, third = streams(3)
        for unit in (second, first, third):
            self.ledger.offer(unit)
            self.pass_time(1)
        worker = self.worker()
        assert [lease.unit for lease in self.claim(worker)] == [second, first, third]

    def test_a_stream_does_not_queue_behind_a_thousand_chunks(self) -> None:
        """One slot in four is the chunks' own; beyond it urgent units come first."""
        self.ledger.ensure(chunks(1000))
        self.pass_time(100)
        self.ledger.ensure(streams(10))
        worker = self.worker()
        taken = [lease.unit.kind for lease in self.claim(worker, 8, slots=8)]
        assert taken == ["chunk", "chunk"] + ["stream"] * 6

    def test_key_ranges_that_are_compared_stand_behind_streams_as_chunks_do(self) -> None:
        ranges = [WorkUnit.of_verification("shop", Chunk(ORDERS, n), 1) for n in range(20)]
        self.ledger.ensure(ranges)
        self.pass_time(5)
        self.ledger.ensure(streams(20))
        taken = [lease.unit.kind for lease in self.claim("w1", 8, slots=8)]
        assert taken == ["verify", "verify"] + ["stream"] * 6

    def test_streams_alone_take_every_slot_and_so_do_chunks(self) -> None:
        self.ledger.ensure(streams(4))
        assert len(self.claim("one", 4, slots=4)) == 4
        self.ledger.ensure(chunks(4))
        assert len(self.claim("two", 4, slots=4)) == 4

    def test_fences_grow_over_claims_releases_and_finished_units(self) -> None:
        fences = []
        for turn in range(6):
            self.ledger.ensure([POLL])
            lease = self.claim_one()
            fences.append(lease.fence)
            self.ledger.release(lease, delay=None if turn % 2 else 0.0)
        assert fences == sorted(set(fences))

    def test_fences_grow_over_withdrawals_and_wipes(self) -> None:
        self.ledger.ensure([POLL])
        first = self.claim_one()
        self.ledger.release(first, delay=60)
        self.ledger.withdraw([POLL.id])
        self.ledger.ensure([POLL])
        second = self.claim_one()
        self.wipe()
        self.pass_time(0.001)  # the clock is all that a wiped server has to go by
        self.ledger.ensure([POLL])
        third = self.claim_one()
        assert first.fence < second.fence < third.fence
        assert third.fence < 2**53  # exact in Lua, JSON and a double

    # ------------------------------------------------------------ keeping

    def test_a_renewed_lease_is_not_taken(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one("one")
        for _ in range(4):
            self.pass_time(TTL / 2)
            assert self.renew("one", [lease]) == (0, [True])
        assert self.claim("two") == []

    def test_a_lease_not_renewed_goes_to_the_next_worker_under_a_higher_fence(self) -> None:
        self.ledger.ensure([STREAM])
        old = self.claim_one("one")
        self.pass_time(TTL + 0.1)
        new = self.claim_one("two")
        assert new.unit == STREAM
        assert new.fence > old.fence

    def test_an_old_owner_renews_and_releases_nothing(self) -> None:
        self.ledger.ensure([STREAM])
        old = self.claim_one("one")
        self.pass_time(TTL + 0.1)
        new = self.claim_one("two")
        assert self.renew("one", [old])[1] == [False]
        assert not self.ledger.release(old)
        assert not self.ledger.release(old, failed=True)
        assert not self.ledger.release(old, dead=True)
        assert self.ledger.refence(old, 1) is None
        assert self.renew("two", [new])[1] == [True]

    def test_an_old_lease_of_the_same_worker_is_old_too(self) -> None:
        self.ledger.ensure([STREAM])
        old = self.claim_one("one")
        self.pass_time(TTL + 0.1)
        new = self.claim_one("one")
        assert self.renew("one", [old, new])[1] == [False, True]
        assert not self.ledger.release(old)

    def test_a_late_renewal_counts_while_nobody_has_taken_the_unit(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one("one")
        self.pass_time(TTL + 5)
        assert self.renew("one", [lease])[1] == [True]
        assert self.claim("two") == []

    def test_a_renewal_takes_250_leases_and_no_more(self) -> None:
        self.ledger.ensure(streams(251))
        leases = self.claim("one", 300, slots=300)
        assert self.renew("one", leases[:250], slots=300) == (0, [True] * 250)
        with pytest.raises(ValueError, match="250"):
            self.renew("one", leases, slots=300)

    def test_a_refenced_lease_is_above_the_floor_and_replaces_the_old_one(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one("one")
        higher = self.ledger.refence(lease, lease.fence + 5_000_000_000)
        assert higher is not None
        assert higher.fence == lease.fence + 5_000_000_001
        assert (higher.unit, higher.owner) == (lease.unit, lease.owner)
        assert self.renew("one", [lease, higher])[1] == [False, True]
        self.ledger.release(higher)
        assert self.claim_one().fence > higher.fence

    def test_a_fence_beyond_counting_is_refused_with_words(self) -> None:
        self.ledger.ensure([STREAM])
        with pytest.raises(UnitFailed, match="2\\^53"):
            self.ledger.refence(self.claim_one(), 2**60)

    # ------------------------------------------------------------ giving back

    def test_a_released_unit_is_ready_at_once_after_a_delay_or_never(self) -> None:
        self.ledger.ensure([STREAM])
        worker = self.worker()
        assert self.ledger.release(self.claim_one(worker))
        assert self.state(STREAM) == "due"
        assert self.ledger.release(self.claim_one(worker), delay=5)
        assert self.state(STREAM) == "later"
        self.pass_time(6)
        assert self.ledger.release(self.claim_one(worker), delay=None)
        assert self.state(STREAM) == "unknown"
        assert self.ledger.stats().demand == 0

    def test_a_lease_is_released_once(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one()
        assert self.ledger.release(lease)
        assert not self.ledger.release(lease)

    def test_a_failing_unit_is_held_back_twice_as_long_each_time(self) -> None:
        self.ledger.ensure([POLL])
        for expected in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            assert self.ledger.release(self.claim_one(), failed=True)
            self.pass_time(expected - 0.5)
            assert self.claim(self.worker()) == [], f"ready before {expected} s"
            self.pass_time(0.6)
            # Ready now; the claim of the next turn takes it.
        assert self.seen(POLL).tries == 9

    def test_a_unit_that_fails_ten_times_in_a_row_is_set_aside_until_revived(self) -> None:
        self.ledger.ensure([POLL])
        for _ in range(10):
            assert self.ledger.release(self.claim_one(), failed=True)
            self.pass_time(61)
        assert self.claim(self.worker()) == []
        assert (self.state(POLL), self.seen(POLL).tries) == ("dead", 10)
        assert not self.ledger.offer(POLL)
        assert self.ledger.ensure([POLL]) == 0
        assert self.ledger.revive(POLL.id)
        assert not self.ledger.revive(POLL.id)
        assert self.claim_one().unit == POLL
        assert self.seen(POLL).tries == 0

    def test_one_success_forgets_the_failures(self) -> None:
        self.ledger.ensure([POLL])
        for _ in range(9):
            self.ledger.release(self.claim_one(), failed=True)
            self.pass_time(61)
        self.ledger.release(self.claim_one())
        assert self.seen(POLL).tries == 0

    def test_a_long_hold_lets_failures_count_anew(self) -> None:
        self.ledger.ensure([STREAM])
        for _ in range(9):
            self.ledger.release(self.claim_one(), failed=True)
            self.pass_time(61)
        lease = self.claim_one("steady")
        for _ in range(12):
            self.pass_time(TTL - 1)
            assert self.renew("steady", [lease])[1] == [True]
        self.ledger.release(lease, failed=True)
        assert self.seen(STREAM).tries == 1

    def test_a_failure_waits_no_longer_than_the_delay_asked_for(self) -> None:
        self.ledger.ensure([POLL])
        for _ in range(5):
            self.ledger.release(self.claim_one(), delay=3, failed=True)
            self.pass_time(3.1)
        assert self.claim_one().unit == POLL  # by itself the ledger would wait 16 s

    def test_a_failure_waits_at_least_the_delay_asked_for(self) -> None:
        self.ledger.ensure([POLL])
        self.ledger.release(self.claim_one(), delay=40, failed=True)
        self.pass_time(38)
        assert self.claim(self.worker()) == []
        self.pass_time(3)
        assert self.claim_one().unit == POLL

    def test_an_offer_does_not_cut_short_the_waiting_after_a_failure(self) -> None:
        self.ledger.ensure([POLL])
        lease = self.claim_one()
        self.ledger.offer(POLL)
        self.ledger.release(lease, delay=30, failed=True)
        assert self.state(POLL) == "later"

    def test_a_unit_can_be_set_aside_at_once(self) -> None:
        self.ledger.ensure([POLL])
        assert self.ledger.release(self.claim_one(), dead=True)
        assert self.state(POLL) == "dead"
        stats = self.ledger.stats()
        assert (stats.dead, stats.demand) == (1, 0)

    # ------------------------------------------------------------ crashes

    def test_after_a_crash_the_first_try_is_at_once_and_later_ones_wait(self) -> None:
        self.ledger.ensure([STREAM])
        for waits in (0, 1, 2, 4, 8, 16, 32, 60, 60):
            self.crash(STREAM)
            if waits:
                # Whoever asks first finds the lease expired; from then on the unit waits.
                assert self.claim(self.worker()) == []
                self.pass_time(waits - 0.5)
                assert self.claim(self.worker()) == [], f"ready before {waits} s"
                self.pass_time(0.6)
        self.crash(STREAM)
        assert self.claim(self.worker()) == []
        assert self.state(STREAM) == "dead"

    def test_a_unit_of_a_dead_worker_is_ahead_of_newer_ones(self) -> None:
        self.ledger.ensure([STREAM])
        self.claim_one("one")
        self.pass_time(TTL + 5)
        newer = streams(2)
        self.ledger.ensure(newer)
        assert self.claim_one("two").unit == STREAM

    def test_a_crash_that_takes_several_units_along_sets_none_aside(self) -> None:
        """One of them may have brought it on the others, and nobody knows which."""
        units = streams(3)
        self.ledger.ensure(units)
        for _ in range(12):
            self.crash(*units)
            self.ledger.ensure([])  # somebody notices
            self.pass_time(61)
        assert {self.seen(u).tries for u in units} == {9}
        assert self.ledger.stats().dead == 0

    def test_a_unit_whose_living_worker_gave_up_on_it_is_set_aside_in_the_end(self) -> None:
        """A loop without progress is no longer renewed, while its process goes on."""
        stuck, fine = streams(2)
        self.ledger.ensure([fine])
        kept = self.claim_one("one")
        self.ledger.ensure([stuck])
        for _ in range(10):
            assert [lease.unit for lease in self.claim("one")] == [stuck]
            for _ in range(2):
                self.pass_time(TTL * 0.6)
                assert self.renew("one", [kept])[1] == [True]
            for _ in range(8):
                self.pass_time(TTL * 0.8)
                assert self.renew("one", [kept])[1] == [True]
        assert self.state(stuck) == "dead"
        assert self.state(fine) == "leased"

    # ------------------------------------------------------------ balance

    def test_two_workers_end_up_with_half_each_and_stay_so(self) -> None:
        self.ledger.ensure(streams(10))
        held = {"one": self.claim("one"), "two": []}
        assert len(held["one"]) == 10
        moves = 0
        for _ in range(8):
            for worker, leases in held.items():
                shed, still = self.renew(worker, leases)
                assert all(still)
                for lease in [leases.pop() for _ in range(shed)]:
                    assert self.ledger.release(lease)
                    moves += 1
            for worker in held:  # the one that gave a unit back asks first
                held[worker] += self.claim(worker)
        assert {worker: len(leases) for worker, leases in held.items()} == {"one": 5, "two": 5}
        assert moves == 5

    def test_nobody_is_asked_to_shed_over_a_difference_of_one(self) -> None:
        self.ledger.ensure(streams(3))
        one = self.claim("one", 2)
        two = self.claim("two", 1)
        assert self.renew("one", one)[0] == 0
        assert self.renew("two", two)[0] == 0

    def test_shares_follow_the_slots(self) -> None:
        self.ledger.ensure(streams(8))
        self.renew("large", [], slots=6)
        self.renew("small", [], slots=2)
        assert len(self.claim("small", 2, slots=2)) == 2
        large = self.claim("large", 6, slots=6)
        assert len(large) == 6
        assert self.renew("large", large, slots=6)[0] == 0

    def test_a_worker_with_its_share_leaves_the_rest_to_others_for_a_moment(self) -> None:
        self.renew("one", [])
        self.renew("two", [])
        self.ledger.ensure(streams(4))
        assert len(self.claim("one")) == 2
        assert self.claim("one") == []
        self.pass_time(TTL / 10 + 0.1)
        assert len(self.claim("one")) == 2  # nobody came: work does not lie about

    def test_units_take_turns_where_they_outnumber_the_slots(self) -> None:
        self.ledger.ensure(streams(6))
        leases = self.claim("one", 4, slots=4)
        shed, _ = self.renew("one", leases, slots=4)
        assert shed == 2
        served = {lease.unit for lease in leases}
        for _ in range(3):
            for lease in leases[:shed]:
                self.pass_time(0.01)
                self.ledger.release(lease)
            leases = leases[shed:] + self.claim("one", shed, slots=4)
            served |= {lease.unit for lease in leases}
        assert served == set(streams(6))

    def test_waiting_chunks_make_streams_give_up_a_quarter_of_the_slots_and_no_more(self) -> None:
        self.ledger.ensure(streams(8))
        leases = self.claim("one", 8, slots=8)
        self.ledger.ensure(chunks(50))
        assert self.renew("one", leases, slots=8)[0] == 2
        for lease in leases[:2]:
            self.ledger.release(lease, delay=None)
        mixed = leases[2:] + self.claim("one", 2, slots=8)
        assert [lease.unit.kind for lease in mixed[-2:]] == ["chunk", "chunk"]
        assert self.renew("one", mixed, slots=8)[0] == 0

    def test_nobody_sheds_for_a_unit_that_finds_a_free_slot(self) -> None:
        self.ledger.ensure(streams(4))
        leases = self.claim("one", 4, slots=8)
        self.ledger.ensure(chunks(3))
        assert self.renew("one", leases, slots=8)[0] == 0

    # ------------------------------------------------------------ coming and going

    def test_a_draining_worker_claims_nothing_and_is_asked_for_all_it_holds(self) -> None:
        self.ledger.ensure(streams(6))
        leases = self.claim("one", 3, slots=4)
        self.ledger.drain("one")
        assert self.claim("one", 3, slots=4) == []
        assert self.renew("one", leases, slots=4) == (3, [True] * 3)
        assert self.claim("one", 3, slots=4) == []
        assert self.ledger.stats().capacity == 0
        assert len(self.claim("two", 6, slots=6)) == 3
        for lease in leases:
            assert self.ledger.release(lease)
        assert len(self.claim("two", 6, slots=6)) == 3

    def test_a_worker_nobody_knows_can_drain(self) -> None:
        self.ledger.ensure([STREAM])
        self.ledger.drain("one")
        assert self.claim("one") == []

    def test_workers_are_known_until_they_fall_silent(self) -> None:
        self.ledger.ensure(streams(3))
        self.claim("one", 2, slots=4)
        self.renew("two", [], slots=8)
        [one, two] = sorted(self.ledger.workers(), key=lambda w: w.id)
        assert (one.id, one.slots, one.held) == ("one", 4, 2)
        assert (two.id, two.slots, two.held) == ("two", 8, 0)
        assert TTL - SLACK < one.alive_for <= TTL
        stats = self.ledger.stats()
        assert (stats.workers, stats.capacity) == (2, 12)
        self.pass_time(TTL / 2)
        self.renew("two", [], slots=8)
        self.pass_time(TTL / 2 + 0.1)
        assert [w.id for w in self.ledger.workers()] == ["two"]
        assert self.ledger.stats().capacity == 8

    def test_claiming_alone_is_no_proof_of_life(self) -> None:
        """Else a crashed worker would seem alive for longer than its leases last."""
        self.claim("one")
        self.pass_time(TTL / 2)
        self.claim("one")
        self.pass_time(TTL / 2 + 0.1)
        assert self.ledger.workers() == []

    def test_withdrawn_units_are_forgotten_unless_leased(self) -> None:
        leased, due, later, dead = streams(4)
        self.ledger.ensure([leased])
        self.claim_one("one")
        self.ledger.ensure([dead])
        self.ledger.release(self.claim_one("two"), dead=True)
        self.ledger.ensure([due])
        self.ledger.offer(later, delay=60)
        ids = [u.id for u in (leased, due, later, dead)]
        assert self.ledger.withdraw([*ids, "stream:nobody-knows-it"]) == 3
        assert self.ledger.withdraw([]) == 0
        assert [u.unit for u in self.ledger.units()] == [leased]
        assert self.ledger.stats().demand == 1

    # ------------------------------------------------------------ what is to be seen

    def test_stats_count_everything_once(self) -> None:
        now, soon, mine, gone, broken = streams(5)
        self.ledger.ensure([gone])
        self.claim_one("one")
        self.pass_time(TTL + 0.1)
        before = self.ledger.stats()
        assert (before.leased, before.expired) == (1, 1)
        assert self.renew("two", [], slots=4)
        self.ledger.withdraw([gone.id])
        self.ledger.ensure([broken])
        self.ledger.release(self.claim_one("two"), dead=True)
        self.ledger.ensure([mine])
        self.claim_one("two")
        self.ledger.offer(soon, delay=30)
        self.ledger.ensure([now])
        self.pass_time(5)
        stats = self.ledger.stats()
        counts = (stats.due, stats.later, stats.leased, stats.expired, stats.dead, stats.demand)
        assert counts == (1, 1, 1, 0, 1, 2)
        assert 5 <= stats.oldest_due < 5 + SLACK

    def test_the_oldest_waiting_unit_is_found_among_streams_and_chunks(self) -> None:
        assert self.ledger.stats().oldest_due == 0
        self.ledger.ensure(chunks(1))
        self.pass_time(10)
        self.ledger.ensure([STREAM])
        self.pass_time(10)
        assert 20 <= self.ledger.stats().oldest_due < 20 + SLACK
        self.claim("one", 1, slots=4)
        assert 10 <= self.ledger.stats().oldest_due < 10 + SLACK

    def test_ensure_makes_late_and_expired_units_count_though_no_worker_lives(self) -> None:
        """An autoscaler that has gone down to zero reads the demand; nobody else would move it."""
        self.ledger.ensure([STREAM])
        self.claim_one()
        self.ledger.offer(POLL, delay=30)
        self.pass_time(31)
        self.ledger.ensure([])
        stats = self.ledger.stats()
        assert (stats.due, stats.later, stats.leased, stats.demand) == (2, 0, 0, 2)

    def test_units_show_who_holds_what(self) -> None:
        self.ledger.ensure([STREAM])
        lease = self.claim_one("one")
        seen = self.seen(STREAM)
        assert (seen.state, seen.owner, seen.fence, seen.tries) == ("leased", "one", lease.fence, 0)
        assert TTL - SLACK < seen.expires_in <= TTL
        self.ledger.release(lease, delay=60)
        seen = self.seen(STREAM)
        assert (seen.state, seen.owner, seen.fence) == ("later", "", lease.fence)
        assert 60 - SLACK < seen.expires_in <= 60  # it still waits so long

    def test_a_worker_tells_how_much_memory_it_uses_until_it_is_gone(self) -> None:
        self.ledger.renew("one", [], ttl=TTL, slots=4, memory=5_000_000_000)
        self.ledger.claim("two", 1, ttl=2 * TTL, slots=4)
        seen = {worker.id: worker.memory for worker in self.ledger.workers()}
        assert seen == {"one": 5_000_000_000, "two": 0}
        self.pass_time(TTL + SLACK)
        self.ledger.ensure([])
        self.ledger.claim("one", 1, ttl=TTL, slots=4)  # alive again, and has not told yet
        assert {worker.memory for worker in self.ledger.workers()} == {0}

    def test_nobody_is_there_at_first(self) -> None:
        assert self.ledger.units() == []
        assert self.ledger.workers() == []
        assert self.ledger.stats().demand == 0
        assert self.renew("one", []) == (0, [])

    # ------------------------------------------------------------ wiped

    def test_an_incarnation_lasts_until_the_store_is_wiped(self) -> None:
        first = self.ledger.incarnation()
        assert first == self.ledger.incarnation() == self.make().incarnation()
        self.wipe()
        assert self.ledger.incarnation() not in ("", first)

    def test_a_wiped_ledger_is_rebuilt_by_ensure_and_old_leases_count_for_nothing(self) -> None:
        self.ledger.ensure([STREAM])
        old = self.claim_one("one")
        self.wipe()
        assert self.renew("one", [old])[1] == [False]
        assert not self.ledger.release(old)
        assert self.ledger.ensure([STREAM]) == 1
        self.pass_time(0.001)
        assert self.claim_one("two").fence > old.fence

    # ------------------------------------------------------------ the bell

    @pytest.mark.parametrize("how", ["ensure", "offer", "release", "revive"])
    def test_the_bell_ends_a_wait_when_a_unit_becomes_ready(self, how: str) -> None:
        other = self.make()
        other.wait(0.01)  # it listens from the first wait on
        if how in ("release", "revive"):
            self.ledger.ensure([STREAM])
            lease = self.claim_one()
            if how == "revive":
                self.ledger.release(lease, dead=True)
        while self.waited(other, 0.02) < 0.02:
            pass
        match how:
            case "ensure":
                self.ledger.ensure([STREAM])
            case "offer":
                self.ledger.offer(STREAM)
            case "release":
                self.ledger.release(lease)
            case "revive":
                self.ledger.revive(STREAM.id)
        assert self.waited(other, 30) < 20  # rung before we listened again, and not missed
        assert self.waited(other, 0.05) >= 0.05  # and heard once only
        other.close()

    def test_a_wait_ends_without_a_bell(self) -> None:
        assert self.waited(self.ledger, 0.05) >= 0.05

    @staticmethod
    def waited(store: LeaseStore, timeout: float) -> float:
        before = time.monotonic()
        store.wait(timeout)
        return time.monotonic() - before

    def test_what_is_seen_is_plain_data(self) -> None:
        self.ledger.ensure([STREAM])
        self.claim_one("one")
        assert all(isinstance(u, LeasedUnit) for u in self.ledger.units())
        assert all(isinstance(w, WorkerState) for w in self.ledger.workers())


_AGE = """
-- Moves everything a ledger holds ARGV[1] ms into the past.  Of a test only.
local by = tonumber(ARGV[1])
for i = 1, 4 do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    redis.call('ZINCRBY', KEYS[i], -by, member)
  end
end
for _, member in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
  redis.call('ZINCRBY', KEYS[5], -by, member)
end
for i = 6, 7 do
  local flat = redis.call('HGETALL', KEYS[i])
  for j = 1, #flat, 2 do
    redis.call('HSET', KEYS[i], flat[j], string.format('%.0f', tonumber(flat[j + 1]) - by))
  end
end
"""


def age_redis(client: Any, namespace: str, seconds: float) -> None:
    """Let `seconds` pass for a ledger in Redis, without waiting, by moving its times back.

    The fences stay: they are made of the server's true time.
    """
    names = ("due", "later", "exp", "dead", "workers", "since", "again")
    keys = [f"cw:{{{namespace}}}:{name}" for name in names]
    client.eval(_AGE, len(keys), *keys, round(seconds * 1000))
