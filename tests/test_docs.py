"""What is written about weft is there: docstrings, signatures, and what the Markdown files name."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import weft

ROOT = Path(__file__).resolve().parent.parent
STUB = Path(weft.__file__).with_name("_weft.pyi")
in_a_checkout = pytest.mark.skipif(not (ROOT / "crates").is_dir(), reason="needs the source tree")


def surface():
    """Each public name, and each public method and property of a class, as (`Channel.send`, the thing itself)."""
    for name in weft.__all__:
        if name.startswith("_"):
            continue
        thing = getattr(weft, name)
        yield name, thing
        if isinstance(thing, type):
            for attribute, static in inspect.getmembers_static(thing):
                owner = next(base for base in thing.__mro__ if attribute in base.__dict__)
                if attribute.startswith("_") or not owner.__module__.startswith("weft"):
                    continue
                value = getattr(thing, attribute)
                if callable(value) or inspect.isdatadescriptor(static):
                    yield f"{name}.{attribute}", value if callable(value) else static


SURFACE = dict(surface())


def test_every_public_name_has_a_docstring():
    # `__doc__`, for `inspect.getdoc` would be content with that of a base class. A type alias for a field has one of Python's.
    assert {name for name, thing in SURFACE.items() if not (thing.__doc__ or "").strip()} == set()


def test_everything_that_can_be_called_has_a_signature():
    def has_signature(thing):
        try:
            return inspect.signature(thing) is not None
        except ValueError:
            return False

    # An exception takes its message; Python's own have no signature either.
    asked = {
        name: thing
        for name, thing in SURFACE.items()
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, BaseException))
    }
    assert {"Channel", "Channel.send", "Op.map", "select", "Group.spawn"} <= asked.keys()
    assert {name for name, thing in asked.items() if not has_signature(thing)} == set()


def stubs():
    """Each function of the stub file, as (`Channel.send`, its definition); of overloads the last, and a class by its `__new__`."""
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__new__":
                    yield node.name, method
                elif isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def test_signatures_are_those_of_the_stub():
    def parameters(function):
        """Names and kinds, with a mark where there is a default. The interpreter shows `self` as positional only."""
        arguments = function.args
        plain = [*arguments.posonlyargs, *arguments.args]
        defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
        shown = [(argument.arg, default is not None) for argument, default in zip(plain, defaults)]
        if arguments.vararg:
            shown.append(("*" + arguments.vararg.arg, False))
        shown += [
            (argument.arg, default is not None)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults)
        ]
        if arguments.kwarg:
            shown.append(("**" + arguments.kwarg.arg, False))
        return [(name, default) for name, default in shown if name not in ("self", "cls")]

    def shown(thing):
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return [
            (stars.get(parameter.kind, "") + parameter.name, parameter.default is not parameter.empty)
            for parameter in inspect.signature(thing).parameters.values()
            if parameter.name != "self"
        ]

    compared = {name: function for name, function in stubs() if callable(SURFACE.get(name))}
    assert {"Channel", "Barrier", "Channel.unbounded", "Op.wait", "select"} <= compared.keys()
    different = {name for name, function in compared.items() if shown(SURFACE[name]) != parameters(function)}
    assert different == set()


# The Markdown files.


def markdown():
    """Each file of the project: its text, the text without any code, and the pieces of code in it."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benches" / "README.md"]
    for path in files:
        text = path.read_text()
        blocks = re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.M | re.S)
        prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
        spans = re.findall(r"`([^`\n]+)`", prose)
        yield (
            path,
            re.sub(r"`[^`\n]+`", "`code`", prose),
            spans,
            [line for block in blocks for line in block.splitlines()],
        )


