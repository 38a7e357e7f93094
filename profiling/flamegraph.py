"""Flame graphs of the servers under a load that keeps them busy.

    python profiling/flamegraph.py                      # all of ours, some 8 s each
    python profiling/flamegraph.py v3 epoll --duration 10
    python profiling/flamegraph.py --cmd "python my_server.py {port}"
    python profiling/flamegraph.py --diff v3 epoll      # of what an earlier run has written

For each server NAME it writes NAME.svg, NAME.speedscope.json (for speedscope, where one can zoom
and search) and NAME.folded, and index.html with all of them side by side. They are made of the
same samples; py-spy writes one format per run.

Waiting shows as work where py-spy looks: a picture of a server that waits for its load is wrong.
So the load is the same for all and meant to be more than they can do, and index.html says for each
how busy it was.

Exit status: 0; 1: nothing was written, and one line on stderr says why; 2: bad arguments; 130, 143
and 129 after SIGINT, SIGTERM and SIGHUP, and nothing was written either.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shlex
import signal
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks.harness.environment import environment, sentence  # noqa: E402
from benchmarks.harness.roster import PEERS  # noqa: E402
from benchmarks.harness.server import BROADCASTING, SERVERS  # noqa: E402
from flames import diff as flamediff  # noqa: E402
from flames import gallery  # noqa: E402
from flames.record import (  # noqa: E402
    Plan,
    ProfileError,
    Recording,
    py_spy,
    record,
    version_of,
    without_folders,
)
from flames.stacks import Stacks, folded, parse, speedscope  # noqa: E402
from flames.svg import difference, flame_graph  # noqa: E402

DEFAULT = ("v1", "v2", *(name for name in BROADCASTING if "--flush" not in name))
FORMATS = ("svg", "speedscope", "raw")
SUFFIXES = {"svg": ".svg", "speedscope": ".speedscope.json", "raw": ".folded"}
RESULTS = ROOT / "profiling" / "results"
LETTERS = 150
"""In a line under the title of a picture."""


class Interrupted(BaseException):
    """By a signal."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        with interruptible():
            return run(args)
    except Interrupted as interruption:
        return 128 + int(interruption.args[0])
    except ProfileError as error:
        print(f"flamegraph.py: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    with output(args.output) as (folder, staged):
        recorded: dict[str, Stacks] = {}
        for name in args.diff or []:
            if name not in args.servers:
                stacks_of(file_name(name), args, recorded)  # or there is no need to begin
        if args.servers:
            recordings, notes = record_all(args, folder)
            write(args, recordings, notes, staged)
            recorded = {file_name(r.server): r.stacks for r in recordings}
        if args.diff:
            print(write_diff(args, recorded, staged), end="")
        for file in sorted(staged.iterdir()):
            file.replace(args.output / file.name)
    return 0


def record_all(args: argparse.Namespace, folder: Path) -> tuple[list[Recording], list[str]]:
    spy = py_spy()
    plan = Plan(spy, args.clients, args.duration, args.rate, args.native)
    notes = [f"{version_of(spy)}, {plan.rate} samples a second" + " with --native" * plan.native]
    if len(os.sched_getaffinity(0)) < 2:
        notes.append("One CPU for the server, its load and py-spy: each waits for the others.")
    recordings = []
    for name in args.servers:
        print(f"{name}: {plan.duration:g} s", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            recordings.append(record(name, plan, Path(own)))
        for warning in recordings[-1].warnings:
            print(f"{name}: {warning}", file=sys.stderr)
    without = {r.perf for r in recordings if isinstance(r.perf, str)}
    return recordings, notes + [f"Not beside perf: {reason}." for reason in sorted(without)]


def write(
    args: argparse.Namespace, recordings: Sequence[Recording], notes: Sequence[str], staged: Path
) -> None:
    """All files of a run but those of --diff."""
    found = environment(own_command())
    pictures: dict[str, str] = {}
    files: dict[str, list[str]] = {}
    for recording in recordings:
        name = file_name(recording.server)
        title, told = head(recording, found, notes[0])
        texts = {
            "svg": flame_graph(recording.stacks, title, told),
            "speedscope": speedscope(recording.stacks, "; ".join([title, *told])),
            "raw": folded(recording.stacks),
        }
        files[recording.server] = [name + SUFFIXES[kind] for kind in args.format]
        for kind in args.format:
            (staged / (name + SUFFIXES[kind])).write_text(texts[kind], "utf-8")
        if "svg" in args.format:
            pictures[recording.server] = texts["svg"]
    page = gallery.html(recordings, pictures, files, found, notes)
    (staged / "index.html").write_text(page, "utf-8")


def head(recording: Recording, found: Mapping[str, str], spy: str) -> tuple[str, list[str]]:
    """Title and further lines of a picture."""
    versions = found["python"]
    if "uvloop" in recording.server and "uvloop" in found:
        versions += f", uvloop {found['uvloop']}"
    queued = f", waited for a CPU {recording.queued:.0%}" if recording.queued else ""
    told = (
        f"{recording.samples:,} samples in {recording.seconds:.1f} s, busy {recording.busy:.0%}"
        f"{queued}; {spy}; {versions}"
    )
    lines = [
        recording.load,
        told,
        *(warning[0].upper() + warning[1:] for warning in recording.warnings),
    ]
    wrapped = [part for line in lines for part in textwrap.wrap(line, LETTERS)]
    return textwrap.shorten(recording.label, 110, placeholder=" …"), wrapped


EARLIER = "Recorded by an earlier run: index.html says when, and on what. The comparison:"


def write_diff(args: argparse.Namespace, recorded: Mapping[str, Stacks], staged: Path) -> str:
    """The table, which is written together with the picture."""
    names = [file_name(name) for name in args.diff]
    a, b = (stacks_of(name, args, recorded) for name in names)
    command = sentence(environment(own_command()))
    told = [f"{names[0]}: {sum(a.values()):,} samples, {names[1]}: {sum(b.values()):,} samples"]
    when = [] if recorded.keys() >= {*names} else [EARLIER]
    table = flamediff.markdown(a, b, (names[0], names[1]), [*told, *when, command])
    told += ["As wide as the share in both together. Line numbers are left out."]
    picture = difference(a, b, (names[0], names[1]), told)
    (staged / f"diff-{names[0]}-{names[1]}.svg").write_text(picture, "utf-8")
    (staged / f"diff-{names[0]}-{names[1]}.md").write_text(table, "utf-8")
    return table


def stacks_of(name: str, args: argparse.Namespace, recorded: Mapping[str, Stacks]) -> Counter[str]:
    if name in recorded:
        return Counter(recorded[name])
    path = args.output / f"{name}.folded"
    try:
        stacks = parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ProfileError(
            f"{path.name} cannot be read: {why}; "
            f"to make it: python profiling/flamegraph.py {shlex.join(args.diff)}"
        ) from None
    if not stacks:
        raise ProfileError(f"{path.name} has no stacks")
    return stacks


@contextlib.contextmanager
def output(path: Path) -> Iterator[tuple[Path, Path]]:
    """A temporary folder in the one for the results, and one in it for what is finished.

    So it is found out before anything is recorded whether one can write there, and in the end
    files come into their place by rename(2), all of them or none. A folder made for nothing goes.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix=".recording-") as temporary:
            staged = Path(temporary) / "staged"
            staged.mkdir()
            yield Path(temporary), staged
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(path)):
            raise
        raise ProfileError(f"cannot write to --output: {error.strerror}") from None
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # ENOTEMPTY: it is needed
                folder.rmdir()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted, once; the clean-up is not interrupted."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def raise_once(signum: int, frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, raise_once) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def own_command() -> list[str]:
    """The command line without the folders of this machine, in --output and in --cmd."""
    found = ["python", "profiling/flamegraph.py"]
    skip = False
    for argument in sys.argv[1:]:
        if not skip and not argument.startswith("--output"):
            found.append(without_folders(argument) if "{port}" in argument else argument)
        skip = argument == "--output"
    return found


def file_name(server: str) -> str:
    """What the files of a server are called: its name, without what a shell would take amiss."""
    if server not in SERVERS and server not in PEERS and "{port}" in server:
        server = f"cmd-{without_folders(server.replace('{port}', ''))}"
    return re.sub(r"[^\w.]+", "-", server).strip("-")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        allow_abbrev=False,
        epilog="Servers: " + ", ".join(SERVERS),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: " + " ".join(DEFAULT))
    parser.add_argument("--cmd", action="append", default=[], help="a server of yours, with {port}")
    parser.add_argument("--clients", type=between(2, 1000), default=50, help="(%(default)s)")
    parser.add_argument("--duration", type=seconds, default=5.0, help="seconds (%(default)s)")
    parser.add_argument(
        "--rate", type=between(1, 1000), default=250, help="samples a second (%(default)s)"
    )
    parser.add_argument(
        "--native",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="frames of C, too: takes py-spy several times longer for each sample",
    )
    parser.add_argument("--format", type=formats, default=list(FORMATS), help=",".join(FORMATS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="profiling/results")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="where these two differ")
    args = parser.parse_args(argv)
    for name in [*args.names, *(args.diff or [])]:
        if name not in SERVERS and name not in PEERS:
            parser.error(f"{name!r} is none of {', '.join([*SERVERS, *PEERS])}")
    for command in args.cmd:
        if "{port}" not in command:
            parser.error(f"--cmd {command!r} has no {{port}}")
    args.servers = list(dict.fromkeys([*args.names, *args.cmd]))
    if not args.servers and not args.diff:
        args.servers = list(DEFAULT)
        if not importlib.util.find_spec("uvloop"):
            args.servers.remove("uvloop")
            print("uvloop is left out: pip install uvloop", file=sys.stderr)
    return args


def between(least: int, most: int) -> type[int]:
    class Number(int):
        def __new__(cls, text: str) -> Number:
            number = super().__new__(cls, text)
            if not least <= number <= most:
                raise argparse.ArgumentTypeError(f"not from {least} to {most}: {text}")
            return number

    return Number


def seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 600:
        raise argparse.ArgumentTypeError(f"not from 0.05 to 600: {text}")
    return value


def formats(text: str) -> list[str]:
    found = list(dict.fromkeys(text.split(",")))
    wrong = [name for name in found if name not in FORMATS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(FORMATS)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
