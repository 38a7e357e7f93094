"""One broadcast round, system call by system call, beside the source lines that made them.

    python profiling/roundtrip.py v3
    python profiling/roundtrip.py v4 --clients 5 --markdown
    python profiling/roundtrip.py --cmd "python my_server.py --port {port}"
    python profiling/roundtrip.py --output profiling/results    # rounds.json, for the pages

The round begins with the wait that a message ends and goes on to the next wait. Each call stands
with its arguments and its result, the line of source that made it, and what it is for. Where the
line is not ours but asyncio's, ours follows: the one that asked for it, or the one that the message
is handed to. uvloop's calls are made in C, where there are no lines that Python knows of.

How the line is known: the server runs a second time under marks.py, which says at every step where
it is, in the same trace and the same thread as the calls. What it says must agree: recvfrom under a
recv(), and the same calls in the same order as without the marks. If not, nothing is shown.

--output takes several servers, by default all of ours that are one model each, and keeps of each
round what every run has in common, as rounds.py says: the same sources give the same rounds.

Exit status: 0; 1: one line on stderr says what is missing or does not agree; 2: bad arguments.
"""

from __future__ import annotations

import argparse
import ast
import json
import linecache
import mmap
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run(): nothing has begun yet
sys.path[:1] = [str(FOLDER.parent), str(FOLDER)]  # benchmarks is in the first

from benchmarks.compare.__main__ import missing  # noqa: E402
from benchmarks.harness.crowd import DeliveryError  # noqa: E402
from benchmarks.harness.environment import environment, sentence  # noqa: E402
from benchmarks.harness.files import ROOT  # noqa: E402
from benchmarks.harness.process import ServerError  # noqa: E402
from benchmarks.harness.strace import READS, SENDS, WAITS, Call, whole_calls  # noqa: E402
from calls import rounds  # noqa: E402
from calls.tracing import (  # noqa: E402
    APART,
    NAMES,
    WARM_UP,
    LockStep,
    Trace,
    TracingError,
    failure,
    marker,
    output_folder,
    quiet,
    run,
    strace_version,
)

MODELS = ("v1", "v2", "v3", "v4", "selectors", "epoll", "epoll-et", "uvloop")
"""What --output measures."""

MADE_BY = {
    "select": ("select",),
    "poll": ("poll",),
    "epoll_wait": ("poll",),
    "epoll_ctl": ("register", "modify", "unregister"),
    "recvfrom": ("recv", "recv_into"),
    "sendto": ("send", "sendall", "extend"),  # list.extend() draws from map(), which sends
    "write": ("write",),
}
"""The C functions of Python that make these calls."""

MEMORY = {
    "mmap": "malloc: a block beyond its threshold comes from the kernel",
    "mremap": "realloc: the block is cut down to what was received",
    "munmap": "free: the block goes back to the kernel",
    "brk": "malloc: the heap's size changes",
    "futex": "a thread waits for, or lets go of, the interpreter or a lock",
    "getpid": "is this still the process that started the loop?",
    "getsockopt": "asks about the socket before it sends",
    "epoll_ctl": "changes what epoll is asked about",
}
_DECODED = re.compile(r"(?<=\d)<(?:->|[^<>]|<[^<>]*>)*>")
_SOCKET = re.compile(r"(\d+)<TCP(?:v6)?:\[[^]]*?->[^]]*?:(\d+)\]+>")
_LOOP = re.compile(r"\brun(_forever)?\(")
_TIMEOUT = re.compile(r", (-?\d+)(?:, NULL, 8)?\) += ")

Mark = dict[str, Any]


class Step:
    """A call of the round, the last mark of its thread before it, and who is handed the result."""

    def __init__(self, call: Call, mark: Mark | None):
        self.call = call
        self.mark = mark
        self.handed: Sequence[Any] | None = None

    def as_json(self) -> dict[str, Any]:
        mark = self.mark or {}
        return {
            "call": self.call.kind,
            "text": shown(self.call),
            "at": mark.get("at"),
            "ours": mark.get("ours"),
            "source": source(mark["at"]) if mark else None,
            "handed": self.handed,
        }


