"""One interpreter for one measurement of cores.py: `python -m benches.cores_child MEASUREMENT OPTION N [--cpu 0]`.

    echo     weft-0, weft-1, weft-spin, queue, queue-busy     N round trips to another interpreter
    across   weft-0, weft-1, weft-8, weft-spin, socket, queue    N round trips to another process
    small    ints, ints-many, tuples, tuples-many, queue      N values to another interpreter, buffered
    large    bytes, memoryview, pickle-bytes, pickle-array    N blocks to another interpreter, or pickled and back
    blocks   to, from, across, bytes, queue                   N blocks of 8 MiB between processes
    messages ints, from, across, ints-many, queue             N values between processes, buffered
    map      1, 2, process-1, process-2, bare-1, bare-2       N pieces of pure computing on so many interpreters, or processes
    start    weft, bare                                       an interpreter, until it has run something; N is not used
    memory   weft, bare                                       N interpreters that wait

Prints one JSON object. `queue` is the standard library's between interpreters, which its 3.13 has for its own tests only, or
`multiprocessing.Queue`;
`bare` an interpreter of the standard library's, or a process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import operator
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import weft
import weft.lowlevel

SPIN = 0.001  # seconds: longer than an answer takes
BUFFER = 1024
BATCH = 256
MIB = 1 << 20
now = time.perf_counter_ns


class Missing(Exception):
    """There is no such thing in this Python."""


# --- the standard library's interpreters -------------------------------------------------------------------------------


def bare_interpreters() -> tuple[Callable[[], Any], Callable[[Any, str], Any]]:
    """What makes an interpreter with a GIL of its own, and what runs code in it."""
    if sys.implementation.name != "cpython" or sys.version_info < (3, 12):
        raise Missing("interpreters with a GIL of their own came with CPython 3.12")
    if sys.version_info < (3, 13):
        module: Any = importlib.import_module("_xxsubinterpreters")
        return lambda: module.create(isolated=True), module.run_string
    module = importlib.import_module("_interpreters")
    return lambda: module.create("isolated"), module.exec


def bare_queues() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What makes an interpreter, and what makes a queue between interpreters, in its quickest setting."""
    if sys.version_info >= (3, 14):
        module: Any = importlib.import_module("concurrent.interpreters")
        return module.create, module.create_queue
    if sys.version_info < (3, 13):
        raise Missing("queues between interpreters came with Python 3.13")
    try:
        module = importlib.import_module("test.support.interpreters")
        queues: Any = importlib.import_module("test.support.interpreters.queues")
    except ImportError as error:
        raise Missing(f"Python 3.13 has queues between interpreters for its own tests, not here: {error}") from error
    return module.create, lambda: queues.create(syncobj=True)


def in_a_bare_interpreter(code: str, there: Any, back: Any) -> threading.Thread:
    interpreter = bare_queues()[0]()
    interpreter.exec(f"import {type(there).__module__}")  # or it cannot be given one
    interpreter.prepare_main(there=there, back=back)
    thread = threading.Thread(target=interpreter.exec, args=(code,))
    thread.start()
    return thread


# --- echo --------------------------------------------------------------------------------------------------------------


def echo(requests: weft.Receiver[int], answers: weft.Sender[int], spin: float) -> None:
    weft.lowlevel.spin(spin)
    with requests, answers:
        for value in requests:
            answers.send(value).wait()


