"""Sub-interpreters with a GIL of their own: weft loads in each, works in several at once, and goes with them.

Each test is a program of its own. `Interpreter` hides how three versions of CPython name the same thing.
"""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12"
)

PRELUDE = """
import os, sys, threading, time, traceback
import warnings


class Failed(Exception):
    pass


class Interpreter:
    "One with its own GIL, unless `legacy`."

    def __init__(self, legacy=False):
        if sys.version_info >= (3, 13):
            import _interpreters

            self.api = _interpreters
            self.id = _interpreters.create("legacy" if legacy else "isolated", reqrefs=False)
        else:
            import _xxsubinterpreters

            self.api = _xxsubinterpreters
            self.id = _xxsubinterpreters.create(isolated=not legacy)

    def run(self, text):
        # What is raised in there comes here as text.
        program = "import traceback\\nproblem = ''\\ntry:\\n    exec(TEXT)\\nexcept BaseException:\\n"
        program += "    problem = traceback.format_exc()\\n"
        read, write = os.pipe()
        program = f"TEXT = {text!r}\\n" + program + f"import os\\nos.write({write}, problem.encode())\\nos.close({write})\\n"
        if sys.version_info >= (3, 13):
            failure = self.api.exec(self.id, program)
            if failure is not None:
                raise Failed(failure)
        else:
            self.api.run_string(self.id, program)
        with os.fdopen(read) as pipe:
            if problem := pipe.read():
                raise Failed(problem)

    def destroy(self):
        # By the thread that used it first: CPython 3.12 waits for ever when it was another.
        self.api.destroy(self.id)


def lives(text, legacy=False):
    "Of an interpreter, from its creation to its end."
    one = Interpreter(legacy)
    one.run(text)
    one.destroy()


def together(*calls):
    failures = []

    def guarded(call):
        try:
            call()
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "hangs"
    assert not failures, failures[0]


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Everything weft has, with threads, a loop, and both; ROUNDS times.
EVERYTHING = '''
import asyncio, gc, threading, weft


def threads():
    ch, barrier = weft.Channel(), weft.Barrier(2)

    def party():
        with ch:
            for n in range(50):
                ch.send([n]).wait(60)
        barrier.sync().wait(60)

    thread = threading.Thread(target=party)
    thread.start()
    assert [value for value in ch] == [[n] for n in range(50)]
    barrier.sync().wait(60)
    thread.join()
    try:
        weft.select(weft.Channel().recv(), weft.after(60)).wait(0.001)
    except TimeoutError:
        pass


async def tasks():
    ch, other, event = weft.Channel(), weft.Channel(2), weft.Event()

    async def feeds(tx):
        with tx:
            for n in range(50):
                await weft.select(tx.send(n), weft.after(60))
        event.set()

    async with weft.Group() as group:
        group.spawn(feeds, ch.sender())
        assert [value async for value in ch] == list(range(50))
        await event.wait()
    await other.send_many(["a", "b"])
    other.close(ValueError("the cause"))
    got = []
    try:
        async for case, value in weft.selecting(only=other):
            got.append((case, value))
    except ValueError:
        got.append("cause")
    assert got == [("only", "a"), ("only", "b"), "cause"], got
    case, due = await weft.select(weft.after(0.001), weft.never(), weft.Channel().recv())
    assert case == 0
    assert isinstance(await anext(weft.tick(0.001)), float)
    task = asyncio.ensure_future(awaits(weft.Channel().recv()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def awaits(op):
    return await op


async def both():
    to_thread, back = weft.Channel(1), weft.Channel(1)

    def party():
        for value in to_thread:
            back.send(value + 1).wait(60)

    async with weft.Group() as group:
        group.spawn(party, on="thread")
        for n in range(20):
            await to_thread.send(n)
            assert await back.recv() == n + 1
        to_thread.close()


for _ in range(ROUNDS):
    threads()
    asyncio.run(tasks())
    asyncio.run(both())
gc.collect()
'''


def everything(rounds):
    return EVERYTHING.replace("ROUNDS", str(rounds))
"""

