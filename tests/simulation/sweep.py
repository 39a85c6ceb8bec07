"""Many worlds, on all processors: ``python -m tests.simulation.sweep [WORLDS [FIRST SEED]]``.

A sixth each of calm worlds with crashes, of the same over TLS, of faulty worlds and of faulty worlds with crashes, and
of worlds to which mail goes out (``elsewhere.py``), without and with crashes at steps.
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
LATEST_OUTGOING_CRASH = 6000


def story(seed: int) -> list[str]:
    """Run the world of a seed, of the kind that its remainder by 6 says; what is broken in it."""
    rng = random.Random(f"{seed}: sweep")
    kind = seed % 6
    crashes = [] if kind in (2, 4) else sorted(rng.sample(range(1, LATEST_CRASH), rng.choice((1, 1, 2, 4))))
    tls = kind == 1 or (kind > 1 and rng.random() < 0.2)
    if kind >= 4:
        steps = [rng.randrange(1, LATEST_OUTGOING_CRASH) for _ in crashes]
        # Speed is judged where nothing befalls the machine, so that is not rare.
        faults = CALM_FAULTS if kind == 4 and rng.random() < 0.5 else faulty(seed, outgoing=True)
        return judged(seed, sorted(steps), faults, outgoing=True)
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
