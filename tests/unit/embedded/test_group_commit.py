"""One step for all who ask at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest

from shared.adapters.embedded.group_commit import GroupCommit


class TestGroupCommit:
    """Whoever comes while a batch runs is in the next one, never in the one that runs."""

    def test_those_who_come_meanwhile_are_the_next_batch(self) -> None:
        began, release = Event(), Event()
        batches: list[list[int]] = []

        def step(jobs: Sequence[int]) -> None:
            batches.append(sorted(jobs))
            began.set()
            assert release.wait(120)

        group = GroupCommit(step)
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(group.submit, 0)
            assert began.wait(120)
            others = [pool.submit(group.submit, number) for number in range(1, 8)]
            while len(group._waiting) < 7:
                pass
            assert not any(future.done() for future in (first, *others))
            release.set()
            for future in (first, *others):
                future.result(10)
        assert batches == [[0], [1, 2, 3, 4, 5, 6, 7]]

    def test_every_job_runs_once_and_no_two_batches_at_once(self) -> None:
        running = Lock()
        done: list[int] = []

        def step(jobs: Sequence[int]) -> None:
            assert running.acquire(blocking=False)
            assert len(jobs) <= 3
            done.extend(jobs)
            running.release()

        group = GroupCommit(step, max_jobs=3)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(group.submit, range(2000)))
        assert sorted(done) == list(range(2000))

    def test_a_failed_step_fails_for_all_of_its_batch_and_no_other(self) -> None:
        began, release = Event(), Event()

        def step(jobs: Sequence[int]) -> None:
            began.set()
            assert release.wait(120)
            if 0 not in jobs:
                raise ValueError

        group = GroupCommit(step)
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(group.submit, 0)
            assert began.wait(120)
            others = [pool.submit(group.submit, number) for number in (1, 2)]
            while len(group._waiting) < 2:
                pass
            release.set()
            first.result(10)
            for future in others:
                with pytest.raises(ValueError):
                    future.result(10)
        group.submit(0)

    def test_an_interrupted_leader_tells_its_followers_and_blocks_nobody(self) -> None:
        """Ctrl-C in one thread must not leave others waiting for ever."""
        began, release = Event(), Event()

        def step(jobs: Sequence[int]) -> None:
            began.set()
            assert release.wait(120)
            if 1 in jobs:
                raise KeyboardInterrupt

        def submit(number: int) -> str:
            try:
                group.submit(number)
            except BaseException as error:
                return type(error).__name__
            return "done"

        group = GroupCommit(step)
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(submit, 0)
            assert began.wait(120)
            others = [pool.submit(submit, 1)]
            while len(group._waiting) < 1:
                pass
            others.append(pool.submit(submit, 2))
            while len(group._waiting) < 2:
                pass
            release.set()
            assert first.result(10) == "done"
            answers = [future.result(10) for future in others]
        assert answers == ["KeyboardInterrupt", "InterruptedError"]
        group.submit(3)
