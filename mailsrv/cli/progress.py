"""Long work that a person looks at: a bar that shows how far it is, and a way to stop it between two steps."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

_WIDTH = 30
_STEPS = 500  # drawings in all, so that drawing costs nothing


class Progress:
    """A bar on standard error, where that is a terminal; nothing elsewhere.  ``total`` is of any unit.

    For use in a ``with`` statement, which removes the bar at its end.
    """

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._done = 0
        self._drawn = -1
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def add(self, done: int, text: str) -> None:
        """So much more is done; ``text`` is a few words beside the bar."""
        self._done += done
        share = min(self._done / self._total, 1.0)
        if self._shown and int(share * _STEPS) != self._drawn:
            self._drawn = int(share * _STEPS)
            bar = "#" * int(share * _WIDTH)
            print(f"\r[{bar:<{_WIDTH}}] {share:4.0%}  {text}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar away, to print something else."""
        if self._shown and self._drawn >= 0:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = -1


class Stop:
    """Within a ``with`` statement Ctrl-C and SIGTERM only set ``wanted``; the second time they end the program."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.wanted = False
        self._before: list[object] = []

    def __enter__(self) -> Stop:
        self._before = [signal.signal(number, self._asked) for number in self._SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, []
        for number, disposition in zip(self._SIGNALS, before, strict=False):
            signal.signal(number, disposition)  # type: ignore[arg-type]
