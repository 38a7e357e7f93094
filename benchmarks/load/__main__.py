"""Put a chat server under load at a fixed rate, and say how late each delivery is.

    python -m benchmarks.load --server epoll --clients 1000 --senders 10 --rate 200
    python -m benchmarks.load --connect 127.0.0.1:8080 --json -

An open loop: messages leave on a schedule, however slow the server is, and the latency of a
delivery counts from when its message should have left (worker.py says how). Every delivery is
checked; a line that is lost, doubled, out of order or under another's name ends the run with one
line on stderr and without any number.

Exit status: 0; 1: no result, and one line on stderr says why; 2: bad arguments; 130, 143 and 129
after SIGINT, SIGTERM and SIGHUP, which still print what was measured until then.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of the imports

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # The folder of this file comes first otherwise, and its modules before the standard ones.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

try:
    from benchmarks.load.run import Interrupted, Load, Signals
except ModuleNotFoundError as missing:
    if missing.name != "hdrh":
        raise
    sys.exit("load.py: hdrhistogram is not installed: pip install -e '.[dev]'")

from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.process import DEADLINE, ServerError
from benchmarks.harness.roster import PEERS, PeerError
from benchmarks.harness.server import SERVERS
from benchmarks.load.plan import LoadError, Plan

SILENT = ("v1", "v2")
LATE, BUSY = 1000, 90
"""The p99 of the microseconds by which messages left late, and the per cent of a CPU that a worker
used, above which a result is said to be the load generator's, too."""


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(args).items()
        if name not in ("server", "connect", "json", "plan")
    }


def command(args: argparse.Namespace) -> list[str]:
    """The command line that does the same again, whatever the defaults will be."""
    target = ["--server", args.server] if args.server else ["--connect", join(*args.connect)]
    found = ["python", "-m", "benchmarks.load", *target]
    for name, value in parameters(args).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{option}" if value else f"--no-{option}")
        else:
            found += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
    return found


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report, to be read: what was run, what was seen, what to doubt, on what."""
    asked, percent, us = report["parameters"], report["worker_cpu_percent"], report["latency_us"]
    yield (
        f"{report['server']}: {asked['clients']:,} clients, of which {asked['senders']:,} send "
        f"{asked['rate']:g} messages of {asked['size']} bytes per second in all, for "
        f"{asked['duration']:g} s after {asked['warm_up']:g} s of warm-up"
    )
    pinning = report["pinning"]
    workers = f"{len(percent)} worker" + "s" * (len(percent) > 1)
    if pinning:
        cpus = ", ".join(map(str, pinning["workers"]))
        yield f"the server on CPU {pinning['server'][0]} alone, {workers} on CPU {cpus}"
    else:
        yield f"{workers}; nothing is pinned to a CPU"
    if report["interrupted"]:
        yield f"interrupted after {max(0.0, report['seconds']):.2f} s"
    yield ""
    rows = [
        ("messages", f"{report['messages']:,}"),
        ("deliveries", f"{report['deliveries']:,}, each checked"),
    ]
    if not us:
        yield "nothing was measured yet"
        return
    rows.append(("deliveries per second", f"{report['deliveries_per_second']:,.0f}"))
    rows += [(f"latency {name}", milliseconds(value)) for name, value in us.items()]
    if report["messages_per_data_segment"]:
        rows.append(("messages per data segment", f"{report['messages_per_data_segment']:.2f}"))
    process = report["server_process"]
    if process:
        rows += [
            (
                "server CPU",
                f"{process['cpu_seconds']:.3f} s, {process['cpu_percent']:.0f} % of one",
            ),
            ("server CPU per delivery", f"{process['cpu_us_per_delivery']:.2f} µs"),
            ("server memory", f"{process['resident_kib']:,} KiB"),
            ("  more per client", f"{process['resident_kib_per_client']:.1f} KiB"),
        ]
    late = report["send_lateness_us"]
    sent_late = f"p99 {milliseconds(late['p99'])}, max {milliseconds(late['max'])}"
    rows.append(("messages sent late by", sent_late))
    rows.append(("busiest worker", f"{max(percent):.0f} % of a CPU"))
    for title, text in rows:
        yield f"{title:27}{text}"
    yield ""
    doubts = []
    if late["p99"] > LATE:
        doubts.append("sent late")
    if max(percent) > BUSY:
        doubts.append("had hardly any CPU time left")
    if doubts:
        yield (
            f"The load generator {' and '.join(doubts)}: a part of these latencies is its own. "
            "Fewer clients, a lower rate, or more CPUs and --workers help."
        )
    if report["sends_held_back"]:
        yield f"{report['sends_held_back']:,} messages waited in us: the server did not read them."
    yield sentence(report["environment"])


def milliseconds(micro: int) -> str:
    return f"{micro / 1000:,.3f} ms"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line."""
        self.exit(2, f"load.py: {message}\n")


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"{text}: an IPv6 address stands in brackets")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host, int(port)


