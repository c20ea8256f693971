"""The house stays as it was drawn (ARCHITECTURE.md): who may depend on whom, and what an import does."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import weft

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(weft.__file__).parent
in_a_checkout = pytest.mark.skipif(not (ROOT / "crates").is_dir(), reason="needs the source tree")

# Dependencies point one way: python/weft -> weft-python -> weft-link, weft-wire -> weft-core -> std. A new crate has to
# be given its line here.
MAY_DEPEND_ON = {
    "weft-core": set(),
    "weft-wire": {"weft-core", "smallvec"},
    "weft-link": {"weft-core", "rustc-hash", "rustix"},
    "weft-python": {"weft-core", "weft-link", "weft-wire", "pyo3-ffi", "libc", "smallvec"},
}
MAY_BUILD_WITH = {"weft-python": {"pyo3-build-config"}}
MODEL_CHECKERS = {"cfg(loom)": {"loom"}, "cfg(shuttle)": {"shuttle"}}  # they stand in for std, under their own cfg


def naming(pattern, folder):
    """The Rust files below `folder`, relative to it, whose code (comments aside) matches `pattern`."""
    code = {path: re.sub(r"//.*", "", path.read_text()) for path in folder.rglob("*.rs")}
    return {path.relative_to(folder).as_posix() for path in code if re.search(pattern, code[path])}


@in_a_checkout
def test_crates_depend_only_downwards():
    for manifest in (ROOT / "crates").glob("*/Cargo.toml"):
        crate = tomllib.loads(manifest.read_text())
        name = crate["package"]["name"]
        assert name in MAY_DEPEND_ON, f"{name} is new: say in MAY_DEPEND_ON what it stands on"
        for target, table in {"": crate, **crate.get("target", {})}.items():
            allowed = MODEL_CHECKERS.get(target, MAY_DEPEND_ON[name])
            assert set(table.get("dependencies", {})) <= allowed, f"{name} {target}"
            assert set(table.get("build-dependencies", {})) <= MAY_BUILD_WITH.get(name, set()), f"{name} {target}"


@in_a_checkout
def test_one_door_to_the_c_api():
    found = naming(r"\bpyo3_ffi\b", ROOT / "crates/weft-python/src")
    assert {name for name in found if not re.match(r"ffi(\.rs$|/)", name)} == set()


@in_a_checkout
def test_one_door_to_threads_and_atomics():
    # `std::sync::...`, `use std::{sync::..., ...}`, and the model checkers'.
    pattern = r"\b(std|core|alloc)::(\{[^;]*?\b)?(sync|thread)\b|\b(loom|shuttle)::"
    assert naming(pattern, ROOT / "crates/weft-core/src") - {"primitives.rs"} == set()


@in_a_checkout
def test_one_door_to_sockets_and_descriptors():
    pattern = r"\brustix\b|\bstd::os\b|\blibc\b"
    assert naming(pattern, ROOT / "crates/weft-link/src") == {"os/unix.rs", "os/watch.rs"}


# What a file about somebody else's library may import: it is loaded only where a program has loaded that.
THEIRS = {"_trio.py": {"trio"}, "_gevent.py": {"gevent", "greenlet"}, "_greenlet.py": {"greenlet"}, "_run.py": {"trio"}}


def test_the_package_imports_only_the_standard_library():
    for path in PACKAGE.rglob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
        assert imported - sys.stdlib_module_names <= {"weft"} | THEIRS.get(path.name, set()), path


def test_importing_loads_no_scheduler_and_starts_no_thread():
    program = """if True:
        import json, os, sys, threading
        def tasks():
            return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
        modules, before = set(sys.modules), tasks()
        import weft
        print(json.dumps({"modules": sorted(set(sys.modules) - modules), "before": before, "after": tasks()}))
    """
    found = json.loads(subprocess.check_output([sys.executable, "-c", program], text=True))
    schedulers = {
        "asyncio",
        "concurrent",
        "trio",
        "anyio",
        "curio",
        "gevent",
        "greenlet",
        "eventlet",
        "rloop",
        "uvloop",
    }
    assert {name.partition(".")[0] for name in found["modules"]} & schedulers == set()
    assert found["after"] == found["before"]


def test_the_package_carries_its_types():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_weft.pyi").exists()


@in_a_checkout
def test_no_file_names_a_package_registry():
    # Where packages come from is for the machine's own pip and cargo to say.
    hosts = r"\b(pypi|pythonhosted|crates|npmjs|anaconda|proxy\.golang)\.(org|com|io)\b|\bindex[-_]url\b"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs git, to know which files are the project's")
    files = {ROOT / name for name in listed.stdout.split("\0") if name} - {ROOT / "Cargo.lock"}
    assert {path for path in files if path.is_file() and re.search(hosts, path.read_text(errors="replace"))} == set()
    # cargo writes its own name for the default registry into the lock file; a mirror would be another.
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    assert len({package.get("source") for package in packages} - {None}) <= 1
