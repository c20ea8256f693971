"""The Mandelbrot set as a PNG, on all the cores: rows to work out -> a pool -> rows of pixels, in order -> the file.

What it teaches: `pool.map` spreads pure computing over interpreters, each with a GIL of its own; it takes as many rows
as may be under way from a generator, and no more; the results come in the order of the rows, so that each can be written
as it comes. What the workers run stands at the top level, and what it needs comes with the call.
Source: Mandelbrot, "Fractal Aspects of the Iteration of z -> lambda z (1 - z)" (1980); the W3C's PNG specification.
"""

import argparse
import struct
import sys
import tempfile
import time
import zlib

import weft
from cores import describe

LEFT, TOP, WIDTH = -2.25, 1.0, 3.0  # the part of the plane that is drawn; its height is by the picture's


def row(job):
    """In a worker: the pixels of one row, three bytes each. The more steps a point needs to leave, the brighter."""
    y, width, most = job
    pixels, pixel = bytearray(), WIDTH / width
    for x in range(width):
        c = complex(LEFT + x * pixel, TOP - y * pixel)
        z, steps = 0j, 0
        while steps < most and abs(z) <= 2:
            z, steps = z * z + c, steps + 1
        light = 0 if steps == most else 55 + 200 * steps // most
        pixels += bytes((light, light * light // 255, 255 - light if light else 0))
    return bytes(pixels)


class Picture:
    """A PNG that is written row by row."""

    def __init__(self, file, width, height):
        self.file, self.deflate = file, zlib.compressobj()
        file.write(b"\x89PNG\r\n\x1a\n")
        self.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))  # 8 bits each of red, green, blue

    def add(self, pixels):
        self.chunk(b"IDAT", self.deflate.compress(b"\0" + pixels))  # 0: no filter

    def finish(self):
        self.chunk(b"IDAT", self.deflate.flush())
        self.chunk(b"IEND", b"")

    def chunk(self, kind, data):
        if data or kind == b"IEND":
            crc = zlib.crc32(kind + data)
            self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc))


def draw(file, width, height, most):
    picture = Picture(file, width, height)
    with weft.Pool() as pool:  # as many workers as there are cores
        print(describe(pool), flush=True)
        jobs = ((y, width, most) for y in range(height))
        for done, pixels in enumerate(pool.map(row, jobs), 1):
            picture.add(pixels)
            if sys.stdout.isatty():  # a progress line would only fill a log
                print(f"\r{'#' * (50 * done // height):.<50} {done}/{height} rows", end="", flush=True)
    picture.finish()
    print("\n" * sys.stdout.isatty(), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="draw the Mandelbrot set")
    parser.add_argument("path", nargs="?", help="the file to write; else a temporary one")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 240), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--steps", type=int, default=60, help="a point that has not left by then is in the set")
    args, start = parser.parse_args(), time.monotonic()
    with open(args.path, "wb") if args.path else tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:
        draw(file, *args.size, args.steps)
    print(f"{args.size[0]} x {args.size[1]} pixels in {time.monotonic() - start:.2f} s: {file.name}")
