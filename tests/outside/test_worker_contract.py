"""One suite for every provider of ``Worker``: real threads and the simulated ones behave the same.

Results of real threads come through the real reactor; that is why these are trial test cases.
"""

from __future__ import annotations

import random
import threading
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsrv.outside.interfaces import Worker
from mailsrv.outside.real import RealOutside
from tests.simulation.timeline import Life, Timeline
from tests.simulation.workers import SimulatedWorker


class WorkerContract(TestCase):
    """What a worker of any kind does."""

    def worker(self, threads: int = 1) -> Worker:
        raise NotImplementedError

    def settle(self, result: Deferred[Any]) -> Deferred[Any]:
        """Let everything happen that ``result`` waits for."""
        return result

    def make(self, threads: int = 1) -> Worker:
        worker = self.worker(threads)
        self.addCleanup(worker.stop)
        return worker

    async def test_a_result_arrives_later_and_in_the_thread_of_the_reactor(self) -> None:
        arrived: list[tuple[object, threading.Thread]] = []
        result = self.make().call(divmod, 17, 5)
        result.addCallback(lambda value: arrived.append((value, threading.current_thread())))
        assert arrived == []
        await self.settle(result)
        assert arrived == [((3, 2), threading.current_thread())]

    async def test_an_exception_arrives(self) -> None:
        try:
            await self.settle(self.make().call(int, "none"))
        except ValueError as error:
            assert "none" in str(error)
        else:
            raise AssertionError("the exception was lost")

    async def test_keyword_arguments_are_passed_on(self) -> None:
        def add(first: int, *, second: int) -> int:
            return first + second

        assert await self.settle(self.make().call(add, 1, second=2)) == 3

    async def test_one_thread_keeps_the_order_of_calls_and_of_results(self) -> None:
        worker = self.make()
        ran: list[int] = []
        arrived: list[int] = []

        def run(number: int) -> int:
            ran.append(number)
            return number

        results = [worker.call(run, number).addCallback(arrived.append) for number in range(50)]
        await self.settle(gatherResults(results))
        assert ran == arrived == list(range(50))

    async def test_several_threads_do_everything(self) -> None:
        worker = self.make(4)
        done = gatherResults([worker.call(abs, -number) for number in range(50)])
        assert await self.settle(done) == list(range(50))

    async def test_stop_finishes_what_was_begun(self) -> None:
        worker = self.worker()
        ran: list[int] = []
        done = gatherResults([worker.call(ran.append, number) for number in range(20)])
        worker.stop()
        assert ran == list(range(20))
        await self.settle(done)


class RealWorkerTests(WorkerContract):
    def worker(self, threads: int = 1) -> Worker:
        return RealOutside(reactor).worker("contract", threads)

    async def test_who_asks_again_at_every_answer_leaves_the_reactor_its_turns(self) -> None:
        worker = self.make()
        answers, turns = 0, 0
        over: Deferred[None] = Deferred()

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not over.called:
                deferLater(reactor, 0).addCallback(lambda _: turn())

        def again(result: object) -> None:
            nonlocal answers
            answers += 1
            if answers == 200:
                over.callback(None)
                return
            following = worker.call(int)
            while not worker._results:  # type: ignore[attr-defined]
                pass  # the thread is faster than this answer
            following.addCallback(again)

        turn()
        worker.call(int).addCallback(again)
        await over
        assert turns >= 200

    async def test_a_system_without_another_thread_is_told_and_asked_again(self) -> None:
        worker = self.make()

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with mock.patch.object(threading.Thread, "start", refuse):
            refused = worker.call(int)
            try:
                await refused
            except RuntimeError:
                pass
            else:
                raise AssertionError("nothing was said")
        assert await worker.call(int) == 0

    def test_a_worker_that_was_stopped_begins_nothing(self) -> None:
        worker = self.worker()
        worker.stop()
        before = threading.active_count()
        assert not worker.call(int).called
        assert threading.active_count() == before


class SimulatedWorkerTests(WorkerContract):
    def setUp(self) -> None:
        self.timeline = Timeline()

    def worker(self, threads: int = 1) -> Worker:
        return SimulatedWorker(self.timeline, Life(), random.Random(1), threads)

    def settle(self, result: Deferred[Any]) -> Deferred[Any]:
        self.timeline.run(60.0)
        assert result.called
        return result


del WorkerContract  # the suite is collected with its providers only