# What interpreters are made to run.
LEFT = """import asyncio, sys, warnings, weft
warnings.simplefilter("ignore")
loop = asyncio.new_event_loop()
ch, full = weft.Channel(), weft.Channel(3, on_undelivered=lambda value: None)
full.send_nowait(full)
tx, rx = full.split()
tx.send_nowait(tx)
tx.send_nowait(rx)

async def party(how):
    await how()

hows = [
    lambda: ch.recv(),
    lambda: weft.select(ch.recv(), ch.recv(), weft.after(60), weft.tick(60).recv(), weft.Barrier(2).sync()),
    lambda: weft.after(60),
    lambda: anext(weft.selecting(ch)),
    lambda: weft.Event().wait(),
]
tasks = [loop.create_task(party(how)) for how in hows]
for task in tasks:
    task._log_destroy_pending = False
loop.call_soon(loop.stop)
loop.run_forever()
op = full.recv()
select = weft.select(full.recv(), again=weft.always(1))
closed = weft.Channel()
try:
    raise ValueError(closed)
except ValueError as error:
    closed.close(error)

class Late:
    def __del__(self):
        self.ch.send_nowait(1)
        self.ch.recv().wait(0)

late = Late()
late.ch, late.me = weft.Channel(1), late
sys.kept = [late, ch, tasks, loop]
"""

FEW = """
import threading, weft
ch, back = weft.Channel(), weft.Channel(2)

def party():
    with back:
        for value in ch:
            back.send([value]).wait(60)

thread = threading.Thread(target=party)
thread.start()
for n in range(200):
    weft.select(ch.send(n), weft.after(60)).wait()
    assert weft.select(back.recv(), weft.never()).wait(60).value == [n]
ch.close()
thread.join()
"""

WAITS = """
import threading, time, weft
ch = weft.Channel()

def waits():
    assert ch.recv().wait() == "the last one"

def sends():
    while not ch.statistics().parked_receivers:
        time.sleep(0.001)
    ch.send("the last one").wait()

threading.Thread(target=waits).start()
threading.Thread(target=sends).start()
"""

VISIT = """
import weft
ch = weft.Channel()
try:
    ch.recv().wait(0.001)
except TimeoutError:
    pass
with weft.Group() as group:
    process = group.spawn(lambda: ch.send(1).wait())
    assert ch.recv().wait() == 1
"""


# The same modules, a loop and a thread, without weft.
WITHOUT = """
import asyncio, contextvars, enum, gc, inspect, threading, typing, collections.abc, types

async def main():
    await asyncio.sleep(0.001)

asyncio.run(main())
thread = threading.Thread(target=gc.collect)
thread.start()
thread.join()
"""


def run(python, text, limit=100, **constants):
    options = ("-W", "ignore::DeprecationWarning") if sys.version_info >= (3, 14) else ()
    lines = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    assert python(PRELUDE + lines + textwrap.dedent(text), *options, limit=limit) == ""


@pytest.fixture(scope="module")
def sound():
    """CPython 3.12 can crash when interpreters that merely imported asyncio have come and gone. Nothing is learned there."""
    if sys.version_info >= (3, 13):
        return
    program = PRELUDE + "for _ in range(4):\n    lives(WITHOUT)\n"
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", f"WITHOUT = {WITHOUT!r}\n{program}"], capture_output=True, timeout=60
        )
        if ended.returncode != 0:
            pytest.skip("this CPython crashes by itself after interpreters that only imported asyncio")


def test_channels_work_between_the_threads_of_an_interpreter(python):
    """Without asyncio, whose modules not every version of CPython bears in here."""
    run(
        python,
        """
        import weft
        together(*[lambda: lives(FEW)] * 2)
        for _ in range(3):
            lives(FEW)
        weft.Channel(1).send_nowait(1)
        """,
        FEW=FEW,
    )


def test_everything_works_in_an_interpreter_of_its_own(python, sound):
    run(
        python,
        """
        lives(everything(3))
        """,
    )


