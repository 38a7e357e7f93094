"""How many system calls a broadcast round costs, for every server: exact counts.

    python profiling/syscalls.py                      # all of ours and all installed peers
    python profiling/syscalls.py v3 epoll --clients 2,10,50 --rounds 200
    python profiling/syscalls.py --cmd "./server --port {port}" --json -
    python profiling/syscalls.py --output profiling/results     # syscalls.md and syscalls.json
    python profiling/syscalls.py --load v3 epoll c    # in a flood: calls per delivery

A table for each server: which calls, how many per round with N clients, and the formula in N when
one holds at every N. A round is one message, all its deliveries, each of them checked, and the
server's return to its wait. v1 and v2, which tell nobody, are counted by the line they print.

strace(1) starts the server as its child: this needs no rights beyond those of the user. --load
looks through perf(1) or bpftrace(8) where they are there and permitted, which costs the server
little, and else through strace, which makes it several times slower.

Exit status: 0; 1: a count is not the same in all rounds, or nothing could be counted, and a line on
stderr says why; 2: bad arguments; 130 after Ctrl-C, when nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run(): nothing has begun yet
sys.path[:1] = [str(FOLDER.parent), str(FOLDER)]  # benchmarks is in the first

from benchmarks.compare.__main__ import missing, versions  # noqa: E402
from benchmarks.harness.environment import environment  # noqa: E402
from benchmarks.harness.process import descriptor_limit_raised  # noqa: E402
from benchmarks.harness.server import SILENT  # noqa: E402
from calls.counts import Counted, count, markdown, table  # noqa: E402
from calls.floods import SLOWER, TOOLS, Flooded, choose, flood, flood_markdown, flood_table  # noqa: E402
from calls.tracing import (  # noqa: E402
    NAMES,
    TracingError,
    output_folder,
    run,
    strace,
    strace_version,
)

Found = dict[str, Any]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Servers and peers: " + ", ".join(NAMES),
        allow_abbrev=False,
    )

    def clients(text: str) -> list[int]:
        counts = sorted(set(map(int, text.split(","))))
        if counts[0] < 2:
            raise argparse.ArgumentTypeError("a broadcast needs 2 clients")
        return counts

    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError("at least 1")
        return int(text)

    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all that are installed")
    parser.add_argument(
        "--cmd",
        action="append",
        default=[],
        metavar="COMMAND",
        help="another server that broadcasts; {port} is replaced by its port",
    )
    parser.add_argument(
        "--clients", type=clients, metavar="N,...", help="default: 2,10,50; --load: 10,100"
    )
    parser.add_argument("--rounds", type=positive, default=200, metavar="N", help="default: 200")
    parser.add_argument("--json", metavar="FILE", help="the counts; - for stdout, and no tables")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write the comparison there, .md and .json"
    )
    parser.add_argument("--load", action="store_true", help="count in a flood, not in lock-step")
    parser.add_argument(
        "--messages", type=positive, default=200, metavar="N", help="--load: of each sender (200)"
    )
    parser.add_argument("--tool", choices=TOOLS, help="--load: default: the first that works")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    for command in args.cmd:
        if "{port}" not in command:
            parser.error(f"argument --cmd: {command!r} has no {{port}}")
    if args.tool and not args.load:
        parser.error("argument --tool: only with --load")
    args.chosen = args.names or ([] if args.cmd else list(NAMES))
    if args.load:
        args.chosen = [name for name in args.chosen if name not in SILENT]
        if not (args.chosen or args.cmd):
            parser.error(f"{', '.join(SILENT)} tell nobody what is said: there is nothing to flood")
    args.clients = args.clients or ([10, 100] if args.load else [2, 10, 50])
    return args


@contextmanager
def progress(names: Sequence[str]) -> Iterator[Any]:
    """A function to be told which server is next; on a terminal, stderr shows it."""
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda name: status.update(f"{name} ({names.index(name) + 1} of {len(names)})")


def measure(args: argparse.Namespace, servers: Sequence[str], tool: str) -> Iterator[Any]:
    with progress(servers) as tell:
        for name in servers:
            tell(name)
            if args.load:
                for clients in args.clients:
                    yield flood(name, clients, args.messages, tool)
            else:
                yield count(name, args.clients, args.rounds)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    tool = choose(args.tool) if args.load else strace()
    lacking = missing(args.chosen)
    for name, reason in lacking.items():
        print(f"syscalls: left out: {name}: {reason}", file=sys.stderr)
    servers = [*(name for name in args.chosen if name not in lacking), *args.cmd]
    if not servers:
        raise TracingError("there is no server to count")
    tables = args.json != "-"
    with ExitStack() as stack:
        write = stack.enter_context(output_folder(args.output)) if args.output else None
        write_json = None
        if args.json and args.json != "-":
            path = Path(args.json)
            write_json = stack.enter_context(output_folder(path.parent))
            if path.is_dir():
                raise TracingError(f"cannot write to {path}: it is a folder")
        stack.enter_context(descriptor_limit_raised())
        results: list[Any] = []
        for result in measure(args, servers, tool):
            results.append(result)
            if tables and not args.load:
                print(table(result), end="\n\n", flush=True)
        if tables and args.load:
            print(flood_table(results), f"Seen by {tool}. {SLOWER[tool]}".rstrip(), sep="\n\n")
        stem = "syscalls-load" if args.load else "syscalls"
        found = environment(command(args)) | versions(servers)
        if tool == "strace" or not args.load:
            found["strace"] = strace_version()
        if args.load:
            text = flood_markdown(results, tool, found)
        else:
            text = markdown(results, lacking, found)
        as_json = json.dumps(report(args, results, lacking, tool, found), indent=1) + "\n"
        if write:
            write(f"{stem}.md", text)
            write(f"{stem}.json", as_json)
        if write_json:
            write_json(path.name, as_json)
        if args.json == "-":
            print(as_json, end="")
    return 0 if args.load else complain(results)


def command(args: argparse.Namespace) -> list[str]:
    """What makes these results again: without the places that they were written to."""
    words = ["python", "profiling/syscalls.py", *args.names]
    for text in args.cmd:
        words += ["--cmd", text]
    words += ["--clients", ",".join(map(str, args.clients))]
    if args.load:
        words += ["--load", "--messages", str(args.messages)]
        words += ["--tool", args.tool] if args.tool else []
    else:
        words += ["--rounds", str(args.rounds)]
    return words


def complain(results: Sequence[Counted]) -> int:
    """Exit status 1 for a count that should be the same in each round and is not."""
    status = 0
    for counted in results:
        for complaint in counted.complaints():
            kind = "not exact: " if counted.must_be_even() else ""
            print(f"syscalls: {kind}{complaint}", file=sys.stderr)
            status |= counted.must_be_even()
        if counted.must_be_even() and len(counted.clients) > 2:
            for call in counted.calls:
                if not counted.formula(call) and call not in counted.uneven():
                    print(f"syscalls: {counted.name}: {call}: not linear in N", file=sys.stderr)
    return int(status)


def report(
    args: argparse.Namespace,
    results: Sequence[Counted | Flooded],
    lacking: dict[str, str],
    tool: str,
    found: dict[str, str],
) -> Found:
    parameters: Found = {"clients": args.clients}
    if args.load:
        parameters |= {"messages": args.messages, "tool": tool}
        servers: Any = [result.as_json() for result in results]
    else:
        parameters |= {"rounds": args.rounds}
        servers = {result.name: result.as_json() for result in results}
    return {
        "environment": found,
        "parameters": parameters,
        "servers": servers,
        "missing": lacking,
    }


if __name__ == "__main__":
    sys.exit(run("syscalls", main))
