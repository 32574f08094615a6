"""`make chaos`: faults for minutes against a fleet, and whether its destination stayed true.

python tests/chaos --source mongodb --destination mariadb --minutes 5 --seed 7

One seed is one schedule of faults and one workload.  A line for each fault, then the verdict; the
exit code is 1 where there is an accusation.  The history of the source stays in build/chaos/.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/integration")]

from ordeal import DESTINATIONS, SOURCES, Plan, Verdict, run, scene_of, told  # noqa: E402

LULL = (0.5, 6.0)  # seconds between two faults: at times long enough for all to be well again


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def endure(source: str, destination: str, plan: Plan) -> Verdict:
    directory = ROOT / "build" / "chaos" / f"{source}-{destination}-{plan.seed}"
    directory.mkdir(parents=True, exist_ok=True)
    minutes = f"{plan.seconds / 60:.1f} minutes"
    say(f"== {source} to {destination}, seed {plan.seed}: faults for {minutes}")
    began = time.monotonic()
    with scene_of(source, plan, destination) as scene:
        verdict = run(scene, plan, directory, say)
    for line in verdict.said:
        say(line)
    say(f"struck: {sum(verdict.struck.values())} faults of {len(verdict.struck)} kinds")
    if verdict.accusations:
        say(told(verdict))
    seconds = time.monotonic() - began
    judged = f"{len(verdict.accusations)} accusations" if verdict.accusations else "true"
    say(f"verdict: {judged}, after {seconds:.0f} s; the history is in {directory}")
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=[*SOURCES, "all"], default="all")
    parser.add_argument("--destination", choices=DESTINATIONS, default=DESTINATIONS[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults, for each source")
    parser.add_argument("--seed", type=int, default=0, help="0: any, and it is told")
    arguments = parser.parse_args()
    seed = arguments.seed or random.SystemRandom().randrange(1, 1 << 31)
    sources = SOURCES if arguments.source == "all" else (arguments.source,)
    plan = Plan(seed, arguments.minutes * 60, lull=LULL)
    wrong = 0
    for source in sources:
        if endure(source, arguments.destination, plan).accusations:
            wrong += 1
            pair = f"SOURCE={source} DESTINATION={arguments.destination}"
            say(f"again: make chaos {pair} SEED={seed} MINUTES={arguments.minutes:g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