def mark_of(call: Call) -> Mark | None:
    """What marks.py has written; None: it is a call of the server's own."""
    if call.name != "write" or '>, "{\\"at\\": ' not in call.text[:60]:
        return None
    text = call.text.partition(", ")[2]
    found: Mark = json.loads(ast.literal_eval(text[: text.rindex(", ")]))
    return found


def traced(name: str, clients: int, marked: bool) -> tuple[list[Step], dict[str, int]]:
    """One round, and the number of the client behind each port."""
    flag_file = os.memfd_create("flag")
    try:
        os.ftruncate(flag_file, 1)
        flag = mmap.mmap(flag_file, 1)
        program: list[str] = []
        if marked:
            program = [sys.executable, "-S", str(FOLDER / "calls" / "marks.py")]
            program.append(f"/proc/{os.getpid()}/fd/{flag_file}")
        options = ("-s", "4096", "-yy")
        with Trace(name, quiet(name), options=options, program=program) as trace:
            try:
                with LockStep(trace.server, clients, APART) as room:
                    room.run(WARM_UP)
                    flag[0] = 1
                    room.run(2)
                    first, last = room.run(1), room.run(1)
                    flag[0] = 0
                    ports = {
                        str(client.sock.getsockname()[1]): client.index + 1
                        for client in room.clients
                    }
                trace.server.stop()
            except (DeliveryError, ServerError, OSError) as error:
                raise failure(trace.server, error) from None
            calls = whole_calls(trace.read())
    finally:
        os.close(flag_file)
    return cut(name, steps_of(calls), marker(first), marker(last)), ports


def steps_of(calls: Sequence[Call]) -> list[Step]:
    """The server's own calls, each with its thread's mark."""
    steps: list[Step] = []
    last: dict[int, Mark] = {}
    reading: dict[int, Step] = {}  # the latest read of each thread, until it is known for whom
    for call in calls:
        mark = mark_of(call)
        if mark is None:
            step = Step(call, last.get(call.thread))
            steps.append(step)
            reading.pop(call.thread, None)
            if call.kind in READS or call.kind in WAITS:
                if call.kind in WAITS and steps[:-1] and steps[-2].call.kind in READS:
                    step = steps[-2]  # asyncio looks once more before the coroutine runs
                reading[call.thread] = step
            continue
        last[call.thread] = mark
        if mark.get("resumed") and call.thread in reading:
            reader, place = reading[call.thread], mark["at"]
            if reader.call.kind in READS and (not reader.handed or "await" in source(place)):
                reader.handed = place
    return steps


def receives(call: Call, text: str) -> bool:
    return call.kind in READS and f', "{text}' in call.text


def cut(name: str, steps: list[Step], first: str, last: str) -> list[Step]:
    """From the wait that the first message ended to the one that the last message ends."""

    def begin(text: str) -> int:
        index = next((i for i, step in enumerate(steps) if receives(step.call, text)), None)
        if index is None:
            raise TracingError(f"{name}: {text!r} is not among what was received")
        for before in range(index - 1, -1, -1):  # asyncio takes memory between wait and read
            kind, thread = steps[before].call.kind, steps[before].call.thread
            if thread != steps[index].call.thread or kind in READS or kind in SENDS:
                break
            if kind in WAITS:
                return before
        return index

    return steps[begin(first) : begin(last)]


def check(name: str, plain: Sequence[Step], marked: Sequence[Step]) -> None:
    """TracingError: the marks have changed what the server does, or are not about its calls."""
    kinds = [[step.call.kind for step in steps] for steps in (plain, marked)]
    if kinds[0] != kinds[1]:
        raise TracingError(
            f"{name}: with the marks it makes other calls ({', '.join(kinds[1])}) than without "
            f"({', '.join(kinds[0])}): once more, on a quieter machine"
        )
    for step in marked:
        wanted = MADE_BY.get(step.call.kind)
        if not step.mark:
            raise TracingError(f"{name}: no mark before {step.call.name}")
        made_by = step.mark.get("c")
        if wanted and made_by not in wanted and not compiled(step):
            where = "{}:{}".format(*step.mark["at"])
            raise TracingError(f"{name}: {step.call.name} does not match {made_by}() at {where}")


