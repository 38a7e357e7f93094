"""One broadcast round, system call by system call, beside the source lines that made them.

    python profiling/roundtrip.py v3
    python profiling/roundtrip.py v4 --clients 5
    python profiling/roundtrip.py --cmd "python my_server.py --port {port}"
    python profiling/roundtrip.py --output profiling/results    # rounds.json, for the pages

The round begins with the wait that a message ends and goes on to the next wait. Each call stands
with its arguments and its result, the line of source that made it, and what it is for. Where the
line is not ours but asyncio's, ours follows: the one that asked for it, or the one that the message
is handed to. uvloop's calls are made in C, where there are no lines that Python knows of. What goes
by way of a ring stands without a number, with the lines that queued it: a completion behind the
call that brought it, a submission before the call that hands it over.

--output takes several servers, by default all of ours that are one model each, and keeps of each
round what every run has in common, as rounds.py says: the same sources give the same rounds.

Exit status: 0; 1: one line on stderr says what is missing or does not agree; 2: bad arguments; 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import common.beginning  # noqa: F401
from benchmarks.compare.__main__ import missing
from benchmarks.harness.environment import environment
from benchmarks.harness.files import output_folder
from calls.rounds import Row, steady
from calls.steps import Place, at, one_round
from calls.tracing import strace_version
from common import script

MODELS = ("v1", "v2", "v3", "v4", "selectors", "epoll", "epoll-et", "uring", "uvloop")
"""What --output measures."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = script.parser(__doc__)
    options.add_argument(
        "names",
        nargs="*",
        type=script.known,
        metavar="NAME",
        help="one; several with --output only",
    )
    options.add_argument("--cmd", type=script.with_port, help="another server; {port} is its port")
    options.add_argument("--clients", type=script.between(2, 1000), default=3, help="default: 3")
    options.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write DIR/rounds.json, of these servers; default: {', '.join(MODELS)}",
    )
    args = options.parse_args(argv)
    if args.output and args.cmd:
        options.error("argument --output: not with --cmd, only by NAME")
    if args.output:
        args.names = args.names or list(MODELS)
    elif len(args.names) + bool(args.cmd) != 1:
        options.error("one server: a NAME, or --cmd COMMAND; several with --output only")
    return args


def text_of(name: str, clients: int) -> str:
    steps, purposes, _ = one_round(name, clients)
    calls = sum(not step.in_a_ring for step in steps)
    lines = [f"{name}, {clients} clients: one round, system calls: {calls}", ""]
    number = 0
    for step, purpose in zip(steps, purposes):
        number += not step.in_a_ring
        lines.append(f"{'-' if step.in_a_ring else number:>3}  {step.text}")
        lines += [f"     {place}  {text}".rstrip() for place, text in step.lines(name, at)]
        lines += [f"     {purpose}", ""]
    return "\n".join(lines)


def recorded(name: str, clients: int) -> list[Row]:
    """What rounds.json has of a server."""

    def place_of(place: Place) -> str:
        """Without the line where the file is not one of ours."""
        return at(place) if not os.path.isabs(place[0]) else at(place).rpartition(":")[0]

    steps, purposes, ports = one_round(name, clients)
    rows = (
        {
            "call": step.call.kind,
            "text": step.text,
            "lines": [list(line) for line in step.lines(name, place_of)],
            "why": purpose,
        }
        for step, purpose in zip(steps, purposes)
    )
    return steady(rows, ports)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    names = args.names or [args.cmd]
    for name, reason in missing(names).items():
        raise script.ProfilingError(f"{name}: {reason}")
    if not args.output:
        print(text_of(names[0], args.clients), end="")
        return 0
    with output_folder(args.output) as folder:
        rounds = {
            "environment": environment(script.own_command()) | {"strace": strace_version()},
            "clients": args.clients,
            "servers": {name: recorded(name, args.clients) for name in names},
        }
        text = json.dumps(rounds, indent=1, ensure_ascii=False) + "\n"
        (folder / "rounds.json").write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(script.run("roundtrip", main))
