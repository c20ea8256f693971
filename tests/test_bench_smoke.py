"""`make bench` keeps working: every field of its JSON is there. The times are never looked at."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

RUN = Path(__file__).parent.parent / "benches" / "run.py"
SUMMARY = {
    "program",
    "rival",
    "status",
    "unit",
    "how",
    "n",
    "rounds_ns",
    "median_ns",
    "min_ns",
    "max_ns",
    "mad_ns",
    "cpu_ns",
}


def bench(*arguments, script="run.py", **environment):
    return subprocess.run(
        [sys.executable, str(RUN.with_name(script)), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def test_a_quick_bench_writes_every_field_of_its_json(tmp_path):
    path = tmp_path / "folder" / "bench.json"
    done = bench("--quick", "--rivals", "weft,asyncio", "--only", "pipe_0,ping_pong", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    assert {"when", "seconds", "machine", "settings", "rivals", "cells", "targets"} <= result.keys()
    assert {"cpu", "cores", "python", "system"} <= result["machine"].keys()
    assert result["rivals"].keys() == {"weft", "asyncio"}
    assert {(cell["program"], cell["rival"]) for cell in result["cells"]} == {
        (program, rival) for program in ("pipe_0", "ping_pong") for rival in ("weft", "asyncio")
    }
    for cell in result["cells"]:
        assert cell["status"] == "ok", cell
        assert cell.keys() >= SUMMARY | {"ratio_to_weft"}
        assert len(cell["rounds_ns"]) == result["settings"]["rounds"]
        assert ({"p50_ns", "p99_ns", "p999_ns"} <= cell.keys()) == (cell["program"] == "ping_pong")
    assert [target["text"] for target in result["targets"]] == ["rendezvous, plain tasks: asyncio.Queue(1) / weft"]
    assert result["targets"][0].keys() == {
        "text",
        "ratio",
        "least",
        "most",
        "cpu_ratio",
        "sense",
        "limit",
        "kept",
    }
    for word in ("pipe_0", "ping_pong", "Queue(1)", "p99.9", "What weft is held to"):
        assert word in done.stdout


def test_a_rival_that_is_not_there_is_named_in_the_report(tmp_path):
    (tmp_path / "janus.py").write_text("raise ImportError('made for this test')")
    path = tmp_path / "bench.json"
    arguments = ["--quick", "--rivals", "asyncio,janus", "--only", "pipe_0", "--json", str(path)]
    done = bench(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "janus: NOT INSTALLED: ImportError: made for this test" in done.stdout
    cells = {cell["rival"]: cell for cell in json.loads(path.read_text())["cells"]}
    assert cells["janus"]["status"] == "not installed"
    assert cells["asyncio"]["status"] == "ok"


def test_a_wrong_answer_is_an_error_and_no_time(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches.child import measure
    from benches.programs import PROGRAMS, Does

    loses_one = Does("loses one", lambda run: run.n * (run.n - 1) // 2 - 1)
    with asyncio.Runner() as runner, pytest.raises(AssertionError, match="wrong answer"):
        measure(PROGRAMS["pipe_0"], loses_one, 100, 0, runner)


def test_a_target_is_unsure_when_the_rounds_disagree(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches.report import targets

    def verdict(least, most):
        asyncio_cell = {"rival": "asyncio", "median_ns": 7000, "min_ns": least, "max_ns": most}
        weft_cell = {"rival": "weft", "median_ns": 1000, "min_ns": 1000, "max_ns": 1000}
        common = {"program": "pipe_0", "status": "ok", "cpu_ns": 1000}
        (told,) = targets([asyncio_cell | common, weft_cell | common])  # at least 6 times is asked
        return told["kept"]

    assert verdict(6500, 7500) is True
    assert verdict(5000, 7500) is None


def test_an_unknown_program_is_told_with_those_there_are():
    done = bench("--only", "pip")
    assert done.returncode == 1 and "no program 'pip'" in done.stderr and "pipe_0" in done.stderr


# --- how processes scale, and what is drawn from it -------------------------------------------------------------------


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """What a quick run of scale.py wrote, and where."""
    path = tmp_path_factory.mktemp("scale") / "folder" / "scale.json"
    done = bench("--quick", "--json", str(path), script="scale.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(path=path, out=done.stdout, result=json.loads(path.read_text()))


def test_a_quick_scale_measures_every_rival_that_is_there(scaled):
    there = {name for name, rival in scaled.result["rivals"].items() if rival["status"] == "ok"}
    assert {"weft-processes", "asyncio"} <= there
    cells = {(cell["measurement"], cell["rival"], cell["n"], cell["option"]): cell for cell in scaled.result["cells"]}
    for rival in there:
        for n in (2, 10):
            for shape in ("ring", "crowd"):
                assert cells[shape, rival, n, "100"]["ns"] > 0
        for channels in ("shared", "own"):
            assert {"bytes", "bytes_min", "bytes_max"} <= cells["memory", rival, 10, channels].keys()
        assert len(cells["latency", rival, 10, "chatty"]["round_trip"]) == 5
        assert "round_trip" not in cells["latency", rival, 10, "quiet"]
    if sys.implementation.name == "cpython":
        assert scaled.result["parts"].keys() == {"coroutine", "task", "operation", "context", "channel"}
    for words in ("| N | weft, processes of a Group | asyncio", "Bytes per process", "What weft is held to"):
        assert words in scaled.out


def test_the_plots_read_what_scale_wrote(scaled, monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches import plots

    there = [name for name, rival in scaled.result["rivals"].items() if rival["status"] == "ok"]
    lines = plots.lines(scaled.result, "ring")
    assert [line.rival for line in lines] == there and all(line.n == [2, 10] for line in lines)
    assert all(len(line.median) == len(line.least) == len(line.most) == 2 for line in lines)
    assert [rival for rival, _ in plots.bars(scaled.result, "own")] == there
    assert [rival for rival, _ in plots.times(scaled.result, "call")] == ["weft-processes", "asyncio"]


def test_a_measurement_that_failed_is_not_drawn(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches import plots

    common = {"measurement": "ring", "rival": "asyncio", "option": "100"}
    measured = common | {"n": 2, "ns": 5.0, "ns_min": 4.0, "ns_max": 6.0}
    result = {
        "rivals": {"asyncio": {"status": "ok"}, "go": {"status": "not installed"}},
        "cells": [measured, common | {"n": 10, "error": "no answer in 1 s"}],
    }
    assert plots.lines(result, "ring") == [plots.Line("asyncio", [2], [5.0], [4.0], [6.0])]


def test_the_same_json_gives_the_same_plots(scaled, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches import plots

    names = {f"{name}.{suffix}" for name in plots.DRAWN for suffix in ("svg", "png")}
    assert {path.name for path in plots.draw(scaled.result, tmp_path / "all")} == names
    monkeypatch.setattr(plots, "DRAWN", {"memory": plots.memory})
    for again in plots.draw(scaled.result, tmp_path / "again"):
        assert again.read_bytes() == (tmp_path / "all" / again.name).read_bytes()
    assert "<text" in (tmp_path / "all" / "latency.svg").read_text()


# --- interpreters ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount") or sys.implementation.name == "pypy",
    reason="fifty programs that are started to be measured take minutes here",
)
def test_a_quick_run_of_cores_measures_all_that_is_there(tmp_path):
    path = tmp_path / "folder" / "cores.json"
    done = bench("--quick", "--json", str(path), script="cores.py")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    answers = {f"{name} {key}": rounds[0] for name, rows in result["answers"].items() for key, rounds in rows.items()}
    assert all(len(rounds) == 1 for rows in result["answers"].values() for rounds in rows.values())
    measured = {name for name, answer in answers.items() if "missing" not in answer}
    assert {"large pickle-bytes", "large pickle-array", "map bare-1", "map bare-2"} <= measured
    ours = {"echo weft-0", "echo weft-1", "echo weft-spin", "small ints", "small tuples-many", "large bytes", "map 2"}
    if sys.version_info >= (3, 12):
        assert ours | {"large memoryview", "start weft", "start bare"} <= measured
        assert all(value > 0 for name in measured for field, value in answers[name].items() if field != "bytes")
        assert {target["text"] for target in result["targets"]} >= {
            "map: 1 interpreter / 2",
            "tuples, million a second",
        }
    else:
        assert not ours & measured and "missing: interpreters with a GIL of their own" in done.stdout
    for words in ("| A round trip to another interpreter and back | p50 | p90 |", "What weft is held to", "QUICK"):
        assert words in done.stdout


def test_a_target_of_cores_is_unsure_when_the_rounds_disagree(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches.cores import Target, judge

    target = Target("start, ms beyond", "start", "weft", "bare", "seconds", "<=", 50, 1000, less=True)

    def verdict(*weft):
        return judge(target, {"weft": [{"seconds": x} for x in weft], "bare": [{"seconds": 0.01}] * len(weft)})

    assert verdict(0.03, 0.05, 0.055)["kept"] is True
    assert verdict(0.03, 0.05, 0.07)["kept"] is None
    assert verdict(0.07, 0.08, 0.09)["kept"] is False
    assert verdict(0.03, 0.05, 0.055)["value"] == pytest.approx(40)
    assert judge(target, {"weft": [{"missing": "none"}], "bare": [{"seconds": 1}]}) is None


def test_an_unknown_measurement_of_cores_is_told_with_those_there_are():
    done = bench("--only", "echos", script="cores.py")
    assert done.returncode == 1 and done.stderr == (
        "cores.py: no measurement 'echos'; there are echo, across, small, large, blocks, messages, map, start, memory\n"
    )


# --- counting instructions --------------------------------------------------------------------------------------------


def test_without_valgrind_instructions_says_so(tmp_path):
    done = bench(PATH=str(tmp_path), script="instructions.py")
    assert done.returncode == 1
    assert done.stderr == "instructions.py: no `valgrind` on PATH: install valgrind\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs programs that are scripts")
def test_instructions_are_the_difference_of_two_sizes(tmp_path, monkeypatch):
    """By stand-ins for valgrind's programs: a million instructions for the start, a hundred a step."""
    monkeypatch.syspath_prepend(RUN.parent.parent)
    from benches import callgrind, native
    from benches.instructions import parts
    from benches.programs import PROGRAMS

    tools = {
        "valgrind": """n=${8##*:}; echo $((1000000 + 100 * n)) >"${2#*=}.1" """,
        "callgrind_annotate": """own=$(cat "$3")
            echo "$own (100.0%)  PROGRAM TOTALS"
            echo "$own (100.0%)  Python/ceval.c:_PyEval_EvalFrameDefault'2 [libpython3.so]" """,
    }
    for name, script in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(native, "slow_clock", lambda: "")
    count = callgrind.count("python", PROGRAMS["floor_send"], 100, 1000)
    assert count.total == 100
    assert {part: own for part, own in parts(count.functions).items() if own} == {
        "the interpreter: bytecode, calls, integers": 100
    }
