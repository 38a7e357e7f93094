"""What the three scripts of this folder share: how they begin, how they end, whom they look at.

However a script ends, no process of it is left and no file half written. Ctrl-C reaches all of
them; when a script is killed outright, the kernel ends what it has started.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.files import OutputError
from benchmarks.harness.process import ServerError
from benchmarks.harness.roster import PEERS
from benchmarks.harness.server import BROADCASTING, SERVERS, VARIANTS

NAMES = (*SERVERS, *VARIANTS, *PEERS)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class ProfilingError(Exception):
    """Nothing can be seen, or nothing was; the text is one line that says why and what to do."""


class Stopped(BaseException):
    """By a signal."""


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def tool(name: str, package: str) -> str:
    """The path of a program. ProfilingError: it is not there, and how to get it."""
    path = shutil.which(name)
    if not path:
        raise ProfilingError(f"{name} is not installed: apt-get install {package}")
    return path


def quiet(name: str) -> list[str]:
    """--quiet, for those whose broadcast is what counts; v1 and v2 are seen by what they print."""
    return ["--quiet"] if name in BROADCASTING else []


def parser(text: str | None, default: str = "") -> argparse.ArgumentParser:
    """Of a script with this docstring; of one that takes several servers, if `default` says which
    they are when none is named."""
    options = argparse.ArgumentParser(
        description=(text or "").partition("\n")[0],
        epilog=f"Servers: {', '.join(NAMES)}",
        allow_abbrev=False,
    )
    if default:
        add = options.add_argument
        add("names", nargs="*", type=known, metavar="NAME", help=f"default: {default}")
        add("--cmd", action="append", default=[], type=with_port, help="another one, with {port}")
    return options


def known(name: str) -> str:
    """The type of an argument that names a server."""
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES)}")
    return name


def with_port(command: str) -> str:
    """The type of --cmd."""
    if "{port}" not in command:
        raise argparse.ArgumentTypeError(f"{command!r} has no {{port}}")
    return command


def between(least: float, most: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """The type of an argument that is such a number."""

    def number(text: str) -> Any:
        if not least <= kind(text) <= most:
            raise argparse.ArgumentTypeError(f"not from {least} to {most}: {text}")
        return kind(text)

    return number


def without_folders(command: str) -> str:
    """What it says of this machine is left out."""
    return re.sub(r"(^|[ =])/\S*/", r"\1", command)


def own_command() -> list[str]:
    """The command line that makes a result again."""
    script, *words = sys.argv
    return ["python", f"profiling/{Path(script).name}", *map(without_folders, words)]


def stop_once(signum: int, frame: FrameType | None) -> None:
    """The clean-up that follows is not interrupted."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signum)


def run(program: str, main: Callable[[], int]) -> int:
    """The exit status of a script: 1 and one line for what is not its fault, 128 and the number of
    the signal that has ended it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for signum in SIGNALS:
        signal.signal(signum, stop_once)
    try:
        return main()
    except Stopped as stop:
        print(f"{program}: stopped, nothing is written", file=sys.stderr)
        return 128 + int(stop.args[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at its end
        return 1
    except (ProfilingError, OutputError, ServerError, DeliveryError) as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        end_children()


def end_children() -> None:
    """Whoever is still there has lost its parent before it was known: strace, killed while it
    starts, leaves its child stopped. As run() has made us the subreaper, it is now a child of ours.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while pids := [int(pid) for pid in children.read_text().split()]:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
