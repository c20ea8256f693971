"""The examples and the README's code run as a reader would run them, and say what they should.

Each program runs in an interpreter of its own. A warning (an operation dropped unperformed, a coroutine never awaited)
would be written to stderr, which must stay empty.
"""

from __future__ import annotations

import os
import re
import runpy
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from weft import _interpreter, _os_process

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LIMIT = 60  # seconds a program may take: generous, never waited for


def run(*args: str | Path, code: int = 0) -> str:
    """Run Python with `args`; the exit code must be `code` and nothing may be complained of. Returns stdout."""
    done = subprocess.run(
        [sys.executable, "-W", "always", *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (code, ""), f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def example(name: str, *args: str, code: int = 0) -> str:
    return run(EXAMPLES / f"{name}.py", *args, code=code)


def test_every_example_has_a_test_here():
    tested = set(re.findall(r'\bexample\("(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_says_what_it_teaches(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""') and "What it teaches:" in text
    assert path.stem == "wordcount" or "Source:" in text


@pytest.mark.parametrize("name", ["sieve", "wordcount", "ring", "commstime"])
def test_tutorials_are_under_60_lines(name):
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60


# --- the two programs of `make demo` ----------------------------------------------------------------------------------


def primes_below(limit: int) -> list[int]:
    return [n for n in range(2, limit) if all(n % d for d in range(2, int(n**0.5) + 1))]


def test_sieve_finds_the_303_primes_below_2000():
    primes = primes_below(2000)
    out = example("sieve")
    assert f"first: {' '.join(map(str, primes[:10]))}\n" in out
    assert f"last:  {' '.join(map(str, primes[-10:]))}\n" in out
    assert "303 primes below 2000" in out
    assert re.search(r"^memory: \d+ KiB at the most", out, re.MULTILINE)


@pytest.mark.parametrize("limit", [0, 2, 3, 30])
def test_sieve_finds_the_primes_below_any_limit(limit):
    assert f"{len(primes_below(limit))} primes below {limit}," in example("sieve", "--limit", str(limit))


def test_wordcount_counts_what_a_plain_loop_counts():
    out = example("wordcount", "--check")
    assert out.endswith("\nthe same counts\n")
    assert re.search(r"^[1-9]\d+ files, ", out, re.MULTILINE)
    assert "\r" not in out, "the progress line is for terminals only"


def test_wordcount_check_fails_when_the_counts_differ(tmp_path):
    liar = tmp_path / "liar.py"
    liar.write_text(
        f"""
import runpy, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import corpus

def report(tally, check, honest=corpus.Tally.report):
    tally.total["lie"] += 1
    return honest(tally, check)

corpus.Tally.report = report
sys.argv[1:] = ["--check"]
runpy.run_path({str(EXAMPLES / "wordcount.py")!r}, run_name="__main__")
"""
    )
    assert "THE COUNTS DIFFER" in run(liar, code=1)


def test_wordcount_stops_at_its_time_limit():
    out = example("wordcount", "--limit", "0", code=1)
    assert "stopped by the limit of 0.0 s" in out
    assert "plain loop" not in out, "half a count is not compared with a whole one"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal and SIGINT")
def test_wordcount_in_a_terminal_shows_progress_and_stops_at_ctrl_c():
    import pty
    import signal

    terminal, stdout = pty.openpty()
    # A shell's background job inherits an ignored SIGINT, and Python then leaves it ignored: undo that.
    wrapper = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"runpy.run_path({str(EXAMPLES / 'wordcount.py')!r}, run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "always", "-c", wrapper],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
    )
    os.close(stdout)
    with process, open(terminal, "rb", buffering=0) as screen:
        shown = b""
        try:
            while not re.search(rb"\r[1-9]\d* files.* paths \d+/64, texts \d+/32, counts \d+/16", shown):
                shown += screen.read(4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 130
        finally:
            process.kill()
        try:
            while rest := screen.read(4096):
                shown += rest
        except OSError:  # how Linux says that the other side of the terminal has been closed
            pass
        assert process.stderr.read() == b""
    assert b"interrupted: every task and thread has ended" in shown


# --- Rob Pike's set, and the philosophers -----------------------------------------------------------------------------


def test_boring_speaks_five_times_and_leaves_when_the_listener_does():
    lines = example("boring", "--seed", "7").splitlines()
    assert lines[:5] == [f"you say: boring! {i}" for i in range(5)]
    assert lines[5:] == ["you're boring; I'm leaving", "and the speaker has left too"]


def test_fan_in_hears_all_of_each_speaker_in_order():
    out = example("fan_in", "--times", "6", "--seed", "7")
    by_process, by_selecting = out.split("with selecting:")
    for part in (by_process, by_selecting):
        for name in ("Joe", "Ann"):
            assert re.findall(rf"{name} (\d+)", part) == list("012345")
    assert set(re.findall(r"from the (\w+): (\w+)", by_selecting)) == {("left", "Joe"), ("right", "Ann")}


def test_search_takes_the_first_answer_of_each_kind():
    out = example("search", "--timeout", "30", "--replicas", "1")
    assert out.startswith("image: image 1 result for 'weft'\nvideo: video 1 result for 'weft'\nweb: web 1 result")
    assert "3 of 3 in " in out


def test_search_gives_up_at_its_deadline():
    assert re.fullmatch(r"0 of 3 in \d+ ms\n", example("search", "--timeout", "0"))


@pytest.mark.parametrize("length", [1, 1000, 10_000])
def test_daisy_chain_adds_one_per_process(length):
    first, second = example("daisy_chain", "--length", str(length)).splitlines()
    assert first == str(length + 1)
    assert second.startswith(f"{length} processes: ")


COST = r"\d+ ns per communication, \d+ bytes per process and its channel"


@pytest.mark.parametrize(("size", "laps"), [(1, 1), (1000, 3), (10_000, 2)])
def test_ring_adds_one_per_process_and_lap(size, laps):
    first, second = example("ring", "--size", str(size), "--laps", str(laps)).splitlines()
    assert first == f"{size} processes, {laps} laps: the token came back as {size * laps}"
    assert re.fullmatch(COST, second)


@pytest.mark.parametrize(("networks", "cycles"), [(1, 1), (250, 20)])
def test_commstime_makes_the_numbers_in_order_in_each_network(networks, cycles):
    first, second = example("commstime", "--networks", str(networks), "--cycles", str(cycles)).splitlines()
    assert first == f"{networks} networks of 4 processes, {cycles} numbers each: the last is {cycles - 1}"
    assert re.fullmatch(COST, second)


@pytest.mark.parametrize("pool", [1, 4])
def test_load_balancer_serves_every_request_once_and_spreads_the_load(pool):
    lines = example("load_balancer", "--requesters", "12", "--count", "10", "--pool", str(pool)).splitlines()
    served = [int(line.split()[-1]) for line in lines[:-1]]
    assert len(served) == pool and sum(served) == 120
    assert min(served) > 0
    assert lines[-1] == "12 requesters, 120 requests, all answers right"


def test_philosophers_all_eat_and_leave_the_table_as_it_was():
    lines = example("philosophers", "--meals", "30", "--seed", "7").splitlines()
    assert [line.split(" ate ")[1] for line in lines[:-1]] == ["30 times"] * 5
    assert lines[-1] == "5 forks on the table, 0 in the room"


# --- on all the cores -------------------------------------------------------------------------------------------------

KIND = "threads, which share" if _interpreter.reason_against() else "interpreters"


def png(content: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and the rows of pixels of a PNG without filters."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = chunks.get(kind, b"") + data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    pixels = zlib.decompress(chunks[b"IDAT"])
    rows = [pixels[at : at + 1 + 3 * width] for at in range(0, len(pixels), 1 + 3 * width)]
    assert all(row[0] == 0 for row in rows)
    return width, height, [row[1:] for row in rows]


def test_mandelbrot_draws_each_row_where_it_belongs(tmp_path, monkeypatch):
    out = example("mandelbrot", str(tmp_path / "set.png"), "--size", "60", "40", "--steps", "30")
    monkeypatch.syspath_prepend(EXAMPLES)
    row = runpy.run_path(str(EXAMPLES / "mandelbrot.py"))["row"]
    expected = [row((y, 60, 30)) for y in range(40)]
    assert png((tmp_path / "set.png").read_bytes()) == (60, 40, expected)
    assert len(set(expected)) > 20, "a picture of something"
    assert out.splitlines()[0].partition(" workers: ")[2].startswith(KIND)
    assert "\r" not in out, "the progress line is for terminals only"


def test_mandelbrot_by_itself_draws_into_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = example("mandelbrot")
    (path,) = tmp_path.iterdir()
    assert out.endswith(f": {path}\n") and png(path.read_bytes())[:2] == (360, 240)


def test_map_reduce_counts_the_words_of_a_folder(tmp_path):
    for number, text in enumerate(["warp weft warp", "weft", "", "loom"] * 5):
        (tmp_path / f"{number}.txt").write_text(text)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "not.txt").write_text("counted")
    lines = example("map_reduce", str(tmp_path), "--pattern", "*.txt", "--batch", "3").splitlines()
    assert lines[0].partition(" workers: ")[2].startswith(KIND)
    assert re.fullmatch(
        r"25 words, 3 different, in .* s; most common: (warp|weft) 10, (warp|weft) 10, loom 5", lines[1]
    )


def test_map_reduce_counts_what_a_plain_loop_counts():
    assert example("map_reduce", "--check").endswith(": the same count\n")


NEEDS_PROCESSES = pytest.mark.skipif(_os_process.reason_against() is not None, reason=str(_os_process.reason_against()))


@NEEDS_PROCESSES
@pytest.mark.parametrize("workers", [2, 4])
def test_survivor_counts_what_a_plain_loop_counts_though_a_worker_is_killed(tmp_path, workers):
    for number, text in enumerate(["warp weft warp", "weft", "", "loom"] * 5):
        (tmp_path / f"{number}.txt").write_text(text)
    options = ["--pattern", "*.txt", "--batch", "3", "--workers", str(workers)]
    lines = example("survivor", str(tmp_path), *options).splitlines()
    victim, pid = re.fullmatch(r"(worker \d) has batch 3: killing process (\d+)", lines[0]).groups()
    assert lines[1] == f"{victim} is lost: process {pid} was killed by SIGKILL"
    assert lines[2] == "batch 3 goes to another"
    assert sum(map(int, re.findall(r"(\d+) batches", lines[3]))) == 7
    assert lines[4] == "25 words, 3 different; a plain loop finds the same count"


@NEEDS_PROCESSES
def test_survivor_says_when_the_count_is_another(tmp_path):
    (tmp_path / "one.txt").write_text("warp weft")
    liar = tmp_path / "liar.py"
    liar.write_text(
        f"""
import runpy, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import map_reduce

def count(paths, honest=map_reduce.count):
    return honest(paths) | {{"lie": 1}}

map_reduce.count = count
sys.argv[1:] = [{str(tmp_path)!r}, "--pattern", "*.txt"]
runpy.run_path({str(EXAMPLES / "survivor.py")!r}, run_name="__main__")
"""
    )
    assert "ANOTHER count" in run(liar, code=1)


@NEEDS_PROCESSES
def test_frames_pass_three_processes_as_they_are():
    pytest.importorskip("numpy")
    lines = example("frames", "--count", "6").splitlines()
    assert lines[0] == "each frame 5.9 MiB in colours, 7.9 MiB in grey"
    assert int(re.fullmatch(r"pickled of each: (\d+) bytes", lines[1])[1]) < 1000
    assert re.fullmatch(r"6 frames, \d+ per second, \d+ MiB/s between the stages", lines[2])
    assert lines[3] == "each square has the edges it was drawn with"


def test_frames_without_numpy_says_so_and_ends_well(tmp_path):
    bare = tmp_path / "bare.py"
    bare.write_text(
        f"""
import runpy, sys
sys.modules["numpy"] = None
sys.path.insert(0, {str(EXAMPLES)!r})
sys.argv[1:] = []
runpy.run_path({str(EXAMPLES / "frames.py")!r}, run_name="__main__")
"""
    )
    assert run(bare) == "not here: it needs NumPy, which is not installed\n"


def test_examples_for_processes_say_that_there_are_none_and_end_well(monkeypatch):
    monkeypatch.setenv("WEFT_PURE", "1")
    assert example("survivor") == "not here: processes of the system need CPython and weft's extension\n"


# --- the README, and the guides ---------------------------------------------------------------------------------------

GUIDES = [
    path
    for name in (
        "backend",
        "compat",
        "from-asyncio",
        "from-trio",
        "from-threads",
        "from-gevent",
        "from-go",
        "all-the-cores",
    )
    if (path := ROOT / "docs" / "guides" / f"{name}.md").exists()
]


def blocks(page: Path = ROOT / "README.md") -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def runs_by_itself_and_prints_what_it_says(block: str, folder: Path) -> None:
    script = folder / "block.py"
    script.write_text(block, encoding="utf-8")
    expected = re.findall(r"#> (.*)$", block, re.MULTILINE)
    assert expected, "a block that promises nothing tests nothing"
    assert run(script).splitlines() == expected


def test_readme_has_code():
    assert len(blocks()) >= 5


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.splitlines()[0].strip("# "))
def test_readme_code_runs_by_itself_and_prints_what_it_says(block, tmp_path):
    """Each `#> text` comment is a line of the output, in order."""
    runs_by_itself_and_prints_what_it_says(block, tmp_path)


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"{page.stem}: {block.splitlines()[0]}") for page in GUIDES for block in blocks(page)],
)
def test_code_in_the_guides_runs_by_itself_and_prints_what_it_says(block, tmp_path):
    for name, words in {"trio": "trio", "anyio": "anyio", "gevent": "gevent|greenlet"}.items():
        if re.search(rf"\b({words})\b", block):
            pytest.importorskip(name)
    for place, module in {"interpreter": _interpreter, "process": _os_process}.items():
        if f'on="{place}"' in block and (reason := module.reason_against()):
            pytest.skip(reason)
    runs_by_itself_and_prints_what_it_says(block, tmp_path)
