"""What a result was measured on: no number of this project stands without it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import select
import shlex
import socket
import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.files import ROOT

PACKAGES = ("uvloop", "pytest-benchmark", "py-spy", "matplotlib")
CALLS = 300
"""Of each kind, of which the calibration takes the median."""
APART = 4 / 3
"""The calibrations of two results, one over the other, beyond which they are not alike."""


def environment(command: Sequence[str] | None = None) -> dict[str, Any]:
    """command, date, commit, cpu, cpus, kernel, python, the versions of packages that are
    installed, and what a few system calls took at that moment.

    command: what was called, without this machine's paths; default: our own command line.
    """
    if command is None:
        command = ["python", *_program(), *sys.argv[1:]]
    about: dict[str, Any] = {
        "command": shlex.join(command),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cpus": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            about[package] = version(package)
    return {**about, "calibration_us": calibration()}


def sentence(about: Mapping[str, Any]) -> str:
    """The same in one line for the foot of a table or a picture."""
    packages = "".join(f", {name} {about[name]}" for name in PACKAGES if name in about)
    commit = f", commit {about['commit']}" if "commit" in about else ""
    calls = ", ".join(f"{call} {us:.3g} µs" for call, us in about.get("calibration_us", {}).items())
    return (
        f"`{about['command']}`, {about['date']}{commit}, {about['cpus']} x {about['cpu']}, "
        f"{about['kernel']}, {about['python']}{packages}{f'; {calls}' if calls else ''}"
    )


def calibration() -> dict[str, float]:
    """Microseconds that system calls take on this machine at this moment, in far less than 50 ms:
    two machines, or two hours of a virtual one, are told apart by them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, (its, _) = socket.create_connection(listener.getsockname()), listener.accept()
    with select.epoll() as epoll, ours, its:
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(ours, select.EPOLLIN)

        def send_and_receive() -> None:
            ours.send(b"x")
            its.recv(1)

        return {
            "getppid": _median_us(os.getppid),
            "an empty epoll_wait": _median_us(lambda: epoll.poll(0)),
            "a send and its recv": _median_us(send_and_receive),
        }


def _median_us(call: Callable[[], object]) -> float:
    return round(statistics.median(timeit.repeat(call, number=1, repeat=CALLS)) * 1e6, 3)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What must be said where results of two environments stand side by side: which system calls
    took over a third more at the time of one of them. "": they are alike, or one does not tell."""
    calls, others = one.get("calibration_us", {}), other.get("calibration_us", {})
    apart = [
        f"{call} took {calls[call]:.3g} µs and {others[call]:.3g} µs"
        for call in calls
        if call in others and not 1 / APART <= calls[call] / others[call] <= APART
    ]
    if not apart:
        return ""
    return f"Not measured under the same conditions: {', '.join(apart)}."


def commit() -> str:
    """Of the project, and whether what ran is what it says: "95f8a14, changed"."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=, changed"]
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"
    return "unknown"


def cpu_model() -> str:
    """As /proc/cpuinfo calls it; the architecture where it has no name."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1].strip() if model else platform.machine()


def _program() -> list[str]:
    """A module by -m, a script of ours by its path from the root."""
    module = sys.modules["__main__"].__spec__
    if module:
        return ["-m", module.name.removesuffix(".__main__")]
    script = Path(sys.argv[0]).resolve()
    return [str(script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name)]
