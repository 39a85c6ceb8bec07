"""Many worlds, on all processors: ``python -m tests.simulation.sweep [WORLDS [FIRST SEED]]``.

A quarter each of calm worlds with crashes, of the same over TLS, of faulty worlds and of faulty worlds with crashes.
Prints the line that runs a broken world again; exit status 1 when there is one.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time

from tests.simulation.scenario import CALM_FAULTS
from tests.simulation.world import faulty, judged

LATEST_CRASH = 700  # few worlds have more steps


def story(seed: int) -> list[str]:
    """Run the world of a seed, of the kind that its remainder by 4 says; what is broken in it."""
    rng = random.Random(f"{seed}: sweep")
    kind = seed % 4
    crashes = () if kind == 2 else sorted(rng.sample(range(1, LATEST_CRASH), rng.choice((1, 1, 2, 4))))
    tls = kind == 1 or (kind > 1 and rng.random() < 0.2)
    return judged(seed, crashes, CALM_FAULTS if kind < 2 else faulty(seed), tls=tls)


def main(arguments: list[str]) -> int:
    worlds, first = (int(word) for word in (*arguments, *("1000", "0")[len(arguments) :]))
    broken, begun = 0, time.monotonic()
    with multiprocessing.Pool() as pool:
        for number, complaints in enumerate(pool.imap(story, range(first, first + worlds), 8), 1):
            if complaints:
                broken += 1
                print("\r" + "\n".join(complaints))
            if sys.stdout.isatty() and number % 20 == 0:
                print(f"\r{number} of {worlds} worlds, {broken} broken", end="", flush=True)
    print(f"\r{worlds} worlds in {time.monotonic() - begun:.0f} s, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
