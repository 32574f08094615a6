"""The model of the lease protocol does what the code does, and the code what the model does.

Each step of a trace is taken by the model and by real things: the ledger's scripts on a real Redis,
a real PostgreSQL as the destination, the worker's own `adopt`.  What was said and what is left must
be the same after each of them.  And with a guarding line taken out of the code, the real things do
what the model does with that rule taken away: so each of the model's `Rules` is the line it is said
to be.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from fix_servers import Server, fresh_database
from lease_destinations import Place, in_mariadb, in_postgres
from lease_guards import BESIDES, BREAKS, EVERY_OUTCOME, TAKEN_OUT, Edit, steps_of
from lease_model import Bounds, Protocol, Rules, State, Step
from lease_replay import CLOCK, Differs, RealThings, Replay, scripts
from psycopg.conninfo import conninfo_to_dict

pytestmark = pytest.mark.xdist_group("lease-conformance")

ROOM = Bounds(clock=9, batches=9, fence=10**9, wipes=3, steps_back=3, resyncs=2)
WALKS, STEPS = 30, 10
LEAST = 2  # of each thing that a step can say
SEED = int(os.environ.get("CARTRIDGE_WARP_SEED", "1"))
TRIALS = int(os.environ.get("CARTRIDGE_WARP_TRIALS", "200"))

RIGHT = Protocol(bounds=ROOM, time=CLOCK)


class Unjudged(Protocol):
    """Goes on where a guarantee is broken: the servers do so too."""

    def _judge(self, state: State, me: int) -> None:
        pass


@pytest.fixture(scope="module")
def postgresql_place(postgres: Server, _prepared: str) -> Iterator[Place]:
    name = conninfo_to_dict(_prepared)["dbname"]
    with fresh_database(postgres, like=name) as url, in_postgres(url) as place:
        yield place


@pytest.fixture(scope="module")
def mariadb_place(mariadb: Server) -> Iterator[Place]:
    with in_mariadb(mariadb) as place:
        yield place


DESTINATIONS = ["postgresql", "mariadb"]


@pytest.fixture(scope="module", params=DESTINATIONS)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def edits() -> tuple[Edit, ...]:
    """What is taken out of the code."""
    return ()


@pytest.fixture
def real(
    place: Place, redis_server: Server, redis_namespace: str, edits: tuple[Edit, ...]
) -> Iterator[RealThings]:
    clock = f"clock of {redis_namespace}"
    with redis.Redis.from_url(redis_server.url) as client, scripts(clock, type(place), edits):
        real = RealThings(place, client, redis_namespace)
        yield real
        real.stop()


def follow(real: RealThings, trace: str, protocol: Protocol = RIGHT) -> Replay:
    real.start()
    replay = Replay(real, protocol)
    for step in steps_of(trace):
        replay.take(Step.read(step))
    return replay


Outcome = tuple[str, str]  # a step, and what it said


def ways(drawn: random.Random) -> dict[Outcome, list[Step]]:
    """A short way to each thing that a step can say."""
    found: dict[Outcome, list[Step]] = {}
    queue: deque[tuple[State, list[Step]]] = deque([(State(), [])])
    met = {State()}
    while queue and found.keys() != EVERY_OUTCOME:
        state, way = queue.popleft()
        steps = list(RIGHT.steps(state))
        drawn.shuffle(steps)
        for step in steps:
            told, left = RIGHT.after(state, step)
            found.setdefault((step.name, told), [*way, step])
            if left not in met:
                met.add(left)
                queue.append((left, [*way, step]))
    return found


def walk(real: RealThings, seed: int, count: int) -> Counter[Outcome]:
    """To what was said least often so far, and on from there at random: so many walks."""
    drawn = random.Random(seed)
    there = ways(drawn)
    said: Counter[Outcome] = Counter()
    for _ in range(count):
        real.start()
        replay = Replay(real, RIGHT)
        rarest = min(sorted(there), key=lambda outcome: said[outcome])
        for step in there[rarest]:
            said[step.name, replay.take(step)] += 1
        for _ in range(STEPS):
            step = drawn.choice(list(RIGHT.steps(replay.state)))
            said[step.name, replay.take(step)] += 1
    return said


# ---------------------------------------------------------------- with all guards


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination=("postgresql", "mariadb"),
    fault=("superseded", "FLUSHALL", "clock set back"),
)
@pytest.mark.holds(
    guarantee=7,
    source="none",
    destination=("postgresql", "mariadb"),
    fault=("FLUSHALL", "lost connection"),
)
def test_random_walks_of_the_model_go_the_same_way_on_real_servers(real: RealThings) -> None:
    said = walk(real, SEED, WALKS)
    assert said.keys() == EVERY_OUTCOME
    assert min(said.values()) >= LEAST, said


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thousands_of_random_steps_go_the_same_way_on_real_servers(real: RealThings) -> None:
    assert walk(real, random.randrange(1 << 32), TRIALS).keys() == EVERY_OUTCOME


def test_ways_that_break_a_guarantee_without_its_guard_are_barred_on_real_servers(
    real: RealThings,
) -> None:
    for broken in BREAKS.values():
        follow(real, broken.trace)


# ---------------------------------------------------------------- without one


def without(*names: str) -> Rules:
    return replace(Rules(), **dict.fromkeys(names, False))


def parting(with_it: Rules, without_it: Rules) -> str:
    """The shortest way to a step that goes differently without a guard."""
    one, other = Unjudged(with_it, ROOM, CLOCK), Unjudged(without_it, ROOM, CLOCK)
    queue: deque[tuple[State, tuple[str, ...]]] = deque([(State(), ())])
    met = {State()}
    while queue:
        state, way = queue.popleft()
        for step in one.steps(state):
            left = one.after(state, step)
            there = (*way, str(step))
            if other.after(state, step) != left:
                return ", ".join(there)
            if left[1] not in met:
                met.add(left[1])
                queue.append((left[1], there))
    raise AssertionError(f"expected a step that goes differently with {without_it}")


TWINS = [
    pytest.param(there, edits, gone, id=f"{gone[0]}, {there}")
    for gone in [(rule, *filter(None, [BESIDES.get(rule)])) for rule in TAKEN_OUT]
    for edits in [tuple(edit for name in gone for edit in TAKEN_OUT[name])]
    # The ledger is the same before every destination.
    for there in DESTINATIONS[: 1 if edits[0].where == "lua" else None]
]


@pytest.mark.parametrize(("place", "edits", "gone"), TWINS, indirect=["place"], scope="module")
def test_without_a_guarding_line_the_servers_go_the_way_of_the_model_without_that_guard(
    real: RealThings, gone: tuple[str, ...]
) -> None:
    with_it, without_it = without(*gone[1:]), without(*gone)
    trace = parting(with_it, without_it)
    with pytest.raises(Differs):
        follow(real, trace, Unjudged(with_it, ROOM, CLOCK))
    follow(real, trace, Unjudged(without_it, ROOM, CLOCK))
    # And what the model finds to break a guarantee breaks it on real servers.
    for broken in BREAKS.values():
        if broken.rules == without_it:
            follow(real, broken.trace, Unjudged(without_it, ROOM, CLOCK))
