"""Compare our broadcasting servers with each other and with what people would pick instead.

Of v1 and v2, which tell nobody, only what an idle client costs is measured.

    python -m benchmarks.compare                # all that is installed; under 20 minutes
    python -m benchmarks.compare --quick        # one round of everything; under 3 minutes
    python -m benchmarks.compare --servers epoll,v4,c --clients 100
    python -m benchmarks.compare --from benchmarks/results/comparison.json   # measures nothing

Writes comparison.json (every sample, and what it was measured on), comparison.md and the charts, or
nothing at all. Exit status 0; 1 if a server failed in a workload, which the table says with the
reason, or nothing could be written; 130 after Ctrl-C.

The server under measurement has a CPU of its own where there are two. The machine's drift hits all
servers alike: each round runs every server once per workload before the next round begins.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # then the first place to import from is this folder
    sys.path[0] = str(ROOT)

from benchmarks.compare import tables  # noqa: E402
from benchmarks.compare.samples import (  # noqa: E402
    BESIDE,
    IN_FLIGHT,
    MESSAGE,
    WAITS,
    Sample,
    Unmeasured,
    measure,
    memory,
    one_line,
    readiness,
    senders,
    turn,
)
from benchmarks.harness.cpus import pinned, two_cpus  # noqa: E402
from benchmarks.harness.environment import environment  # noqa: E402
from benchmarks.harness.files import ROOT, OutputError, output_folder  # noqa: E402
from benchmarks.harness.process import descriptor_limit_raised  # noqa: E402
from benchmarks.harness.roster import PEERS, PeerError  # noqa: E402
from benchmarks.harness.server import BROADCASTING, SERVERS, SILENT  # noqa: E402

NAMES = (*SILENT, *BROADCASTING, *PEERS)
CLIENTS = (10, 100, 1000)
LOCK_STEP_CLIENTS = 100
"""Up to here the clients are driven in lock-step, too."""
CPU_SECONDS = 0.25
"""Of the server, that a sample is about."""
DESCRIPTORS = (10, 100, 1000, 10000)
RESULTS = ROOT / "benchmarks" / "results"

Results = dict[str, Any]


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str, str], None]]:
    """A function to be told what is measured next: (workload, server). On stderr, a bar on a
    terminal, and elsewhere a line for each workload. It does nothing between two calls."""
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        last = ""

        def tell(workload: str, server: str) -> None:
            nonlocal last
            if workload != last:
                print(workload, file=sys.stderr, flush=True)
            last = workload

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), text)
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bars:
        bar = bars.add_task("", total=total)
        done = -1

        def show(workload: str, server: str) -> None:
            nonlocal done
            done += 1
            bars.update(bar, completed=done, description=f"{workload}: {server}", refresh=True)

        yield show


def measure_all(args: argparse.Namespace) -> Results:
    """Every sample of a run."""
    cpu, load = two_cpus()
    workloads = [("lock-step", n) for n in args.clients if n <= LOCK_STEP_CLIENTS]
    workloads += [("flood", n) for n in args.clients]
    silent = [name for name in args.servers if name in SILENT]
    servers = [name for name in args.servers if name not in (*args.missing, *silent)]
    results: Results = {
        "environment": environment(args.command),
        "parameters": {
            "servers": servers,
            "silent": silent,
            "missing": args.missing,
            "versions": versions(servers),
            "workloads": [f"{workload} {n}" for workload, n in workloads],
            "rounds": args.rounds,
            "message_bytes": MESSAGE,
            "in_flight": IN_FLIGHT,
            "senders": {str(n): senders(n) for n in args.clients},
            "cpu_seconds": CPU_SECONDS,
            "placement": "server and load share the one CPU"
            if cpu is None
            else f"the server runs on CPU {cpu}, the load on CPU {load}",
            "descriptors": list(DESCRIPTORS),
            "readiness_limits": {},
            "beside": list(BESIDE),
        },
        "samples": [],
        "problems": [],
        "memory": [],
        "readiness": [],
        "turns": [],
    }

    def attempt(server: str, workload: str, make: Callable[[], Sample]) -> Sample | None:
        for problem in results["problems"]:
            if (problem["server"], problem["workload"]) == (server, workload):
                return None  # it is out: a later success would not make it right
        try:
            return make()
        except Unmeasured as error:
            problem = {"server": server, "workload": workload, "kind": error.kind}
            results["problems"].append({**problem, "reason": error.reason})
            return None

    ours = [name for name in [*silent, *servers] if name in SERVERS and "--flush" not in name]
    per_round = len(servers) * len(workloads) + 1 + len(ours) * len(BESIDE)
    total = args.rounds * per_round + len([*silent, *servers])
    with descriptor_limit_raised(), pinned(load), progress(total) as show:
        for number in range(args.rounds):
            order = servers[number % len(servers) :] + servers[: number % len(servers)]
            for workload, n in workloads:
                for server in order:
                    show(f"round {number + 1} of {args.rounds}, {workload} {n}", server)
                    sample = attempt(
                        server,
                        f"{workload} {n}",
                        lambda: measure(server, workload, n, (cpu, load), CPU_SECONDS),  # noqa: B023
                    )
                    if sample:
                        about = {"round": number + 1, "workload": workload, "clients": n}
                        results["samples"].append({"server": server, **about, **sample})
            show(f"round {number + 1} of {args.rounds}, readiness", "")
            measure_readiness(results, number + 1)
            for idle in BESIDE:
                for server in ours:
                    show(f"round {number + 1} of {args.rounds}, a turn beside {idle}", server)
                    sample = attempt(
                        server,
                        f"a turn beside {idle}",
                        lambda: turn(server, idle, cpu),  # noqa: B023
                    )
                    if sample:
                        about = {"server": server, "round": number + 1, "idle": idle}
                        results["turns"].append({**about, **sample})
        for server in [*silent, *servers]:
            show("memory", server)
            sample = attempt(server, "memory", lambda: memory(server, cpu))  # noqa: B023
            if sample:
                results["memory"].append({"server": server, **sample})
    return results


def measure_readiness(results: Results, number: int) -> None:
    limits = results["parameters"]["readiness_limits"]
    for idle in DESCRIPTORS:
        for kind in WAITS:
            try:
                sample = readiness(kind, idle)
            except Unmeasured as error:
                limits.setdefault(kind, {})[str(idle)] = error.reason
                continue
            about = {"kind": kind, "descriptors": idle, "round": number}
            results["readiness"].append({**about, **sample})


def missing(names: Sequence[str]) -> dict[str, str]:
    """What cannot be started here, and why. Compiles what has to be."""
    found: dict[str, str] = {}
    for name in names:
        reason = None
        if name in PEERS:
            try:
                reason = PEERS[name].missing()
                if not reason:
                    PEERS[name].command(0)
            except PeerError as error:
                reason = one_line(error)
        elif name == "uvloop" and not importlib.util.find_spec("uvloop"):
            reason = "uvloop is not installed: pip install uvloop"
        if reason:
            found[name] = reason
    return found


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of the packages, compilers and interpreters that the peers among these need."""
    found: dict[str, str] = {}
    for peer in (PEERS[name] for name in names if name in PEERS):
        found.update(peer.versions())
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])

    def servers(text: str) -> list[str]:
        for name in (names := text.split(",")):
            if name not in NAMES:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES)}")
        return [name for name in NAMES if name in names]

    def clients(text: str) -> list[int]:
        counts = sorted(set(map(int, text.split(","))))
        if counts[0] < 2:
            raise argparse.ArgumentTypeError("a broadcast needs 2 clients")
        return counts

    parser.add_argument("--servers", type=servers, metavar="NAMES", help="default: all")
    parser.add_argument("--clients", type=clients, metavar="COUNTS", help="default: 10,100,1000")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 9")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument(
        "--from",
        type=Path,
        dest="source",
        metavar="FILE",
        help="measure nothing, take these results",
    )
    args = parser.parse_args(argv)
    if args.rounds is not None and args.rounds < 1:
        parser.error("argument --rounds: at least 1")
    if args.source and (args.servers or args.clients or args.rounds or args.quick):
        parser.error("argument --from: nothing is measured, so nothing about that can be chosen")
    # As it is put on record: without this machine's paths.
    args.command = ["python", "-m", "benchmarks.compare", *(["--quick"] if args.quick else [])]
    for option, value in (("--servers", args.servers), ("--clients", args.clients)):
        args.command += [option, ",".join(map(str, value))] if value else []
    args.command += ["--rounds", str(args.rounds)] if args.rounds else []
    args.servers = args.servers or list(NAMES)
    args.clients = args.clients or list(CLIENTS)
    args.rounds = args.rounds or (1 if args.quick else 9)
    return args


