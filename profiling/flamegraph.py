"""Flame graphs of the servers under a load that keeps them busy.

    python profiling/flamegraph.py                      # all of ours, some 8 s each
    python profiling/flamegraph.py v3 epoll --duration 10
    python profiling/flamegraph.py --cmd "python my_server.py {port}"
    python profiling/flamegraph.py --diff v3 epoll      # of what an earlier run has written

index.html shows all of them, to zoom and to search in, with what each spent its time on; it needs
no network. NAME.folded has the samples of a server, for whatever else reads folded stacks, as
speedscope does, and for --diff, which writes diff-A-B.html.

Waiting shows as work where py-spy looks: a picture of a server that waits for its load is wrong.
So the load is the same for all and meant to be more than they can do, and index.html says for each
how busy it was.

Exit status: 0; 1: nothing was written, and one line on stderr says why; 2: bad arguments; 130, 143
and 129 after SIGINT, SIGTERM and SIGHUP, and nothing was written either.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import common.beginning  # noqa: F401
from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.files import output_folder
from benchmarks.harness.server import BROADCASTING, missing
from benchmarks.harness.tables import table
from common import script
from flames.page import difference, difference_rows, gallery
from flames.record import Recording, py_spy, record, version_of
from flames.stacks import Stacks, folded, parse_stacks

DEFAULT = ("v1", "v2", *(name for name in BROADCASTING if " " not in name))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    with output_folder(args.output) as folder:
        stacks: dict[str, Stacks] = {}
        for name in args.diff or []:
            if name not in args.servers:
                stacks[name] = earlier(name, args)  # or there is no need to begin
        if args.servers:
            recordings, notes = record_all(args, folder)
            stacks |= {recording.server: recording.stacks for recording in recordings}
            files = {name: f"{file_name(name)}.folded" for name in args.servers}
            for name, file in files.items():
                (folder / file).write_text(folded(stacks[name]), "utf-8")
            page = gallery(recordings, files, environment(script.own_command()), notes)
            (folder / "index.html").write_text(page, "utf-8")
        text = compare(args, stacks, folder) if args.diff else ""
    print(text, end="")  # whoever reads it may stop, and the files are there
    return 0


def record_all(args: argparse.Namespace, folder: Path) -> tuple[list[Recording], list[str]]:
    spy = py_spy()
    notes = [f"{version_of(spy)}, {args.rate} samples a second" + " with --native" * args.native]
    if len(os.sched_getaffinity(0)) < 2:
        notes.append("One CPU for the server, its load and py-spy: each waits for the others.")
    recordings = []
    for name in args.servers:
        print(f"{name}: {args.duration:g} s", file=sys.stderr)
        own = folder / file_name(name)
        own.mkdir()
        recordings.append(record(name, spy, args, own))
        for warning in recordings[-1].warnings:
            print(f"{name}: {warning}", file=sys.stderr)
    without = {r.perf for r in recordings if isinstance(r.perf, str)}
    return recordings, notes + [f"Not beside perf: {reason}." for reason in sorted(without)]


def compare(args: argparse.Namespace, stacks: dict[str, Stacks], folder: Path) -> str:
    """The table, which is written with the picture, too."""
    first, second = args.diff
    a, b = stacks[first], stacks[second]
    notes = [f"{name}: {sum(stacks[name].values()):,} samples" for name in args.diff]
    if not {first, second} <= {*args.servers}:
        notes += ["Recorded by an earlier run: index.html says when, and on what."]
    notes += [sentence(environment(script.own_command()))]
    notes += [
        "Parts of all samples of a server, in per cent. Self: in the function itself, and in C "
        "that it calls. Total: in it or in what it calls. Line numbers are left out."
    ]
    page = difference(a, b, (first, second), notes)
    (folder / f"diff-{file_name(first)}-{file_name(second)}.html").write_text(page, "utf-8")
    return "\n\n".join([*notes, table(difference_rows(a, b, (first, second)))]) + "\n"


def earlier(name: str, args: argparse.Namespace) -> Stacks:
    """What an earlier run has written. script.ProfilingError: nothing that can be read."""
    path = args.output / f"{file_name(name)}.folded"
    try:
        stacks: Counter[str] = parse_stacks(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise script.ProfilingError(
            f"{path.name} cannot be read: {why}; "
            f"to make it: python profiling/flamegraph.py {shlex.join(args.diff)}"
        ) from None
    if not stacks:
        raise script.ProfilingError(f"{path.name} has no stacks")
    return stacks


def file_name(server: str) -> str:
    """What the files of a server are called: its name, without what a shell would take amiss."""
    if "{port}" in server:
        server = f"cmd-{script.without_folders(server.replace('{port}', ''))}"
    return re.sub(r"[^\w.]+", "-", server).strip("-")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = script.parser(__doc__, default=" ".join(DEFAULT))
    options.add_argument(
        "--clients", type=script.between(2, 1000), default=50, help="(%(default)s)"
    )
    options.add_argument(
        "--duration",
        type=script.between(0.05, 600, float),
        default=5.0,
        help="seconds (%(default)s)",
    )
    options.add_argument(
        "--rate", type=script.between(1, 1000), default=250, help="samples a second (%(default)s)"
    )
    options.add_argument(
        "--native", action="store_true", help="frames of C, too: makes each sample take longer"
    )
    options.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("results"), help="profiling/results"
    )
    options.add_argument(
        "--diff", nargs=2, type=script.known, metavar=("A", "B"), help="where these two differ"
    )
    args = options.parse_args(argv)
    args.servers = list(dict.fromkeys([*args.names, *args.cmd]))
    if not args.servers and not args.diff:
        args.servers = [name for name in DEFAULT if not missing(name)]
        for reason in filter(None, map(missing, DEFAULT)):
            print(f"left out: {reason}", file=sys.stderr)
    return args


if __name__ == "__main__":
    sys.exit(script.run("flamegraph", main))
