"""Options, and the fixtures that start each server fresh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.server import ASKING, BROADCASTING, SERVERS, Server

pytest.register_assert_rewrite("tests.support.wire")

# After the call above, or its asserts say nothing.
from tests.support.needed import needed_in_ci, needs  # noqa: E402
from tests.support.wire import Peer, Room, close_peers  # noqa: E402

Start = Callable[..., Server]
Strace = Callable[..., list[str]]

PROGRAMS = ("v1", "v2", "v3", "v4", "epoll", "uring", "uvloop")
"""One of each: those that wait for readiness share all but their back end."""
one_of_each = pytest.mark.servers(*PROGRAMS)
broadcasting = pytest.mark.servers(*BROADCASTING)
RARE = (
    *(f"{name} --flush message" for name in ("selectors", "epoll-et", "uring")),
    "epoll --looks 0",
)
"""Each back end and each flush are tested without these; together they are a `long` test of what is
on the wire."""


EXEMPT = {
    "test_control_characters_cross_the_wire_as_they_are": "they become U+FFFD before anybody "
    "sees them",
    "test_longest_line_is_legal": "a line is shorter: test_a_line_that_is_too_long_is_answered",
    "test_line_too_long_ends_that_client_only": "it is answered, and its client stays",
}
"""Wire tests that v5 need not pass, and why; the others it does. What it logs, how it is started
and how it stops differs: its own tests are in tests/chat."""


def is_for_asking(test: pytest.Function) -> bool:
    """Whether a test is for servers that ask for a nick, too."""
    return bool(test.get_closest_marker("wire")) and test.originalname not in EXEMPT


class LimitReached(Exception):
    """A model's limit, met in the way the contract demands. Only a test of limits raises it,
    after it has seen that the server said so and that those inside are served on."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sock_chat")
    group.addoption(
        "--server",
        metavar="COMMAND",
        help="run the wire tests against this server instead of ours; {port} in COMMAND is "
        "replaced by the port it must listen on, at 127.0.0.1",
    )
    group.addoption(
        "--server-asks",
        action="store_true",
        help="--server asks for a nick first, and greets as v5 does",
    )
    group.addoption(
        "--server-python",
        metavar="PATH",
        default=sys.executable,
        help="the interpreter that runs our servers and clients (default: this one); of the tests "
        "only those run that start one",
    )


def pytest_configure(config: pytest.Config) -> None:
    if sys.platform != "linux":
        pytest.exit("sock_chat runs on Linux only", 1)
    command = config.getoption("--server")
    if command and "{port}" not in command:
        raise pytest.UsageError("--server: the command must contain {port}")
    python = config.getoption("--server-python")
    if not shutil.which(python):
        raise pytest.UsageError(f"--server-python: {python} is not an executable file")
    if python != sys.executable:
        # What is found as python3 may be a script that looks for one: the servers are started
        # without it, under limits that it would not survive.
        command = [python, "-c", "import sys; print(sys.executable)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        config.option.server_python = done.stdout.strip()
        if done.returncode or not done.stdout.strip():
            raise pytest.UsageError(f"--server-python: {python} is no Python")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def wanted(item: pytest.Item) -> bool:
        if config.getoption("--server"):
            return "wire" in item.keywords
        other = config.getoption("--server-python") != sys.executable
        return not other or "python" in getattr(item, "fixturenames", ())

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = filter(wanted, items)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `name`, or a fixture made of it, runs once for each server.

    `@pytest.mark.servers("v3", "v4")` narrows it down. `@pytest.mark.limit("v3", reason="...")`
    says that v3 must fail with LimitReached, and with nothing else.
    """
    if "name" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker
    servers = marker("servers")
    names = list(servers.args if servers else SERVERS)
    if not is_for_asking(metafunc.definition):
        names = [name for name in names if name not in ASKING]
    if not marker("wire"):
        names = [name for name in names if name not in RARE]
    if metafunc.config.getoption("--server"):
        fits = is_for_asking(metafunc.definition) or not metafunc.config.getoption("--server-asks")
        names = ["custom"] if fits and set(BROADCASTING) & set(names) else []

    def marks(name: str) -> list[pytest.MarkDecorator]:
        limit = marker("limit")
        if limit and name in limit.args:
            reason = limit.kwargs["reason"]
            return [pytest.mark.xfail(strict=True, raises=LimitReached, reason=reason)]
        return [pytest.mark.long] if name in RARE else []

    metafunc.parametrize("name", [pytest.param(name, marks=marks(name)) for name in names])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        python = item.config.getoption("--server-python")
        for value in item.callspec.params.values():
            if str(value).split()[:1] in (["uvloop"], ["uring"], ["v5"]):
                needs(str(value), python)


@pytest.fixture(autouse=True)
def _peers() -> Iterator[None]:
    yield
    close_peers()


@pytest.fixture
def strace(tmp_path: Path) -> Strace:
    """`strace("-e", "trace=write")`: what is put before a command; the trace is in tmp_path."""
    path = shutil.which("strace")
    if not path:
        needed_in_ci("strace is not installed (apt-get install strace)")
    return lambda *options: [path, "-f", "-qq", "-o", str(tmp_path / "trace"), *options]


@pytest.fixture
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter for servers and clients."""
    path: str = request.config.getoption("--server-python")
    return os.path.abspath(path)  # it is used in other folders


@pytest.fixture
def start(name: str, python: str, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start the server under test: `start("--quiet", limits=...)`; see harness.Server.

    At the end of the test it stops, if it has not ended before; in either case its exit status
    must be 0 and its stderr empty.
    """
    command = request.config.getoption("--server")
    with ExitStack() as stack:
        servers: list[Server] = []

        def start(*arguments: str, **options: Any) -> Server:
            if command:
                server = Server(command, asks=request.config.getoption("--server-asks"))
            else:
                server = Server(name, arguments=arguments, python=python, **options)
            servers.append(stack.enter_context(server))
            return server

        yield start
        for server in servers:
            if command:
                server.kill()
                continue
            status = server.process.poll()
            if status is None:
                status = server.stop()
            assert (status, server.errors.rest()) == (0, []), f"{name}: exit status, stderr"


@pytest.fixture
def server(start: Start) -> Server:
    """The server under test, with its log."""
    return start()


@pytest.fixture
def room(server: Server) -> Room:
    """A room on the server under test that nobody has entered yet."""
    return Room(server)


@pytest.fixture
def bea(room: Room) -> Peer:
    """Who is in the room, and listens."""
    return room.join()


@pytest.fixture
def ana(room: Room, bea: Peer) -> Peer:
    """Who talks; she and bea hear each other."""
    return room.join()
