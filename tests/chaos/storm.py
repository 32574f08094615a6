"""The faults that strike a whole fleet and its servers, whatever its source is.

Each is begun at its time of the schedule; one that lasts is ended later, and several may be at work
at the same time.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import redis
from failing_servers import Clock, RedisWithOwnClock, SmallDisk
from fleet import Fleet, Program, Worker
from pymongo.errors import PyMongoError
from schedule import Strike
from wires import State, Wire

from warp.own_process import LocalServer
from warp.testing.servers import MariaDb, Mongod, Postgres, ReplicaSet

End = Callable[[], None]
Begun = tuple[str, End | None]  # what it struck, and how it ends
Fault = Callable[[Strike], Begun]

SHIFTS: Final = (-20.0, -4.0, 4.0, 20.0)  # seconds that a clock may be wrong by


class Storm:
    """Strikes one fault after another."""

    def __init__(
        self,
        fleet: Fleet,
        faults: Mapping[str, Fault],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.fleet = fleet
        self.faults = faults
        self.struck: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []  # from when to when, in Unix seconds
        self._say = say

    def rage(self, strikes: Sequence[Strike]) -> None:
        """To the end of the last fault."""
        began = time.monotonic()
        calm = threading.Event()
        # Ended by others: to strike one fault may have to wait for the end of another.
        ends: list[threading.Timer] = []
        try:
            for strike in strikes:
                calm.wait(max(0.0, began + strike.at - time.monotonic()))
                struck = time.time()
                what, end = self.faults[strike.fault](strike)
                self.struck[strike.fault] += 1
                self.outages.append((struck, time.time() + (strike.lasts if end else 0.0)))
                if end:
                    ends.append(threading.Timer(strike.lasts, end))
                    ends[-1].start()
                    what += f" for {strike.lasts:.1f} s"
                now = time.monotonic() - began
                self._say(f"{now:7.1f} s  {strike.number:4}  {strike.fault}: {what}")
        finally:
            for timer in ends:
                timer.join()


# --- processes ------------------------------------------------------------------------------------


def of_processes(fleet: Fleet) -> dict[str, Fault]:
    def worker(strike: Strike) -> Worker:
        return fleet.workers[int(strike.luck * len(fleet.workers))]

    def kill_a_worker(strike: Strike) -> Begun:
        worker(strike).crash()
        return worker(strike).label, None

    def kill_one_process_of_a_worker(strike: Strike) -> Begun:
        worker(strike).kill_one(random.Random(strike.luck))
        return worker(strike).label, None

    def kill_the_coordinator(_: Strike) -> Begun:
        fleet.programs[0].crash()
        return fleet.programs[0].label, None

    def pause_a_worker(strike: Strike) -> Begun:
        """At times for longer than its leases last, so that it wakes as a zombie."""
        return _paused(worker(strike))

    def pause_the_coordinator(_: Strike) -> Begun:
        return _paused(fleet.programs[0])

    def end_a_worker(strike: Strike) -> Begun:
        """As a rolling update does; the supervisor starts it again."""
        worker(strike).finish()
        worker(strike).start()
        return worker(strike).label, None

    return _named(
        kill_a_worker,
        kill_one_process_of_a_worker,
        kill_the_coordinator,
        pause_a_worker,
        pause_the_coordinator,
        end_a_worker,
    )


def _named(*faults: Fault) -> dict[str, Fault]:
    return {fault.__name__: fault for fault in faults}


def _paused(program: Program) -> Begun:
    def wake() -> None:
        with program.lock:
            if program.running:
                program.resume()

    with program.lock:
        if program.running:
            program.pause()
    return program.label, wake


def of_clocks(clocks: Mapping[str, Clock]) -> dict[str, Fault]:
    def shift_a_clock(strike: Strike) -> Begun:
        name, clock = list(clocks.items())[int(strike.luck * len(clocks))]
        seconds = SHIFTS[int(strike.luck * 997) % len(SHIFTS)]
        clock.shift(seconds)
        return f"{name}'s by {seconds:+.0f} s", lambda: clock.shift(0)

    return _named(shift_a_clock)


def of_the_ledgers_clock(clock: Clock) -> dict[str, Fault]:
    """For those who want this alone."""

    def set_the_ledgers_clock_back(_: Strike) -> Begun:
        clock.shift(SHIFTS[0])
        return f"by {-SHIFTS[0]:.0f} s", lambda: clock.shift(0)

    return _named(set_the_ledgers_clock_back)


# --- servers --------------------------------------------------------------------------------------


def of_redis(server: RedisWithOwnClock) -> dict[str, Fault]:
    def wipe_redis(_: Strike) -> Begun:
        with server.client() as client:
            client.flushall()
        return "all keys", None

    def crash_redis(_: Strike) -> Begun:
        """It keeps nothing on disk, so it comes back empty."""
        server.restart(hard=True)
        return "back empty", None

    def fill_redis(_: Strike) -> Begun:
        """It answers, and takes no write."""
        with server.client() as client:
            client.config_set("maxmemory", "1")

        def make_room() -> None:
            # Started anew meanwhile it has room.
            with contextlib.suppress(redis.RedisError), server.client() as client:
                client.config_set("maxmemory", "0")

        return "no write", make_room

    return _named(wipe_redis, crash_redis, fill_redis)


def of_destination(server: SmallDisk) -> dict[str, Fault]:
    def restart_the_destination(_: Strike) -> Begun:
        server.restart()
        return server.name, None

    def crash_the_destination(_: Strike) -> Begun:
        server.restart(hard=True)
        return server.name, None

    def freeze_the_destination(_: Strike) -> Begun:
        return _frozen(server)

    def fill_the_disk(_: Strike) -> Begun:
        server.fill_the_disk()
        return "no table grows", server.make_room

    return _named(
        restart_the_destination, crash_the_destination, freeze_the_destination, fill_the_disk
    )


def _frozen(server: LocalServer) -> Begun:
    """It keeps its connections and answers nobody."""
    server.pause()

    def thaw() -> None:
        if server.running:
            server.resume()

    return server.name, thaw


def of_sql_source(server: Postgres | MariaDb) -> dict[str, Fault]:
    def restart_the_source(_: Strike) -> Begun:
        server.restart()
        return server.name, None

    def crash_the_source(_: Strike) -> Begun:
        server.restart(hard=True)
        return server.name, None

    def freeze_the_source(_: Strike) -> Begun:
        return _frozen(server)

    return _named(restart_the_source, crash_the_source, freeze_the_source)


def of_replica_set(members: ReplicaSet) -> dict[str, Fault]:
    def crash_the_primary(_: Strike) -> Begun:
        struck = members.wait_for_primary()
        struck.restart(hard=True)
        return struck.address, None

    def elect_another_primary(_: Strike) -> Begun:
        struck = members.wait_for_primary()
        # It may have stepped down or gone by itself between the two lines.
        with contextlib.suppress(PyMongoError), struck.client() as client:
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5, force=True)
        return struck.address, None

    def freeze_the_primary(_: Strike) -> Begun:
        """Alone for long enough it is replaced, and wakes as the primary of nobody."""
        return _frozen(members.wait_for_primary())

    def crash_a_secondary(strike: Strike) -> Begun:
        primary = members.wait_for_primary()
        others: list[Mongod] = [m for m in members.members if m is not primary]
        struck = others[int(strike.luck * len(others))]
        struck.restart(hard=True)
        return struck.address, None

    return _named(crash_the_primary, elect_another_primary, freeze_the_primary, crash_a_secondary)


# --- the network ----------------------------------------------------------------------------------


def of_network(wires: Sequence[Wire]) -> dict[str, Fault]:
    def become(strike: Strike, state: State) -> Begun:
        wire = wires[int(strike.luck * len(wires))]
        wire.become(state)
        return f"to the {wire.name}", wire.mend

    def cut_the_network(strike: Strike) -> Begun:
        return become(strike, State.CUT)

    def slow_the_network(strike: Strike) -> Begun:
        return become(strike, State.SLOW)

    def hold_up_the_network(strike: Strike) -> Begun:
        """Connections stay, and nothing passes."""
        return become(strike, State.HELD)

    return _named(cut_the_network, slow_the_network, hold_up_the_network)