def parse_args() -> argparse.Namespace:
    parser = Parser(
        prog="load.py",
        description="Put a chat server under load at a fixed rate; measure each delivery.",
        allow_abbrev=False,
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--server", help='a name of ours or of a peer, or "COMMAND with {port}"')
    target.add_argument(
        "--connect", type=host_and_port, metavar="HOST:PORT", help="a server that runs already"
    )
    add = parser.add_argument
    add("--clients", type=int, default=1000, help="all of them listen (%(default)s)")
    add("--senders", type=int, default=10, help="so many of them speak, too (%(default)s)")
    add("--rate", type=positive, default=200.0, help="messages per second in all (%(default)g)")
    add("--size", type=int, default=32, help="bytes of a message, newline included (%(default)s)")
    add("--duration", type=positive, default=10.0, help="seconds that count (%(default)g)")
    add("--warm-up", type=float, default=1.0, help="seconds before that (%(default)g)")
    add(
        "--deadline",
        type=positive,
        default=DEADLINE,
        help="seconds after which a delivery counts as lost (%(default)g)",
    )
    add("--workers", type=int, help="processes that hold the clients (CPUs less one)")
    add(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="server on the first CPU alone, workers on the others; not with --connect (yes)",
    )
    add("--json", metavar="FILE", help="everything as JSON; -: to stdout, the table to stderr")
    args = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    if args.workers is None:
        args.workers = max(1, min(cpus - 1, args.clients // 2))
    args.plan = Plan(
        args.clients,
        args.senders,
        args.rate,
        args.size,
        args.warm_up,
        args.duration,
        args.deadline,
        args.workers,
    )
    problem = nonsense(args)
    if problem:
        parser.error(problem)
    return args


def nonsense(args: argparse.Namespace) -> str | None:
    """What is wrong with arguments that argparse has taken."""
    if args.clients < 2:
        return f"--clients {args.clients}: it takes two, one to speak and one to listen"
    if not 1 <= args.senders <= args.clients:
        return f"--senders {args.senders}: must be 1 to {args.clients}, the number of clients"
    if not 9 <= args.size <= 65536:
        return f"--size {args.size}: must be 9, for a number and the newline, to 65536"
    if not 0 <= args.warm_up < math.inf:
        return f"--warm-up {args.warm_up:g}: must be 0 or more"
    if not 1 <= args.workers <= args.clients // 2:
        return f"--workers {args.workers}: must be 1 to half the number of clients"
    if args.plan.messages < 1:
        return f"--rate {args.rate:g} --duration {args.duration:g}: that is no message at all"
    if args.plan.said_by(0) > 10**8:
        return "more messages from a sender than eight digits can count"
    if args.server in SILENT:
        return f"--server {args.server}: it does not broadcast, so nothing is delivered"
    if args.server and "{port}" not in args.server and args.server not in {*SERVERS, *PEERS}:
        known = ", ".join(name for name in (*SERVERS, *PEERS) if name not in SILENT)
        return f"--server {args.server}: neither a command with {{port}} nor one of {known}"
    if args.json and args.json != "-" and not os.access(Path(args.json).parent, os.W_OK):
        return f"--json {args.json}: cannot be written"
    return None


def main() -> int:
    args = parse_args()
    signals = Signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        target = args.server or args.connect
        report = {
            "server": args.server or join(*args.connect),
            "parameters": parameters(args),
            **Load(args.plan, target, pin=args.pin, signals=signals).run(),
            "environment": environment(command(args)),
        }
        text = "\n".join(lines(report))
        if args.json == "-":
            print(text, file=sys.stderr)
            print(json.dumps(report, indent=2), flush=True)
        else:
            print(text, flush=True)
            if args.json:
                Path(args.json).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    except Interrupted:
        print("load.py: interrupted before the clock started: no result", file=sys.stderr)
    except (LoadError, ServerError, PeerError) as error:
        print(f"load.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  a closed pipe is not flushed at exit
        print(f"load.py: {error.filename or 'stdout'}: {error.strerror}", file=sys.stderr)
        return 1
    return 128 + signals.number if signals.number else 0


if __name__ == "__main__":
    sys.exit(main())
