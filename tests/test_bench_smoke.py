"""`make bench` keeps working: every field of its JSON is there. The times are never looked at."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

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


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(RUN), *arguments],
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
