"""How many system calls a broadcast round costs, for every server: exact counts.

    python profiling/syscalls.py                      # all of ours and all installed peers
    python profiling/syscalls.py v3 epoll --clients 2,10,50 --rounds 200
    python profiling/syscalls.py --cmd "./server --port {port}"
    python profiling/syscalls.py --output profiling/results     # syscalls.md and syscalls.json
    python profiling/syscalls.py --load v3 epoll c    # in a flood: calls per delivery

A table for each server: which calls, how many per round with N clients, and the formula in N when
one holds at every N. A round is one message, all its deliveries, each of them checked, and the
server's return to its wait. v1 and v2, which tell nobody, are counted by the line they print.

strace(1) starts the server as its child: this needs no rights beyond those of the user. --load
looks through perf(1) where it is there and permitted, which costs the server little, and else
through strace, which makes it several times slower.

Exit status: 0; 1: a count is not the same in all rounds, or nothing could be counted, and a line on
stderr says why; 2: bad arguments; 130 after Ctrl-C, when nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common.beginning  # noqa: F401
from benchmarks.compare.__main__ import missing, versions
from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.files import output_folder
from benchmarks.harness.process import descriptor_limit_raised
from benchmarks.harness.server import SILENT
from calls import counts, floods
from calls.tracing import UNSEEN, strace, strace_version
from common import script


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = script.parser(__doc__, default="all that are installed")

    def clients(text: str) -> list[int]:
        return sorted(set(map(script.between(2, 10_000), text.split(","))))

    options.add_argument(
        "--clients", type=clients, metavar="N,...", help="default: 2,10,50; --load: 10,100"
    )
    number = script.between(1, 10_000_000)
    options.add_argument("--rounds", type=number, default=200, metavar="N", help="default: 200")
    options.add_argument("--output", type=Path, metavar="DIR", help="write them there, too")
    options.add_argument("--load", action="store_true", help="count in a flood, not in lock-step")
    options.add_argument(
        "--messages", type=number, default=200, metavar="N", help="--load: of each sender (200)"
    )
    options.add_argument(
        "--tool", choices=floods.TOOLS, help="--load: default: the first that works"
    )
    args = options.parse_args(argv)
    if args.tool and not args.load:
        options.error("argument --tool: only with --load")
    args.chosen = args.names or ([] if args.cmd else list(script.NAMES))
    if args.load:
        args.chosen = [name for name in args.chosen if name not in SILENT]
        if not (args.chosen or args.cmd):
            options.error(
                f"{', '.join(SILENT)} tell nobody what is said: there is nothing to flood"
            )
    args.clients = args.clients or ([10, 100] if args.load else [2, 10, 50])
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    tool = floods.choose(args.tool) if args.load else strace()
    unseen = {} if args.load else {name: UNSEEN[name] for name in args.chosen if name in UNSEEN}
    lacking = {**missing(args.chosen), **unseen}
    for name, reason in lacking.items():
        print(f"syscalls: left out: {name}: {reason}", file=sys.stderr)
    servers = [*(name for name in args.chosen if name not in lacking), *args.cmd]
    if not servers:
        raise script.ProfilingError("there is no server to count")
    with ExitStack() as stack:
        folder = stack.enter_context(output_folder(args.output)) if args.output else None
        stack.enter_context(descriptor_limit_raised())
        further = versions(servers) | ({} if tool == "perf" else {"strace": strace_version()})
        machine = environment(script.own_command())
        others = [f"{name} {text}" for name, text in further.items() if name not in machine]
        made_on = ", ".join([sentence(machine), *others])
        machine |= further
        parameters: dict[str, Any] = {"clients": args.clients}
        if args.load:
            flooded = [
                floods.flood(name, clients, args.messages, tool)
                for name in servers
                for clients in args.clients
            ]
            print(floods.terminal(flooded, tool))
            text = floods.markdown(flooded, tool, made_on)
            parameters |= {"messages": args.messages, "tool": tool}
            by_server: Any = [one.as_json() for one in flooded]
        else:
            counted = []
            for name in servers:
                counted.append(counts.count(name, args.clients, args.rounds))
                print(counts.terminal(counted[-1]), end="\n\n", flush=True)
            text = counts.markdown(counted, lacking, made_on)
            parameters |= {"rounds": args.rounds}
            by_server = {one.name: one.as_json() for one in counted}
        results = {"environment": machine, "parameters": parameters, "servers": by_server}
        if folder:
            as_json = json.dumps({**results, "missing": lacking}, indent=1) + "\n"
            stem = "syscalls-load" if args.load else "syscalls"
            (folder / f"{stem}.md").write_text(text, "utf-8")
            (folder / f"{stem}.json").write_text(as_json, "utf-8")
    return 0 if args.load else complain(counted)


def complain(results: Sequence[counts.Counted]) -> int:
    """Exit status 1 for a count that should be the same in each round and is not."""
    for counted in results:
        for complaint in counted.complaints():
            kind = "not exact: " if counted.exact else ""
            print(f"syscalls: {kind}{complaint}", file=sys.stderr)
        for call in counted.calls if counted.exact and len(counted.clients) > 2 else ():
            if not counted.formula(call) and call not in counted.uneven():
                print(f"syscalls: {counted.name}: {call}: not linear in N", file=sys.stderr)
    return int(any(counted.exact and counted.uneven() for counted in results))


if __name__ == "__main__":
    sys.exit(script.run("syscalls", main))