def write(results: Results, folder: Path) -> None:
    """All files, into a folder."""
    from benchmarks.compare import plots

    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / "comparison.json").write_text(text, "utf-8")
    (folder / "comparison.md").write_text(tables.markdown(results), "utf-8")
    plots.draw(results, folder)


def run(args: argparse.Namespace) -> int:
    if args.source:
        results = tables.load(args.source)
    else:
        args.missing = missing(args.servers)
        for name, reason in args.missing.items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
        if {*args.servers} <= {*args.missing, *SILENT}:
            raise tables.ResultsError("there is nothing to measure")
    with output_folder(args.output) as folder:
        if not args.source:
            results = measure_all(args)
            results["derived"] = tables.derived(results)
        write(results, folder)
    for problem in results["problems"]:
        print("{kind}: {server}, {workload}: {reason}".format(**problem), file=sys.stderr)
    return int(any(problem["kind"] == "failed" for problem in results["problems"]))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if not importlib.util.find_spec("matplotlib"):
        print("compare: matplotlib is not installed: pip install -e '.[peers]'", file=sys.stderr)
        return 1
    try:
        return run(args)
    except KeyboardInterrupt:
        print("compare: stopped, nothing is written", file=sys.stderr)
        return 130
    except (OutputError, tables.ResultsError) as error:
        print(f"compare: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
