"""What the children of a group do in the tests. Their coroutines are at home in asyncio and in trio, whichever runs them."""

from __future__ import annotations

import asyncio

import weft
from worlds import CANCELLED, trio


class Boom(Exception):
    pass


def in_trio():
    """Whether it is a task of trio that runs; else it is one of asyncio."""
    return trio is not None and trio.lowlevel.in_trio_task()


async def checkpoint():
    """Give the others a turn."""
    await (trio.lowlevel.checkpoint() if in_trio() else asyncio.sleep(0))


async def undisturbed():
    """Fails when a cancellation is left over in the task that runs."""
    assert in_trio() or asyncio.current_task().cancelling() == 0
    for _ in range(3):
        await checkpoint()


def scheduler():
    """What runs this task: its loop, or its run of trio."""
    return trio.lowlevel.current_trio_token() if in_trio() else asyncio.get_running_loop()


def soon(call):
    """Have the scheduler make a call when the task that runs has given it a turn."""
    (scheduler().run_sync_soon if in_trio() else scheduler().call_soon)(call)


async def double(n):
    await checkpoint()
    return 2 * n


def triple(n):
    return 3 * n


async def fail(error):
    await checkpoint()
    raise error


def fail_in_thread(error):
    raise error


async def wait_for_ever():
    """Without any of weft's operations."""
    await (trio.sleep_forever() if in_trio() else asyncio.get_running_loop().create_future())


def park():
    weft.never().wait()


class Witness:
    """Children that say when they are about to wait, and which of them were cancelled."""

    ALL = ["task", "task", "thread"]  # that `spawn` makes

    def __init__(self):
        self.waiting = weft.Channel(100)
        self.cancelled = []

    async def task(self):
        self.waiting.send_nowait("task")
        try:
            await wait_for_ever()
        except CANCELLED:
            self.cancelled.append("task")
            raise

    def thread(self):
        self.waiting.send_nowait("thread")
        try:
            park()
        except weft.Cancelled:
            self.cancelled.append("thread")
            raise

    async def spawn(self, group):
        """One child of each kind, each of them waiting."""
        children = [group.spawn(self.thread), group.spawn(self.task, on="thread"), group.spawn(self.task)]
        for _ in children:
            await self.waiting.recv()
        return children

    def spawn_threads(self, group):
        children = [group.spawn(self.thread), group.spawn(self.task)]
        for _ in children:
            self.waiting.recv().wait()
        return children
