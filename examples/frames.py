"""NumPy frames through three processes of the system: camera -> grey -> edges -> what was counted in each.

What it teaches: a pipeline whose stages each have a core, though NumPy cannot be imported in interpreters with a GIL of
their own; a channel takes an array as it is. Its bytes are not pickled: they go in a block of memory that the next
process maps, read-only, and the pickle beside it is a few bytes long. Bounded channels keep the camera from running ahead.
Source: Hoare, "Communicating Sequential Processes" (1978), section 3, whose DISASSEMBLE, SQUASH and ASSEMBLE stand in a row.
"""

import argparse
import pickle
import sys
import time

import weft
from cores import without_processes

try:
    import numpy as np
except ImportError:
    np = None

HEIGHT, WIDTH = 1080, 1920
AHEAD = 2  # frames that may wait between two stages


def side(number):
    """Of the square in this frame, in pixels."""
    return 20 + number * 7 % 400


def camera(count, frames):
    """In the first process: a bright square that moves and grows over a dark ground, in colours."""
    with frames:
        for number in range(count):
            frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            top = left = 1 + number * 16 % (HEIGHT - 450)
            frame[top : top + side(number), left : left + side(number)] = 240, 220, 180
            frames.send((number, frame)).wait()


def grey(frames, greys):
    """In the second: how bright each pixel is, as the eye sees it."""
    with frames, greys:
        for number, frame in frames:
            greys.send((number, frame @ np.array([0.299, 0.587, 0.114], np.float32))).wait()


def edges(greys, counts):
    """In the third: at how many places the brightness leaps, and whether the frame was mapped, not made anew."""
    with greys, counts:
        for number, frame in greys:
            leaps = sum(int((abs(np.diff(frame, axis=axis)) > 50).sum()) for axis in (0, 1))
            counts.send((number, leaps, not frame.flags.writeable)).wait()


def run(count):
    """What the last stage says of each frame, and the seconds it took from the first one to the last."""
    frames, greys = weft.Channel(AHEAD, name="frames"), weft.Channel(AHEAD, name="greys")
    counts = weft.Channel(AHEAD, name="counts")
    with weft.Group() as group:
        group.spawn(camera, count, frames.sender(), on="process")
        group.spawn(grey, frames.receiver(), greys.sender(), on="process")
        group.spawn(edges, greys.receiver(), counts.sender(), on="process")
        with counts.receiver() as rx:
            found = [rx.recv().wait()]  # now all have started, and imported NumPy
            start = time.perf_counter()
            found += rx
            return found, time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="send NumPy frames through a pipeline of processes")
    parser.add_argument("--count", type=int, default=40, help="how many frames, at least 2")
    args = parser.parse_args()
    if args.count < 2:
        parser.error("the throughput of one frame says nothing")
    if reason := "it needs NumPy, which is not installed" if np is None else without_processes():
        print(f"not here: {reason}")
        sys.exit()
    found, seconds = run(args.count)
    size = HEIGHT * WIDTH * (3 + 4)  # bytes of a frame in colours, and of one in grey
    pickled = len(pickle.dumps(np.empty((HEIGHT, WIDTH), np.float32), 5, buffer_callback=lambda block: None))
    print(f"each frame {HEIGHT * WIDTH * 3 / 2**20:.1f} MiB in colours, {HEIGHT * WIDTH * 4 / 2**20:.1f} MiB in grey")
    print(f"pickled of each: {pickled} bytes")
    moved = size * (args.count - 1) / seconds
    print(
        f"{args.count} frames, {(args.count - 1) / seconds:.0f} per second, {moved / 2**20:.0f} MiB/s between the stages"
    )
    right = found == [(number, 4 * side(number), True) for number in range(args.count)]
    print("each square has the edges it was drawn with" if right else f"WRONG: {found}")
    sys.exit(not right)
