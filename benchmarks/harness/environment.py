"""What a result was measured on: no number of this project stands without it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("uvloop", "pytest-benchmark", "py-spy", "hdrhistogram", "matplotlib")


def environment(command: Sequence[str] | None = None) -> dict[str, str]:
    """command, date, cpu, cpus, kernel, python and the versions of packages that are installed.

    command: what was called, without this machine's paths; default: our own command line.
    """
    if command is None:
        command = ["python", *_program(Path(sys.argv[0])), *sys.argv[1:]]
    found = {
        "command": shlex.join(command),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_model(),
        "cpus": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sentence(found: dict[str, str]) -> str:
    """The same in one line for the foot of a table or a picture."""
    packages = ", ".join(f"{name} {found[name]}" for name in PACKAGES if name in found)
    return (
        f"`{found['command']}`, {found['date']}, {found['cpus']} x {found['cpu']}, "
        f"{found['kernel']}, {found['python']}" + (f", {packages}" if packages else "")
    )


def cpu_model() -> str:
    """As /proc/cpuinfo calls it; the architecture where it has no name."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _program(path: Path) -> list[str]:
    """A script of ours by its path from the root, a package by -m."""
    if path.name == "__main__.py":
        return ["-m", ".".join(path.resolve().parent.relative_to(ROOT).parts)]
    try:
        return [str(path.resolve().relative_to(ROOT))]
    except ValueError:
        return [path.name]