def compiled(step: Step) -> bool:
    """The call is made by a loop in compiled code, which Python cannot look into: uvloop's."""
    kinds = ("epoll_wait", "read", "write")
    return step.mark is not None and "c" not in step.mark and step.call.kind in kinds


def source(place: Sequence[Any]) -> str:
    """The text of a line. Of a call that goes over several it is the first."""
    path = ROOT / place[0]  # which stays as it is when it is absolute
    return linecache.getline(str(path), place[1]).strip()


def at(place: Sequence[Any]) -> str:
    """file:line, from the root of the repository or from the folder of the package on."""
    path = str(place[0])
    for folder in ("site-packages/", f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/"):
        path = path.rpartition(folder)[2]
    return f"{path}:{place[1]}"


def shown(call: Call) -> str:
    """The call as strace writes it, descriptors as plain numbers."""
    return f"{call.name}({_DECODED.sub('', call.text)}"


def file_of(place: Sequence[Any]) -> str:
    """As at(), but without the line where the file is not one of ours."""
    return at(place) if not os.path.isabs(place[0]) else at(place).rpartition(":")[0]


def lines(
    name: str, step: Step, named: Callable[[Sequence[Any]], str] = at
) -> list[tuple[str, str]]:
    """(file:line or what stands for it, the source text), innermost first."""
    mark = step.mark
    if not mark:
        return []
    innermost, ours = mark["at"], mark["ours"]
    if compiled(step):
        library = "uvloop" if "uvloop" in name else "a loop in C"
        if innermost == ours and step.call.kind in SENDS:
            return [(f"{library}, for {named(ours)}", source(ours))]
        found = [(library, "")]
    else:
        found = [(named(innermost), source(innermost))]
    if innermost == ours and not compiled(step):
        return found
    for_whom = None if compiled(step) else ours
    if step.call.kind in READS and (compiled(step) or (ours and _LOOP.search(source(ours)))):
        for_whom = step.handed  # beneath is the loop only, which nobody's line has called
    if for_whom:
        found.append((f"for {named(for_whom)}", source(for_whom)))
    return found


def purpose(step: Step, ports: dict[str, int], sockets: dict[str, str]) -> str:
    """A few words on what the call is for."""
    call = step.call
    if call.kind in WAITS:
        asked = _TIMEOUT.search(call.text)
        if "tv_sec=0, " in call.text or (asked and asked[1] == "0"):
            return "looks, without sleeping: something waits to be run"
        ready = re.search(
            r"\(in \[(\d+)|fd=(\d+).*\[|data=\{u32=(\d+)|data=0x([0-9a-f]+)", call.text
        )
        who = ""
        if ready:
            fd = str(int(ready[4], 16)) if ready[4] else ready[1] or ready[2] or ready[3]
            who = f": client {ports[sockets[fd]]}" if sockets.get(fd) in ports else ""
        return f"sleeps until somebody is ready{who}"
    fd = call.text.partition("<")[0].partition(",")[0]
    whom = f"client {ports[sockets[fd]]}" if sockets.get(fd) in ports else f"descriptor {fd}"
    if call.kind in READS:
        if "EAGAIN" in call.text:
            return "nothing more has come"
        if fd in sockets and "= 0" not in call.text[-4:]:
            return f"takes the message of {whom} out of its receive buffer"
    if call.kind in SENDS:
        return "the log, to stdout" if fd == "1" else f"delivers to {whom}"
    return MEMORY.get(call.kind, "")


def text_of(name: str, clients: int, steps: Sequence[Step], why: Sequence[str]) -> str:
    found = [f"{name}, {clients} clients: one round, {len(steps)} system calls", ""]
    for number, (step, reason) in enumerate(zip(steps, why), 1):
        found.append(f"{number:3}  {shown(step.call)}")
        found += [f"     {where}  {text}".rstrip() for where, text in lines(name, step)]
        found += [f"     {reason}", ""]
    return "\n".join(found)


def markdown(
    name: str, clients: int, steps: Sequence[Step], why: Sequence[str], command: Sequence[str]
) -> str:
    def code(text: str) -> str:
        fence = "``" if "`" in text else "`"
        return f"{fence}{text}{fence}".replace("|", "\\|") if text else ""

    found = [f"# One round of {name} with {clients} clients", ""]
    found += ["| | system call | source line | what for |", "|---|---|---|---|"]
    for number, (step, reason) in enumerate(zip(steps, why), 1):
        where = "<br>".join(f"{place} {code(text)}".strip() for place, text in lines(name, step))
        found.append(f"| {number} | {code(shown(step.call))} | {where} | {reason} |")
    return "\n".join([*found, "", sentence(environment(command)), ""])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; several with --output only"
    )
    parser.add_argument("--cmd", metavar="COMMAND", help="another server; {port} is its port")
    parser.add_argument("--clients", type=int, default=3, metavar="N", help="default: 3")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="a table, with its environment")
    form.add_argument("--json", action="store_true", help="all that is known of each call")
    form.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write DIR/rounds.json, of these servers; default: {', '.join(MODELS)}",
    )
    args = parser.parse_args(argv)
    if args.output:
        if args.cmd:
            parser.error("argument --output: not with --cmd, only by NAME")
        args.names = args.names or list(MODELS)
    elif len(args.names) + bool(args.cmd) != 1:
        parser.error("one server: a NAME, or --cmd COMMAND; several with --output only")
    for name in args.names:
        if name not in NAMES:
            parser.error(f"{name!r} is none of {', '.join(NAMES)}")
    if args.cmd and "{port}" not in args.cmd:
        parser.error(f"argument --cmd: {args.cmd!r} has no {{port}}")
    if args.clients < 2:
        parser.error("argument --clients: a broadcast needs 2")
    return args


