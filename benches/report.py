"""The table that is printed, and the targets weft is held to."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from typing import NamedTuple

from benches.programs import PROGRAMS


def load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine() -> dict:
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "debug_build": bool(sysconfig.get_config_var("Py_DEBUG")),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "system": f"{platform.system()} {platform.release()}",
        "load_at_start": load(),
    }


class Target(NamedTuple):
    """`over` divided by `under`, two cells ("program rival"), must be at least or at most `limit`."""

    text: str
    over: str
    under: str
    sense: str  # ">=" or "<="
    limit: float


TARGETS = [
    Target("rendezvous, plain tasks: asyncio.Queue(1) / weft", "pipe_0 asyncio", "pipe_0 weft", ">=", 6),
    Target("buffered, plain tasks: asyncio.Queue(128) / weft", "pipe_128 asyncio", "pipe_128 weft", ">=", 3),
    Target("threads, buffered: queue.Queue(128) / weft", "thread_pipe_128 queue", "thread_pipe_128 weft", ">=", 5),
    Target("threads, rendezvous: queue.Queue(1) / weft", "thread_pipe_0 queue", "thread_pipe_0 weft", ">=", 2),
    Target("threads, ping-pong: weft / bare semaphores", "thread_ping_pong weft", "thread_ping_pong posix", "<=", 1.5),
    Target("thread to loop to thread: janus / weft", "thread_loop_thread janus", "thread_loop_thread weft", ">=", 1),
    Target(
        "thread to loop to thread: culsans / weft", "thread_loop_thread culsans", "thread_loop_thread weft", ">=", 1
    ),
    Target("2-way select, ready: weft / its plain recv", "select2_ready weft", "recv_ready weft", "<=", 2),
    Target("2-way select, parked: weft / its plain recv", "select2_parked weft", "recv_parked weft", "<=", 2),
    Target("trio, rendezvous: memory channel(0) / weft", "pipe_0 trio", "pipe_0 weft-trio", ">=", 1),
    Target("trio, buffered: memory channel(128) / weft", "pipe_128 trio", "pipe_128 weft-trio", ">=", 1),
    Target(
        "thread to trio to thread: from_thread / weft",
        "thread_loop_thread trio",
        "thread_loop_thread weft-trio",
        ">=",
        1,
    ),
    Target("gevent, rendezvous: Channel / weft", "pipe_0 gevent", "pipe_0 weft-gevent", ">=", 1),
    Target("gevent, buffered: Queue(128) / weft", "pipe_128 gevent", "pipe_128 weft-gevent", ">=", 1),
    *(
        Target(
            f"{program}, processes: weft / Go on one thread",
            f"{program} weft-processes",
            f"{program} go-1",
            "<=",
            limit,
        )
        for program, limit in (("pipe_0", 3.5), ("ring", 3.5), ("commstime", 3.5), ("sieve", 4.5))
    ),
    *(
        Target(f"{program}, processes: asyncio / weft", f"{program} asyncio", f"{program} weft-processes", ">=", limit)
        for program, limit in (("pipe_0", 10), ("ring", 10), ("commstime", 7), ("sieve", 6))
    ),
    Target("spawn and join: asyncio.TaskGroup / weft", "spawn_join asyncio", "spawn_join weft", ">=", 5),
    Target("selecting over 1000 / over 10", "selecting_1000 weft", "selecting_10 weft", "<=", 1.5),
]


def targets(cells: list[dict]) -> list[dict]:
    """Each target with what was measured, where both its cells were; `kept` is None where the spread leaves it open."""
    found = {f"{cell['program']} {cell['rival']}": cell for cell in cells if cell["status"] == "ok"}
    answers = []
    for target in TARGETS:
        if target.over in found and target.under in found:
            over, under = found[target.over], found[target.under]
            least, most = over["min_ns"] / under["max_ns"], over["max_ns"] / under["min_ns"]
            ratio = over["median_ns"] / under["median_ns"]
            kept = ratio >= target.limit if target.sense == ">=" else ratio <= target.limit
            answers.append(
                {
                    "text": target.text,
                    "ratio": ratio,
                    "least": least,
                    "most": most,
                    "cpu_ratio": over["cpu_ns"] / under["cpu_ns"] if under["cpu_ns"] else None,
                    "sense": target.sense,
                    "limit": target.limit,
                    "kept": None if least < target.limit < most else kept,
                }
            )
    return answers


def time_text(nanoseconds: float | None) -> str:
    """Three significant figures, in ns, µs or ms."""
    if nanoseconds is None:
        return ""
    for unit, name in ((1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= 10 * unit:
            return f"{nanoseconds / unit:.{1 if nanoseconds < 100 * unit else 0}f} {name}"
    return f"{nanoseconds:.0f} ns" if nanoseconds >= 10 else f"{nanoseconds:.1f} ns"


HEAD = ("", "how", "n", "each", "min", "max", "cpu", "p50", "p99", "p99.9", "x weft")


TIMES = ("median_ns", "min_ns", "max_ns", "cpu_ns", "p50_ns", "p99_ns", "p999_ns")


def rows(program: str, cells: list[dict]) -> list[tuple[str, ...]]:
    lines = []
    for cell in cells:
        if cell["status"] == "ok":
            times = [time_text(cell.get(k)) for k in TIMES]
            ratio = f"{cell['ratio_to_weft']:.2f}" if "ratio_to_weft" in cell else ""
            lines.append((cell["rival"], cell["how"], str(cell["n"]), *times, ratio))
        elif cell["status"] == "failed":
            lines.append((cell["rival"], f"FAILED: {cell['note']}"))
    not_asked = ("python", "posix", "weft-processes")  # floors; weft, shown as such
    none = [cell["rival"] for cell in cells if cell["status"] == "none" and cell["rival"] not in not_asked]
    if PROGRAMS[program].select and none:
        lines.append(("none:", ", ".join(none)))
    return lines


def table(result: dict) -> str:
    programs = list(dict.fromkeys(cell["program"] for cell in result["cells"]))
    blocks = [(name, rows(name, [cell for cell in result["cells"] if cell["program"] == name])) for name in programs]
    whole = [row for _, lines in blocks for row in lines if len(row) == len(HEAD)]
    widths = [max(len(row[i]) for row in [HEAD, *whole]) for i in range(len(HEAD))]

    def line(row: tuple[str, ...]) -> str:
        if len(row) < len(HEAD):
            return "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip()
        left = [text.ljust(width) for text, width in zip(row[:2], widths)]
        return "  " + "  ".join(left + [text.rjust(width) for text, width in zip(row[2:], widths[2:])]).rstrip()

    here, settings = result["machine"], result["settings"]
    out = [
        f"{here['cpu']}, {here['cores']} cores, {here['system']}, {here['python']}"
        + f", load {here['load_at_start']} to {here['load_at_end']}"
        + (", DEBUG BUILD" if here["debug_build"] else ""),
        f"{result['when']}, {result['seconds']:g} s, rounds {settings['rounds']}, scale {settings['scale']:g},"
        + f" gc {settings['gc']}"
        + (f", all on core {settings['cpu']}" if settings["cpu"] is not None else "")
        + (", QUICK: a smoke test, the times mean nothing" if settings["quick"] else ""),
        "",
        line(HEAD),
    ]
    for name, lines in blocks:
        if lines:
            out += ["", f"{name}: {PROGRAMS[name].title} (each: per {PROGRAMS[name].unit})", *map(line, lines)]
    out.append("")
    for name, rival in result["rivals"].items():
        out.append(
            f"{name}: {rival['version']}" if rival["status"] == "ok" else f"{name}: NOT INSTALLED: {rival['note']}"
        )
    if result["targets"]:
        out += ["", "What weft is held to: ratio, the rounds' least and most, ratio of processor time, bound"]
        for target in result["targets"]:
            verdict = {True: "kept", False: "MISSED", None: "unsure"}[target["kept"]]
            cpu = f"{target['cpu_ratio']:6.2f}" if target["cpu_ratio"] else "     -"
            bound = f"{target['sense']} {target['limit']:g}"
            spread = f"{target['least']:.2f}-{target['most']:.2f}"
            out.append(f"  {verdict:6}  {target['ratio']:6.2f}  {spread:>12}  {cpu}  {bound:>6}  {target['text']}")
    return "\n".join(out)
