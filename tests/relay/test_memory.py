"""What is remembered, on a virtual clock: for how long, and how much."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailsrv.relay.memory import Memory


def test_forgotten_in_time() -> None:
    clock = Clock()
    memory: Memory[str, int] = Memory(clock.seconds, 10)
    assert "a" not in memory
    memory.remember("a", 1)
    clock.advance(9)
    assert "a" in memory
    assert memory.get("a") == 1
    memory.remember("a", 2)
    clock.advance(9)
    assert memory.get("a") == 2
    clock.advance(1)
    assert memory.get("a") is None
    assert "a" not in memory
    assert len(memory) == 0


def test_bounded_by_forgetting_the_oldest() -> None:
    memory: Memory[int, None] = Memory(Clock().seconds, 10, most=3)
    for n in (1, 2, 3):
        memory.remember(n, None)
    memory.remember(1, None)
    memory.remember(4, None)
    assert [n in memory for n in (1, 2, 3, 4)] == [True, False, True, True]
    memory.forget(1)
    memory.forget(1)
    assert 1 not in memory
    memory.clear()
    assert len(memory) == 0