def percentiles(samples: list[int]) -> dict[str, float]:
    samples.sort()
    return {"p50": samples[len(samples) // 2], "p90": samples[len(samples) * 9 // 10]}


def round_trips(send: Callable[[int], Any], recv: Callable[[], int], n: int) -> dict[str, float]:
    samples = []
    for i in range(n + n // 10):
        sent = now()
        send(i)
        got = recv()
        samples.append(now() - sent)
        assert got == i, "wrong answer"
    return percentiles(samples[n // 10 :])  # the first tenth warms up


def measure_echo(option: str, n: int) -> dict[str, float]:
    if option.startswith("queue"):
        delay = 0.0 if option == "queue-busy" else 0.01  # its own delay between two looks
        make = bare_queues()[1]
        there, back = make(), make()
        code = f"while (value := there.get(_delay={delay})) >= 0: back.put(value)"
        thread = in_a_bare_interpreter(code, there, back)
        try:
            return round_trips(there.put, lambda: back.get(_delay=delay), n)
        finally:
            there.put(-1)
            thread.join()
    capacity, spin = (1 if option == "weft-1" else 0), (SPIN if option == "weft-spin" else 0)
    requests, answers = weft.Channel[int](capacity), weft.Channel[int](capacity)
    with weft.Group() as group:
        group.spawn(echo, requests.receiver(), answers.sender(), spin, on="interpreter")
        weft.lowlevel.spin(spin)
        with requests.sender() as there, answers.receiver() as back:
            return round_trips(lambda i: there.send(i).wait(), lambda: back.recv().wait(), n)


def echo_bare(end: socket.socket) -> None:
    with end:
        while data := end.recv(8):
            end.sendall(data)


def echo_queue(there: Any, back: Any) -> None:
    while (value := there.get()) is not None:
        back.put(value)


def measure_across(option: str, n: int) -> dict[str, float]:
    if option == "socket":
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("fork").Process(target=echo_bare, args=(theirs,))
        process.start()
        theirs.close()
        with ours:
            result = round_trips(lambda i: ours.sendall(i.to_bytes(8)), lambda: int.from_bytes(ours.recv(8)), n)
            ours.shutdown(socket.SHUT_WR)
        process.join()
        return result
    if option == "queue":
        context = multiprocessing.get_context("spawn")
        there, back = context.Queue(), context.Queue()
        child = context.Process(target=echo_queue, args=(there, back))
        child.start()
        result = round_trips(there.put, back.get, n)
        there.put(None)
        child.join()
        return result
    capacity, spin = (0, SPIN) if option == "weft-spin" else (int(option.removeprefix("weft-")), 0.0)
    requests, answers = weft.Channel[int](capacity), weft.Channel[int](capacity)
    with weft.Group() as group:
        group.spawn(echo, requests.receiver(), answers.sender(), spin, on="process")
        weft.lowlevel.spin(spin)
        with requests.sender() as out, answers.receiver() as into:
            return round_trips(lambda i: out.send(i).wait(), lambda: into.recv().wait(), n)


# --- small and large values --------------------------------------------------------------------------------------------


def take(values: weft.Receiver[Any], ready: weft.Sender[None], many: bool) -> int:
    """How many there were."""
    number = 0
    with values, ready:
        ready.send(None).wait()
        if not many:
            for _ in values:
                number += 1
            return number
        try:
            while True:
                number += len(values.recv_many(BATCH).wait())
        except weft.Closed:
            return number


def measure_small(option: str, n: int) -> dict[str, float]:
    if option == "queue":
        make = bare_queues()[1]
        there, back = make(), make()
        code = f"back.put(0)\nfor _ in range({n}): there.get()\nback.put(1)"
        thread = in_a_bare_interpreter(code, there, back)
        back.get()
        began = now()
        for i in range(n):
            there.put(i)
        back.get()
        seconds = (now() - began) / 1e9
        thread.join()
        return {"per_second": n / seconds}
    kind, _, many = option.partition("-")
    values: list[Any] = [(i, i + 0.5) for i in range(n)] if kind == "tuples" else list(range(n))
    channel, ready = weft.Channel[Any](BUFFER), weft.Channel[None]()
    with weft.Group() as group:
        process = group.spawn(take, channel.receiver(), ready.sender(), bool(many), on="interpreter")
        with channel.sender() as out:
            ready.recv().wait()
            began = now()
            if many:
                for at in range(0, n, BATCH):
                    rest = values[at : at + BATCH]
                    while rest:
                        rest = rest[out.send_many(rest).wait() :]
            else:
                for value in values:
                    out.send(value).wait()
        assert process.join().wait() == n, "wrong answer"
        return {"per_second": n / ((now() - began) / 1e9)}


def give(values: weft.Sender[int], n: int, go: weft.Receiver[None]) -> None:
    with values, go:
        go.recv().wait()
        for value in range(n):
            values.send(value).wait()


def take_blocks(blocks: weft.Receiver[Any], taken: weft.Sender[int], lap: int) -> None:
    """Tell how many bytes there were, after so many blocks each time, and then that these are freed."""
    kept = []
    with blocks, taken:
        while True:
            for _ in range(lap):
                try:
                    kept.append(blocks.recv().wait())
                except weft.Closed:
                    return
            taken.send(sum(len(block) for block in kept if block[-1] == 7)).wait()
            kept.clear()
            taken.send(0).wait()


def measure_large(option: str, n: int) -> dict[str, float]:
    """By the quickest of many laps, for one takes less time than a busy machine's scheduler gives to others."""
    size, lap = (MIB, 32) if option.endswith("bytes") else (8 * MIB, 4)
    spent = []
    if option.startswith("pickle"):
        block: Any = b"\7" * size if option == "pickle-bytes" else array("B", b"\7" * size)
        for _ in range(n):
            began = now()
            got = pickle.loads(pickle.dumps(block, 5))
            spent.append(now() - began)
            assert len(got) == size
            del got  # here, so that it is not measured
        return {"bytes_per_second": size / (min(spent) / 1e9)}
    channel, taken = weft.Channel[Any](lap), weft.Channel[int](1)
    memory = array("B", b"\7" * size)
    with weft.Group() as group:
        group.spawn(take_blocks, channel.receiver(), taken.sender(), lap, on="interpreter")
        with channel.sender() as out, taken.receiver() as answers:
            for number in range(n // lap + 1):
                # The first lap warms up. Nobody else holds what is popped.
                blocks: list[Any] = [b"\7" * size if option == "bytes" else memoryview(memory) for _ in range(lap)]
                began = now()
                while blocks:
                    out.send(blocks.pop()).wait()
                assert answers.recv().wait() == lap * size, "wrong answer"
                if number:
                    spent.append(now() - began)
                answers.recv().wait()  # they are freed, which is not measured
    return {"bytes_per_second": lap * size / (min(spent) / 1e9)}


# --- between processes -------------------------------------------------------------------------------------------------


def block_of(option: str) -> Any:
    return b"\7" * (8 * MIB) if option in ("bytes", "queue") else memoryview(array("B", b"\7" * (8 * MIB)))


def give_blocks(go: weft.Receiver[None], blocks: weft.Sender[Any], n: int) -> None:
    block = block_of("from")
    with go, blocks:
        for _ in go:
            for _ in range(n):
                blocks.send(block).wait()


def count_blocks(blocks: weft.Receiver[Any], taken: weft.Sender[int], n: int) -> None:
    """Tell each time that so many have come."""
    with blocks, taken:
        number = 0
        for block in blocks:
            number += block[-1] == 7
            del block  # before the next one is waited for
            if number == n:
                taken.send(number).wait()
                number = 0


def count_queue(values: Any, taken: Any, n: int) -> None:
    while values.get() is not None:
        for _ in range(n - 1):
            values.get()
        taken.put(n)


def through_a_queue(value: Any, bound: int, n: int) -> float:
    """The seconds of the second of two laps through `multiprocessing.Queue`."""
    context = multiprocessing.get_context("spawn")
    values, taken = context.Queue(bound), context.Queue()
    process = context.Process(target=count_queue, args=(values, taken, n))
    process.start()
    seconds = 0.0
    for _ in range(2):
        began = now()
        for _ in range(n):
            values.put(value)
        assert taken.get() == n, "wrong answer"
        seconds = (now() - began) / 1e9
    values.put(None)
    process.join()
    return seconds


def measure_blocks(option: str, n: int) -> dict[str, float]:
    """The second of two laps: the first one has to start the processes, and finds the memory."""
    if option == "queue":
        return {"bytes_per_second": n * 8 * MIB / through_a_queue(block_of(option), 2, n)}
    blocks, go, taken = weft.Channel[Any](2), weft.Channel[None](1), weft.Channel[int](1)
    seconds = 0.0
    with weft.Group() as group:
        gives, takes = option in ("from", "across"), option != "from"
        if gives:
            group.spawn(give_blocks, go.receiver(), blocks.sender(), n, on="process")
        if takes:
            group.spawn(count_blocks, blocks.receiver(), taken.sender(), n, on="process")
        block = block_of(option)
        with contextlib.ExitStack() as ends:
            out = None if gives else ends.enter_context(blocks.sender())
            into = None if takes else ends.enter_context(blocks.receiver())
            start = ends.enter_context(go.sender())
            answers = ends.enter_context(taken.receiver())
            for _ in range(2):
                began = now()
                if gives:
                    start.send(None).wait()
                if out is not None:
                    for _ in range(n):
                        out.send(block).wait()
                if into is None:
                    number = answers.recv().wait()
                else:
                    number = sum(into.recv().wait()[-1] == 7 for _ in range(n))
                assert number == n, "wrong answer"
                seconds = (now() - began) / 1e9
    return {"bytes_per_second": n * 8 * MIB / seconds}


def measure_messages(option: str, n: int) -> dict[str, float]:
    if option == "queue":
        return {"per_second": n / through_a_queue(7, BUFFER, n)}
    many = option.endswith("-many")
    channel, ready, go = weft.Channel[int](BUFFER), weft.Channel[None](), weft.Channel[None]()
    with weft.Group() as group, contextlib.ExitStack() as ends:
        out, into, start = (ends.enter_context(end) for end in (channel.sender(), channel.receiver(), go.sender()))
        if option in ("from", "across"):
            group.spawn(give, out, n, go.receiver(), on="process")
        if option != "from":
            process = group.spawn(take, into, ready.sender(), many, on="process")
            ready.recv().wait()
            into.close()
        began = now()
        if option in ("from", "across"):
            out.close()
            start.send(None).wait()
            began = now()
        elif many:
            for at in range(0, n, BATCH):
                rest = list(range(at, min(at + BATCH, n)))
                while rest:
                    rest = rest[out.send_many(rest).wait() :]
        else:
            for value in range(n):
                out.send(value).wait()
        out.close()
        number = sum(1 for _ in into) if option == "from" else process.join().wait()
        assert number == n, "wrong answer"
        return {"per_second": n / ((now() - began) / 1e9)}


# --- computing ---------------------------------------------------------------------------------------------------------


def work(_: object) -> int:
    """Pure computing, some milliseconds of it."""
    total = 0
    for i in range(100_000):
        total += i * i % 7
    return total


COMPUTES = (
    "from benches.cores_child import work\nfor line in open(0): print(sum(map(work, range(int(line)))), flush=True)"
)
LAP = 20  # pieces


def in_processes(number: int, laps: int) -> list[int]:
    """The ns of each lap in so many bare processes, each told its share over a pipe."""
    command = [sys.executable, "-c", COMPUTES]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(number)]  # type: ignore[call-overload]
    spent = []
    for _ in range(laps):
        began = now()
        for process in processes:
            process.stdin.write(f"{LAP // number}\n")
        total = sum(int(process.stdout.readline()) for process in processes)
        spent.append(now() - began)
        assert total == LAP * work(None), "wrong answer"
    for process in processes:
        process.communicate()
    return spent


def in_a_pool(number: int, laps: int, on: str = "interpreter") -> list[int]:
    spent = []
    with weft.Pool(number, on=on) as pool:
        for _ in range(laps):
            began = now()
            total = sum(pool.map(work, range(LAP), ordered=False))
            spent.append(now() - began)
            assert total == LAP * work(None), "wrong answer"
    return spent


def measure_map(option: str, n: int) -> dict[str, float]:
    """By the quickest lap but the first: one that another program took a core from would say little."""
    kind, _, number = option.rpartition("-")
    given = (int(number), n // LAP + 1)
    laps = in_processes(*given) if kind == "bare" else in_a_pool(*given, on=kind or "interpreter")
    return {"seconds": min(laps[1:]) / 1e9}


# --- starting, memory --------------------------------------------------------------------------------------------------


def measure_start(option: str, _: int) -> dict[str, float]:
    if option == "bare":
        make, run = bare_interpreters()
        began, used = now(), time.process_time()
        run(make(), "pass")
        return {"seconds": (now() - began) / 1e9, "cpu": time.process_time() - used}
    spent, cpu = [], []
    with weft.Group() as group:
        for _ in range(2):
            began, used = now(), time.process_time()
            assert group.spawn(abs, -1, on="interpreter").join().wait() == 1
            spent.append((now() - began) / 1e9)
            cpu.append(time.process_time() - used)
    return {"seconds": spent[0], "cpu": cpu[0], "again": spent[1]}


def resident() -> int:
    if not os.path.exists("/proc/self/statm"):
        raise Missing("this system does not tell how much memory a process has")
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_memory(option: str, n: int) -> dict[str, float]:
    if option == "bare":
        make, run = bare_interpreters()
        run(make(), "pass")  # what comes once
        before = resident()
        for _ in range(n):
            run(make(), "pass")
        return {"bytes": (resident() - before) / n}
    channel = weft.Channel[None]()
    recv = operator.methodcaller("recv")  # a process performs the operation that its function returns
    with weft.Group() as group:
        group.spawn(
            abs, -1, on="interpreter"
        ).join().wait()  # what comes once; this interpreter is the first of the others
        before = resident()
        with channel.sender() as out:
            receiver = channel.receiver()
            for _ in range(n + 1):
                group.spawn(recv, receiver.clone(), on="interpreter")
            while channel.statistics().parked_receivers <= n:
                time.sleep(0.001)
            after = resident()
            for _ in range(n + 1):
                out.send(None).wait()
    return {"bytes": (after - before) / n}


MEASUREMENTS = {
    "echo": measure_echo,
    "across": measure_across,
    "small": measure_small,
    "large": measure_large,
    "blocks": measure_blocks,
    "messages": measure_messages,
    "map": measure_map,
    "start": measure_start,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=MEASUREMENTS)
    parser.add_argument("option")
    parser.add_argument("n", type=int)
    parser.add_argument("--cpu", type=int, help="stay on this core")
    args = parser.parse_args()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    try:
        if args.measurement not in ("blocks", "messages") and not args.option.startswith(("bare-", "pickle-")):
            bare_interpreters()  # where there are none, there is nothing else
        answer: dict[str, Any] = MEASUREMENTS[args.measurement](args.option, args.n)
    except Missing as missing:
        answer = {"missing": str(missing)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
