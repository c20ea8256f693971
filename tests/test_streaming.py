"""The programs of docs/guides/streaming.md, in the real servers, with clients that disconnect in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import sysconfig
import threading
import types
from pathlib import Path

import pytest
import weft
from worlds import collect, objects

uvicorn = pytest.importorskip("uvicorn")
starlette = pytest.importorskip("starlette")
web = pytest.importorskip("aiohttp.web")

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "streaming.md"
pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")

OURS = ("Production", "Group", "TaskProcess", "Channel", "Sender", "Receiver", "Op", "async_generator")


class Boom(Exception):
    pass


class Upstream:
    """`connect` of the guide. The prompt says how it behaves."""

    def __init__(self, prompt):
        self.prompt = prompt
        self.closed = weft.Event()
        self.said = 0

    async def __aenter__(self):
        self.task = asyncio.current_task()
        return self

    async def __aexit__(self, *_):
        assert asyncio.current_task() is self.task
        try:
            await asyncio.sleep(0)  # a cleanup that has to wait
        finally:
            self.closed.set()  # aiohttp may tell of one client twice, and the second time hit this

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.prompt == "short" and self.said == 3:
            raise StopAsyncIteration
        if self.prompt == "broken" and self.said == 3:
            raise Boom("upstream broke")
        if self.prompt == "silent" and self.said == 1:
            await weft.never()
        self.said += 1
        return f"{self.prompt} {self.said}"


@pytest.fixture
def programs(monkeypatch):
    """The guide's programs, by the comment in their first line, as modules; and the upstreams they connect to."""
    upstreams = []

    def connect(prompt):
        upstreams.append(Upstream(prompt))
        return upstreams[-1]

    modules = {"upstream": types.ModuleType("upstream")}
    modules["upstream"].connect = connect
    monkeypatch.setitem(sys.modules, "upstream", modules["upstream"])
    text = GUIDE.read_text(encoding="utf-8")
    for first, block in re.findall(r"^```python\n# (\w+)(?:\.py)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        module = modules[first] = types.ModuleType(first)
        del module.__spec__  # it is None, which linecache warns of from 3.15 on
        if first == "tokens":
            monkeypatch.setitem(sys.modules, first, module)
        exec(compile(block, f"{GUIDE.name}:{first}", "exec"), module.__dict__)
    modules["upstreams"] = upstreams
    return modules


@contextlib.asynccontextmanager
async def in_uvicorn(app):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def in_aiohttp(app):
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


SERVERS = {"starlette": in_uvicorn, "aiohttp": in_aiohttp}


in_no_debug_build = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_DEBUG")),
    reason="multidict, which aiohttp needs, shows objects to the collector before it has filled them; a debug build looks",
)


@pytest.fixture(params=["starlette", pytest.param("aiohttp", marks=in_no_debug_build)])
def served(request, programs, run):
    """Run a coroutine function with the port of a server that runs the guide's program, and the upstreams."""

    def served(main):
        async def serve():
            async with SERVERS[request.param](programs[request.param].app) as port:
                await main(port, programs["upstreams"])

        run(serve)

    return served


async def ask(port, prompt):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /answer?prompt={prompt} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


def living():
    collect()
    kinds = [type(thing).__name__ for thing in objects()]
    return {kind: kinds.count(kind) for kind in OURS}


async def only(tasks):
    """All other tasks end. (A server does not say when it has done with a connection; the test's limit ends this.)"""
    while set(asyncio.all_tasks()) - tasks:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("goodbye", ["close", "abort"])
@pytest.mark.parametrize("prompt", ["chatty", "silent"])
def test_when_the_client_goes_away_everything_upstream_stops_and_nothing_leaks(served, prompt, goodbye):
    async def main(port, upstreams):
        tasks = set(asyncio.all_tasks())
        # Once before counting, for what servers make with their first connection.
        reader, writer = await ask(port, "short")
        await reader.read()
        writer.close()
        await only(tasks)
        alive = living()
        upstreams.clear()
        for _ in range(3):
            reader, writer = await ask(port, prompt)
            await reader.readuntil(f"data: {prompt} 1\n\n".encode())
            (upstream,) = upstreams
            assert not upstream.closed.is_set()
            if goodbye == "abort":
                writer.transport.abort()
            else:
                writer.close()
            await upstream.closed.wait()
            upstreams.clear()
            del reader, writer, upstream
        await only(tasks)
        assert {kind: n for kind, n in living().items() if n > alive[kind]} == {}
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tokens")]

    served(main)


def test_a_client_that_stays_gets_it_all(served):
    async def main(port, upstreams):
        reader, writer = await ask(port, "short")
        answer = await reader.read()
        writer.close()
        assert re.findall(rb"data: short (\d)\n\n", answer) == [b"1", b"2", b"3"]
        assert answer.endswith(b"0\r\n\r\n"), "the stream is complete"
        assert upstreams[0].closed.is_set()

    served(main)


def test_an_upstream_that_breaks_does_not_look_complete(served, caplog):
    async def main(port, upstreams):
        reader, writer = await ask(port, "broken")
        answer = await reader.read()
        writer.close()
        assert re.findall(rb"data: broken (\d)\n\n", answer) == [b"1", b"2", b"3"]
        assert not answer.endswith(b"0\r\n\r\n")
        assert upstreams[0].closed.is_set()

    served(main)
    assert "upstream broke" in caplog.text
