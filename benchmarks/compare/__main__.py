"""Compare our broadcasting servers with each other and with what people would pick instead.

Of v1 and v2, which tell nobody, only what an idle client costs is measured.

    python -m benchmarks.compare                # all that is installed; under 20 minutes
    python -m benchmarks.compare --rounds 1     # one round of everything; under 5 minutes
    python -m benchmarks.compare --servers epoll,v4,c
    python -m benchmarks.compare --from benchmarks/results/comparison.json   # measures nothing

Writes comparison.json (every sample, and what it was measured on), comparison.md and the charts, or
nothing at all. Exit status 0; 1 if a server failed in a workload, which the table says with the
reason, or nothing could be written; 130 after Ctrl-C.

The server under measurement has a CPU of its own where there are two. The machine's drift hits all
servers alike: each round runs every server once per workload before the next round begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import figures, samples, tables
from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.environment import environment
from benchmarks.harness.files import ROOT, OutputError, output_folder
from benchmarks.harness.flood import SOURCE
from benchmarks.harness.process import descriptor_limit_raised
from benchmarks.harness.roster import LINE_PEERS, PEERS, PeerError
from benchmarks.harness.server import BROADCASTING, BROWSERS, BUS, SERVERS, SILENT, TLS, VARIANTS
from benchmarks.harness.server import missing as missing_server

NAMES = (*SILENT, *BROADCASTING, *PEERS, *VARIANTS)
LOADS: Sequence[tuple[str, int]] = (
    *(("lock-step", n) for n in (10, 100)),
    *(("flood", n) for n in (10, 100, 1000)),
    ("python-flood", 10),
    ("idle", 5000),
)
IDLE_SERVERS = (
    *("epoll", "uring", "c", "c --looks 2", "c-uring"),
    *("uvloop-protocol --coalesce", "go", "node --cork"),
)
"""They are measured with an idle crowd, too. Who sends each line by itself takes seconds there for
a few messages, and costs what it costs in a flood."""
VARIANT_LOADS = (("lock-step", 100), ("flood", 10), ("flood", 100))
SOME_LOADS: Mapping[str, Sequence[tuple[str, int]]] = {
    **dict.fromkeys(VARIANTS, VARIANT_LOADS),
    TLS: VARIANT_LOADS[:1],
    BROWSERS: (*VARIANT_LOADS, ("flood", 1000)),
    BUS: (*VARIANT_LOADS, ("flood", 1000)),
    **{name: LOADS[3:5] for name in PEERS if name not in LINE_PEERS},
}
"""Of those who are not in all: v5 with one feature more, and the peers for browsers. TLS, which
flood.c does not speak, is in a flood in Python, beside v5 in the same one."""
MEMORY_ROUNDS = 5
"""Of those, so many look at memory, too: it is slow to fill, and differs little."""
RESULTS = ROOT / "benchmarks" / "results"


def takes_part(server: str, workload: str, n: int) -> bool:
    """Whether a load is for this server."""
    if workload == "idle":
        return server in IDLE_SERVERS
    if workload == "python-flood":
        return server in ("v5", TLS)
    return server not in SOME_LOADS or (workload, n) in SOME_LOADS[server]


def measure_all(args: argparse.Namespace) -> figures.Results:
    """Every sample of a run."""
    cpus = two_cpus()
    silent = [name for name in args.servers if name in SILENT]
    servers = [name for name in args.servers if name not in (*args.missing, *silent)]
    ours = [name for name in [*silent, *servers] if name in SERVERS and " " not in name]
    results: figures.Results = {
        "environment": environment(args.command),
        "parameters": {
            "servers": servers,
            "silent": silent,
            "missing": args.missing,
            "versions": versions(servers),
            "workloads": [f"{workload} {n}" for workload, n in LOADS],
            "rounds": args.rounds,
            "message_bytes": samples.MESSAGE,
            "in_flight": samples.IN_FLIGHT,
            "senders": {str(n): samples.senders(n) for kind, n in LOADS if kind == "flood"},
            "saturating": not no_compiler(SOURCE),
            "cpu_seconds": samples.CPU_SECONDS,
            "placement": "server and load share the one CPU"
            if cpus[0] is None
            else f"the server runs on CPU {cpus[0]}, the load on CPU {cpus[1]}",
            "descriptors": list(samples.DESCRIPTORS),
            "beside": list(samples.BESIDE),
            "waits": list(samples.WAITS),
        },
        "samples": [],
        "problems": [],
    }
    plan = [(*load, [name for name in servers if takes_part(name, *load)]) for load in LOADS]
    plan += [("turn", n, ours) for n in samples.BESIDE]
    plan += [("wait", n, list(samples.WAITS)) for n in samples.DESCRIPTORS]
    plan += [("memory", samples.IDLE_CLIENTS, [*silent, *servers])]
    plan += [("start", 0, [name for name in ours if name == "v5"])]
    with descriptor_limit_raised(), pinned(cpus[1]):
        for number in range(1, args.rounds + 1):
            for workload, n, names in plan:
                if not names or (workload == "memory" and number > MEMORY_ROUNDS):
                    continue
                about = {"workload": workload, "n": n, "round": number}
                line = f"round {number} of {args.rounds}, {figures.label(about)}"
                print(line, file=sys.stderr, flush=True)
                first = number % len(names)
                for server in names[first:] + names[:first]:
                    take(results, {"server": server, **about}, cpus)
    return results


def take(results: figures.Results, about: dict[str, Any], cpus: samples.Cpus) -> None:
    """One sample more, or one problem."""
    key = {"server": about["server"], "workload": figures.label(about)}
    if any(key.items() <= problem.items() for problem in results["problems"]):
        return  # it is out: a later success would not make it right
    try:
        sample = samples.take(about["workload"], about["n"], about["server"], cpus)
    except samples.Unmeasured as error:
        results["problems"].append({**key, "kind": error.kind, "reason": error.reason})
    else:
        results["samples"].append({**about, **sample})


def missing(names: Sequence[str]) -> dict[str, str]:
    """What cannot be started here, and why. Compiles what has to be."""
    reasons = {}
    for name in names:
        try:
            reason = PEERS[name].missing() if name in PEERS else missing_server(name)
            if name in PEERS and not reason:
                PEERS[name].command(0)
        except PeerError as error:
            reason = samples.one_line(error)
        if reason:
            reasons[name] = reason
    return reasons


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of the packages, compilers and interpreters that the peers among these need."""
    peers = (PEERS[name] for name in names if name in PEERS)
    return {tool: version for peer in peers for tool, version in peer.versions().items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])

    def servers(text: str) -> list[str]:
        for name in (names := text.split(",")):
            if name not in NAMES:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES)}")
        return [name for name in NAMES if name in names]

    parser.add_argument("--servers", type=servers, metavar="NAMES", help="default: all")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 9")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR")
    help = "measure nothing, take these results"
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help=help)
    args = parser.parse_args(argv)
    if args.rounds is not None and args.rounds < 1:
        parser.error("argument --rounds: at least 1")
    if args.source and (args.servers or args.rounds):
        parser.error("argument --from: nothing is measured, so nothing about that can be chosen")
    # As it is put on record: without this machine's paths.
    args.command = ["python", "-m", "benchmarks.compare"]
    args.command += ["--servers", ",".join(args.servers)] if args.servers else []
    args.command += ["--rounds", str(args.rounds)] if args.rounds else []
    args.servers, args.rounds = args.servers or list(NAMES), args.rounds or 9
    return args


def write(results: figures.Results, folder: Path) -> None:
    """All files, into a folder."""
    from benchmarks.compare import plots

    kept = {key: results[key] for key in figures.KEYS}
    text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    (folder / "comparison.json").write_text(text, "utf-8")
    (folder / "comparison.md").write_text(tables.markdown(results), "utf-8")
    plots.draw(results, folder)


def run(args: argparse.Namespace) -> int:
    if args.source:
        results = figures.load(args.source)
    else:
        args.missing = missing(args.servers)
        for name, reason in args.missing.items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
        if {*args.servers} <= {*args.missing, *SILENT}:
            raise figures.ResultsError("there is nothing to measure")
    with output_folder(args.output) as folder:
        if not args.source:
            results = measure_all(args)
            results["derived"] = figures.derived(results)
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
    except (OutputError, figures.ResultsError) as error:
        print(f"compare: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
