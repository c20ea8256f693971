"""The queues people have, standing on weft's channels: for a program that moves over file by file.

    from weft.compat.asyncio_queues import Queue   # for asyncio.Queue
    from weft.compat.queue import Queue            # for queue.Queue
    from weft.compat.janus import Queue            # for janus.Queue

Each has the classes, signatures, exceptions and subclass hooks of its original, and passes the original's own tests
(`make compat`). What differs, and how to go on to channels: docs/guides/compat.md.

Two kinds of queue are in here. `SimpleQueue` is a channel with other names for its methods. All others promise what a
channel cannot: hooks that decide where an item goes, last in first out, the smallest first, a bound that may be moved,
and a `get` that asyncio can still cancel after an item came for it. They hold their items in the container that the
hooks expect, under a lock, and only who waits does so on a channel, in a line (`_line.py`) that tasks of any loop and
threads share.

Importing this package imports neither of its modules: who wants the queue for threads does not load asyncio.
"""