def test_everything_works_in_two_at_once_beside_the_first(python, sound):
    """Three GILs, three OS threads, at the same time."""
    run(
        python,
        """
        import weft
        together(
            lambda: lives(everything(5)),
            lambda: lives(everything(5)),
            lambda: exec(everything(5), {"__name__": "here"}),
        )
        exec(everything(1), {"__name__": "here"})
        """,
    )


def test_one_goes_while_the_other_works_on(python, sound):
    run(
        python,
        """
        def comes_and_goes():
            for _ in range(6):
                lives(everything(1))

        together(lambda: lives(everything(8)), comes_and_goes)
        """,
    )


def test_importing_at_the_same_moment(python, sound):
    run(
        python,
        """
        together(*[lambda: lives("import weft; weft.Channel(1).send_nowait(1)")] * 6)
        """,
    )


def test_each_interpreter_has_its_own_types_and_state(python, sound):
    run(
        python,
        """
        import weft
        one, two = Interpreter(), Interpreter()
        seen = []
        for interpreter in (one, two):
            read, write = os.pipe()
            interpreter.run(
                "import os, weft\\n"
                "kinds = [weft.Channel, weft.Op, weft.Sender, weft.Closed, type(weft.Channel().statistics())]\\n"
                f"os.write({write}, repr([id(kind) for kind in kinds]).encode())\\n"
            )
            os.close(write)
            with os.fdopen(read) as pipe:
                seen.append(eval(pipe.read()))
        seen.append([id(kind) for kind in (weft.Channel, weft.Op, weft.Sender, weft.Closed, type(weft.Channel().statistics()))])
        assert len({identity for kinds in seen for identity in kinds}) == 3 * 5, seen
        # And going, they leave the others theirs.
        one.destroy()
        two.run(everything(1))
        two.destroy()
        weft.Channel(1).send_nowait(1)
        """,
    )


def test_an_interpreter_is_destroyed_with_all_sorts_of_things_left_in_it(python, sound):
    """Parked tasks in a loop that was never closed, unperformed operations, full channels, ends, cycles, a cause."""
    run(
        python,
        """
        for _ in range(10):
            lives(LEFT)
        together(*[lambda: lives(LEFT)] * 2)
        """,
        LEFT=LEFT,
    )


def test_an_interpreter_waits_for_its_threads_when_it_goes(python, sound):
    """It has no daemon threads; one that is parked is met by another thread of the same interpreter."""
    run(
        python,
        """
        lives(WAITS)
        """,
        WAITS=WAITS,
    )


def test_interpreters_that_share_a_gil(python, sound):
    run(
        python,
        """
        import weft
        together(*[lambda: lives(everything(3), legacy=True)] * 2)
        exec(everything(1), {"__name__": "here"})
        """,
    )


def test_one_os_thread_visits_several_interpreters(python, sound):
    """What weft keeps for each thread (where it sleeps, the scopes it has entered) serves each interpreter apart."""
    run(
        python,
        """
        import weft
        interpreters = [Interpreter() for _ in range(3)]
        ch = weft.Channel()
        with weft.Group() as group:
            process = group.spawn(lambda: ch.recv().wait())
            for _ in range(3):
                for one in interpreters:
                    # Inside, this thread is in no scope, though out here it is in that of the group.
                    one.run(VISIT)
            ch.send(1).wait()
        assert process.result() == 1
        for one in interpreters:
            one.destroy()
        """,
        VISIT=VISIT,
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the resident set")
def test_interpreters_that_come_and_go_leave_no_memory_behind(python, sound, monkeypatch):
    """CPython itself leaves a good deal for each. What counts is what is left beyond that of an interpreter without weft."""
    monkeypatch.setenv("PYTHONMALLOC", "malloc")  # with its own allocator it keeps whole arenas
    run(
        python,
        """
        USES = everything(1)

        def grown(text, times):
            for _ in range(5):
                lives(text)
            before = resident()
            for _ in range(times):
                lives(text)
            return (resident() - before) / times

        without, uses = grown(WITHOUT, 20), grown(USES, 20)
        # Some 95 KB with CPython 3.13, 101 at most; a module that stayed behind would be more than 400.
        assert uses - without < 200_000, (without, uses)
        """,
        limit=110,
        WITHOUT=WITHOUT,
    )
