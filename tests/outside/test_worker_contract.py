"""One suite for every provider of ``Worker``: real threads and the simulated ones behave the same.

Results of real threads come through the real reactor; that is why these are trial test cases.
"""

from __future__ import annotations

import random
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
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