def one_round(name: str, clients: int) -> tuple[list[Step], list[str], dict[str, int]]:
    """The calls of a round, what each is for, and the number of the client behind each port.
    TracingError: the marks do not agree with them."""
    steps, ports = traced(name, clients, marked=True)
    if any(step.mark for step in steps):
        check(name, traced(name, clients, marked=False)[0], steps)
    elif name in NAMES:
        print(f"roundtrip: {name} is no Python program: no source lines", file=sys.stderr)
    sockets = {
        fd: port for step in steps for fd, port in _SOCKET.findall(step.call.name + step.call.text)
    }
    return steps, [purpose(step, ports, sockets) for step in steps], ports


def recorded(name: str, clients: int) -> list[rounds.Row]:
    """What rounds.json has of a server."""
    steps, why, ports = one_round(name, clients)
    rows = (
        {
            "call": step.call.kind,
            "text": shown(step.call),
            "lines": [list(line) for line in lines(name, step, file_of)],
            "why": reason,
        }
        for step, reason in zip(steps, why)
    )
    return rounds.steady(rows, ports)


def command(args: argparse.Namespace) -> list[str]:
    """What makes rounds.json again, without the paths of this machine."""
    folder = args.output.resolve()
    shown_folder = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder.name
    words = ["python", "profiling/roundtrip.py"]
    words += args.names if args.names != list(MODELS) else []
    words += ["--clients", str(args.clients)] if args.clients != 3 else []
    return [*words, "--output", str(shown_folder)]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    names = args.names or [args.cmd]
    for name, reason in missing(names).items():
        raise TracingError(f"{name}: {reason}")
    if args.output:
        with output_folder(args.output) as write:
            found = {
                "environment": environment(command(args)) | {"strace": strace_version()},
                "clients": args.clients,
                "servers": {name: recorded(name, args.clients) for name in names},
            }
            write("rounds.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return 0
    steps, why, _ = one_round(names[0], args.clients)
    if args.json:
        print(json.dumps([{**s.as_json(), "why": w} for s, w in zip(steps, why)], indent=1))
    elif args.markdown:
        words = ["--cmd", args.cmd] if args.cmd else names
        words += ["--clients", str(args.clients), "--markdown"]
        made_by = ["python", "profiling/roundtrip.py", *words]
        print(markdown(names[0], args.clients, steps, why, made_by), end="")
    else:
        print(text_of(names[0], args.clients, steps, why), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run("roundtrip", main))