def anchors(path):
    """What a link may name in a file: its headings as a browser's address has them."""
    headings = re.findall(r"^#+ +(.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@in_a_checkout
def test_every_relative_link_leads_somewhere():
    followed, broken = 0, set()
    for path, prose, _, _ in markdown():
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", link):
                continue
            followed += 1
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.add(f"{path.relative_to(ROOT)}: {link}")
    assert followed
    assert broken == set()


@in_a_checkout
def test_every_make_target_that_is_named_exists():
    there = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = {}
    for path, _, spans, lines in markdown():
        for code in [*spans, *lines]:
            if command := re.match(r"\s*make((?: +[a-z][a-z-]*(?![\w=-]))+)", code):
                named.update(dict.fromkeys(command[1].split(), path.relative_to(ROOT)))
    assert {"demo", "test", "bench"} <= named.keys()
    assert {target: str(path) for target, path in named.items() if target not in there} == {}


@in_a_checkout
def test_every_source_file_and_function_that_is_named_exists():
    folders = ["benches", "crates", "docs", "examples", "python", "scripts", "tests"]
    sources = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".rs", ".py", ".pyi")
    ]
    named, missing = set(), set()
    for path, _, spans, _ in markdown():
        for span in spans:
            # `op.rs`, `crates/weft-core/src/chan.rs`, `_group.py`, and `future.rs::step` for what is in it.
            if not (match := re.fullmatch(r"((?:[a-z0-9_.-]+/)*[a-z0-9_-]+\.(?:rs|pyi?))(?:::(\w+))?", span)):
                continue
            named.add(span)
            files = [file for file in sources if f"/{file.relative_to(ROOT)}".endswith(f"/{match[1]}")]
            word = rf"\b(?:fn|struct|enum|trait|const|static|def|class) {match[2]}\b"
            if not files or (match[2] and not any(re.search(word, file.read_text()) for file in files)):
                missing.add(f"{path.relative_to(ROOT)}: {span}")
    assert "future.rs::step" in named
    assert missing == set()


def names_of_tests():
    """The name of every test there is."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.M)}


@in_a_checkout
def test_every_test_that_is_named_exists():
    """`test_l4_*` names all that begin so."""
    there = names_of_tests()
    named, missing = set(), set()
    for path, _, spans, _ in markdown():
        for span in spans:
            if not (match := re.fullmatch(r"(test_\w+)(\*?)", span)):
                continue
            named.add(span)
            found = any(name.startswith(match[1]) for name in there) if match[2] else span in there
            if not found and not (ROOT / "tests" / f"{span}.py").exists():
                missing.add(f"{path.relative_to(ROOT)}: {span}")
    assert "test_l15_*" in named
    assert missing == set()


@in_a_checkout
def test_every_guarantee_is_backed_by_a_law_and_a_test():
    """The first table's numbers are the rows of the second, each of which names laws that are there and what tests it."""
    guarantees, _, backing = (ROOT / "docs/guides/guarantees.md").read_text().partition("## What holds it")
    laws = set(re.findall(r"^## (L\d+) ", (ROOT / "docs/design/laws.md").read_text(), re.M))
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \| ([^|]+) \|$", backing, re.M)
    used = set(re.findall(r"\((\d+)\)", guarantees))
    assert used == {number for number, _, _ in rows} and len(rows) == len(used) > 20
    for number, by, tests in rows:
        assert by == "all" or set(by.split(", ")) <= laws, f"({number}) names no law: {by}"
        assert "`test_" in tests, f"({number}) is tested by nothing"
    table = [line.count("|") for line in guarantees.splitlines() if line.startswith("|")]
    assert set(table) == {9}, "a row has a cell too few or too many"


@in_a_checkout
def test_the_worlds_that_the_guarantees_are_tested_in_are_those_of_the_tests():
    from worlds import WORLDS

    page = (ROOT / "docs/guides/guarantees.md").read_text()
    listed = re.search(r"`tests/worlds.py`: (.*?)\)", page, re.S)
    assert listed and set(re.findall(r"`(\w+)`", listed[1])) == set(WORLDS)
