"""Types are promises too: the files beside this one hold in mypy and pyright, and the stub tells the truth."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

import pytest
import weft

HERE = Path(__file__).parent
PACKAGE = Path(weft.__file__).parent
pytestmark = pytest.mark.slow

FILES = [str(path) for path in sorted(HERE.glob("*.py")) if path.name != Path(__file__).name]

# Where weft is not installed but used from its sources, mypy has to be told.
SOURCES = {} if PACKAGE.parent.name == "site-packages" else {"MYPYPATH": str(PACKAGE.parent)}


def check(*command: str, **environment: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=HERE,
        env={**os.environ, **SOURCES, **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


@needs("mypy")
@pytest.mark.parametrize("version", ["3.11", "3.15"])
def test_mypy_agrees(version: str, tmp_path: Path) -> None:
    options = ["--config-file=", "--strict", "--warn-unreachable", f"--python-version={version}"]
    check("mypy", *options, f"--cache-dir={tmp_path}", *FILES)


@needs("pyright")
def test_pyright_agrees() -> None:
    # The files themselves ask for the strict mode.
    check("pyright", f"--pythonpath={sys.executable}", *FILES, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")


# How asyncio drives an operation: as a coroutine's frame and as a future. Nobody calls these by hand.
DRIVEN_BY_ASYNCIO = "send throw close get_loop add_done_callback result cancel cancelled done".split()


@needs("mypy")
@pytest.mark.skipif(
    isinstance(vars(weft.Channel)["send"], FunctionType), reason="needs the extension: tests/test_pure.py has its own"
)
def test_the_stub_says_what_the_extension_has(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("".join(rf"weft\._weft\.Op\.{name}" + "\n" for name in DRIVEN_BY_ASYNCIO))
    check(
        "mypy.stubtest", "--ignore-disjoint-bases", "--ignore-unused-allowlist", f"--allowlist={allowed}", "weft._weft"
    )
