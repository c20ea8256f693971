"""The scripts behind `make`: which interpreter is found, and what the matrix says of a run."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "crates").is_dir(), reason="needs the source tree")

HERE = "{}.{}".format(*sys.version_info[:2])  # 3.13
TOOLS = ["awk", "dirname", "grep", "sed", "sh", "sort"]

# An interpreter as find-python sees it: this one, that takes itself for another build of its version.
INTERPRETER = """#!/bin/sh
probe=$2
shift 2
exec {python} -c "
import collections, platform, sys, sysconfig
vars(sys).pop('pypy_version_info', None)
platform.python_implementation = lambda: 'CPython'
version = collections.namedtuple('version_info', 'major minor micro releaselevel serial')
sys.version_info = version(*sys.version_info[:2], {micro}, 'final', 0)
sys.version = 'experimental free-threading build' * {free}
sys._base_executable = '$0'
sysconfig.get_config_vars()['Py_DEBUG'] = {debug}
$probe" "$@"
"""


@pytest.fixture
def finding(tmp_path):
    """find-python where there are only the interpreters one names, under pyenv's names for them. Its lines."""
    tools, versions = tmp_path / "bin", tmp_path / "pyenv" / "versions"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))

    def finding(there, *arguments):
        shutil.rmtree(versions, ignore_errors=True)
        for name in there:
            program = versions / name / "bin" / "python3"
            program.parent.mkdir(parents=True)
            number = name.removesuffix("-debug")
            program.write_text(
                INTERPRETER.format(
                    python=sys.executable,
                    micro=number.removesuffix("t").rpartition(".")[2],
                    free=int(number.endswith("t")),
                    debug=int(name.endswith("-debug")),
                )
            )
            program.chmod(0o755)
        found = subprocess.run(
            [ROOT / "scripts" / "find-python", *arguments],
            env={"PATH": str(tools), "PYENV_ROOT": str(versions.parent), "UV_PYTHON_INSTALL_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.replace(f"{versions}/", "").replace("/bin/python3", "").splitlines()

    return finding


EVERY_BUILD = [f"{HERE}.1", f"{HERE}.2t", f"{HERE}.3-debug", f"{HERE}.4t-debug"]


def test_each_kind_of_build_is_a_row_of_its_own(finding):
    rows = [
        f"{HERE} {HERE}.1",
        f"{HERE}t {HERE}.2t",
        f"{HERE}d {HERE}.3-debug",
        f"{HERE}td {HERE}.4t-debug",
    ]
    assert finding(EVERY_BUILD, "--all") == rows


def test_of_two_builds_of_one_kind_the_newer_one_has_the_row(finding):
    there = [f"{HERE}.1", f"{HERE}.12", f"{HERE}.2", f"{HERE}.7-debug", f"{HERE}.10-debug"]
    assert finding(there, "--all") == [f"{HERE} {HERE}.12", f"{HERE}d {HERE}.10-debug"]


@pytest.mark.parametrize("asked", [[], [HERE], [f"python{HERE}"]], ids=["nothing", "version", "name"])
def test_a_newer_build_of_another_kind_does_not_stand_for_the_usual_one(finding, asked):
    assert finding(EVERY_BUILD, *asked) == [f"{HERE}.1"]


@pytest.mark.parametrize(
    "asked, found",
    [
        (f"{HERE}t", f"{HERE}.2t"),
        (f"{HERE}.2t", f"{HERE}.2t"),
        (f"{HERE}d", f"{HERE}.3-debug"),
        (f"{HERE}.3-debug", f"{HERE}.3-debug"),
        (f"{HERE}td", f"{HERE}.4t-debug"),
    ],
)
def test_a_build_of_another_kind_is_found_by_its_letters(finding, asked, found):
    assert finding(EVERY_BUILD, asked) == [found]


def test_a_build_of_another_kind_is_taken_when_there_is_no_usual_one(finding):
    assert finding(EVERY_BUILD[1:]) == [f"{HERE}.2t"]
    assert finding(EVERY_BUILD[2:3]) == [f"{HERE}.3-debug"]


@pytest.fixture
def matrix():
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "scripts" / "matrix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_counts_the_laws_that_ran_and_the_pairs_they_ran_between(matrix, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_laws.py").write_text(
        """if True:
        import pytest

        @pytest.mark.parametrize("capacity", [0, None])
        @pytest.mark.parametrize("pair", ["asyncio>trio", "trio>asyncio", "uvloop>uvloop"])
        def test_l1_of_pairs(pair, capacity):
            if pair.startswith("uvloop"):
                pytest.skip("not here")
            assert capacity == 0 or pair.startswith("asyncio")

        @pytest.mark.parametrize("how", ["trio, its run broke > asyncio", "trio>asyncio, sender", "trio>trio_elsewhere"])
        def test_l3_of_pairs_by_other_names(how):
            pass

        def test_l1_of_one():
            pass
        """
    )
    (tmp_path / "tests" / "test_other.py").write_text(
        """if True:
        import pytest

        @pytest.mark.parametrize("pair", ["threads>threads"])
        def test_something_else(pair):
            pass
        """
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", "tests"]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert matrix.counts(report) == {"passed": 8, "failed": 1, "skipped": 2, "laws": 8, "pairs": 3}


def test_every_file_with_tests_of_the_laws_is_counted(matrix):
    files = (ROOT / "tests").glob("test_*.py")
    with_laws = {path.stem for path in files if re.search(r"^def test_l\d+_", path.read_text(), re.M)}
    assert with_laws and with_laws <= set(matrix.LAWS)


def test_a_row_names_the_worlds_that_are_not_there(matrix, tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests"), *filter(None, sys.path)])
    absent = subprocess.check_output(
        [sys.executable, "-c", matrix.ABSENT], env={**os.environ, "PYTHONPATH": path}, text=True
    )
    assert "uvloop (uvloop is not installed)" in absent.strip().split("; ")
    assert "asyncio (" not in absent


@pytest.mark.parametrize(
    "names, said",
    [
        (["3.12", "lab-3.14", "pypy3.11"], "not found, so not tested: a free-threaded build, a debug build"),
        (["3.13", "3.13t"], "not found, so not tested: a debug build"),
        (["3.13d", "lab-3.14"], "not found, so not tested: a free-threaded build"),
        (["3.13td"], ""),
        (["lab-3.13d", "3.14t"], ""),
    ],
)
def test_the_matrix_says_which_kinds_of_builds_it_did_not_find(matrix, names, said):
    assert matrix.not_found(names) == said
