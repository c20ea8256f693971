"""`weft.snapshot`: what the program does now, in all its places."""

import asyncio
import threading
import weakref

import pytest
import weft
from weft import _interpreter, _os_process

PLACES = [
    pytest.param(place, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
    for place, reason in [
        ("interpreter", _interpreter.reason_against()),
        ("process", _os_process.reason_against()),
    ]
]


def until_waiting(*operations):
    """A snapshot in which operations that begin so wait, wherever."""

    def waiting(place):
        return place.waiting + [wait for below in place.places for wait in waiting(below)]

    for _ in range(1000):
        found = weft.snapshot(timeout=5)
        if all(any(wait.operation.startswith(wanted) for wait in waiting(found)) for wanted in operations):
            return found
        threading.Event().wait(0.01)
    raise AssertionError(str(found))


def receive(rx):
    try:
        rx.recv().wait()
    except weft.Closed:
        pass


def test_it_lists_channels_processes_and_who_waits():
    ch = weft.Channel(3, name="jobs here")
    with weft.Group() as group:
        group.spawn(receive, ch, on="thread", name="worker bee")
        found = until_waiting("recv on channel 'jobs here'")
        assert [channel.capacity for channel in found.channels if channel.name == "jobs here"] == [3]
        process = next(process for process in found.processes if process.name == "worker bee")
        assert process.place == "thread" and "test_snapshot.py" in process.spawned_at
        text = str(found)
        assert "channel 'jobs here': 0 of 3 buffered, 0 sending, 1 receiving" in text
        ch.close()
    left = str(weft.snapshot())
    assert "worker bee" not in left and "recv on channel 'jobs here'" not in left


def test_it_names_tasks_and_processes_of_a_loop():
    async def waits(ch):
        try:
            await ch.recv()
        except weft.Closed:
            pass

    async def main():
        ch = weft.Channel(name="in a loop")
        async with weft.Group() as group:
            group.spawn(waits, ch)
            task = asyncio.create_task(waits(ch), name="a plain task")
            for _ in range(4):
                await asyncio.sleep(0)
            found = weft.snapshot()
            waiting = [wait.party for wait in found.waiting if "'in a loop'" in wait.operation]
            assert len(waiting) == 2
            assert any(process.name.startswith("waits-") for process in found.processes)
            ch.close()
            await task

    asyncio.run(main())


@pytest.mark.parametrize("place", PLACES)
def test_it_asks_the_other_places(place):
    ch = weft.Channel(name="jobs there")
    with weft.Group() as group:
        group.spawn(receive, ch, on=place, name="far away")
        found = until_waiting("recv on channel 'jobs there'")
        assert any(process.name == "far away" and process.place == place for process in found.processes)
        below = [process for there in found.places for process in there.processes]
        assert any(process.name == "far away" and process.place == "thread" for process in below)
        assert "weft's own" not in str(found)
        ch.close()


def test_it_asks_nothing_of_objects_that_only_stand_for_others():
    class Gone:
        pass

    gone = Gone()
    proxies = [weakref.proxy(gone)]
    del gone
    assert weft.snapshot().name
    del proxies
