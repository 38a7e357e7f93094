"""The scripts of profiling/, run as their users run them: how they end when something is missing,
when a server fails, when they are stopped. One line says why, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, wait_until
from tests.support.needed import needed_in_ci
from tests.support.run import MARK, processes

SCRIPTS = ("roundtrip", "syscalls", "flamegraph")
DYING = """
import os, select, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()[0].close()  # the one who asks whether it accepts
(a, name_a), (b, name_b) = listener.accept(), listener.accept()
others = {a: (b, name_a), b: (a, name_b)}
for number in range(-2, int(sys.argv[2])):  # after "ready" and "begin"
    sock = select.select([a, b], [], [])[0][0]
    other, name = others[sock]
    other.sendall(b"%r dice: " % (name,) + sock.recv(32))
    if number > 0 and number % 3 == 0:
        os.getppid()
sys.exit("weary")
"""
"""A room for two, which dies after some messages. After each third it makes a call more."""
SPY = """#!{python}
import ctypes, sys, time
if sys.argv[1] == "record":
    SEIZE, TRACEEXIT = 0x4206, 0x40
    server = int(sys.argv[sys.argv.index("--pid") + 1])
    if ctypes.CDLL(None).ptrace(SEIZE, server, None, ctypes.c_void_p(TRACEEXIT)):
        sys.exit("Error: Operation not permitted")
    print("Sampling process", flush=True)
    time.sleep(600)
"""
"""A py-spy that holds the server and never waits for it, ptrace(2)."""
EPERM = (
    "#!/bin/sh\n[ $1 = record ] || exit 0\necho 'Error: EPERM: Operation not permitted'\nexit 1\n"
)


@pytest.fixture(autouse=True)
def _tools() -> None:
    if not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")
    if not shutil.which("py-spy") and not Path(sys.executable).with_name("py-spy").exists():
        needed_in_ci("py-spy is not installed (pip install py-spy)")


def run(
    script: str, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(ROOT / "profiling" / f"{script}.py"), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=4 * DEADLINE,
        env={**os.environ, **environment},
        check=False,
    )


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line says why; what flamegraph.py says before is what it does."""
    assert (done.returncode, done.stdout) == (1, ""), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.splitlines()[-1] for word in words), done.stderr


def program(tmp_path: Path, text: str, *arguments: str) -> str:
    path = tmp_path / "dying.py"
    path.write_text(text)
    return shlex.join([sys.executable, "-S", str(path), "{port}", *arguments])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "made" / "for it"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("arguments", [["v9"], ["--cmd", "true"], ["v3", "--clients", "1"]])
def test_profiling_bad_arguments(script: str, arguments: list[str], output: Path) -> None:
    done = run(script, *arguments, "--output", str(output))
    assert done.returncode == 2 and not output.exists()
    assert "error: " in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_profiling_without_its_tool(script: str, tmp_path: Path, output: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    arguments = ("v3", "--output", str(output))
    failed(run(script, *arguments, python=str(python), PATH=str(tmp_path)), "is not installed: ")
    packages = str(Path(pytest.__file__).parents[1])  # which a bare interpreter does not know
    done = run(script, *arguments, python=str(python), PATH=str(tmp_path), PYTHONPATH=packages)
    if script == "flamegraph":
        failed(done, "py-spy is not installed: pip install -e '.[profiling]'")
    else:
        failed(done, "strace is not installed: apt-get install strace")
    assert not output.exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_profiling_server_that_does_not_start(script: str) -> None:
    command = f"{sys.executable} -c 'import sys; sys.exit(\"no {{port}} for me\")'"
    failed(run(script, "--cmd", command), "for me")


@pytest.mark.parametrize(
    ("script", "messages"),
    [("roundtrip", 12), ("syscalls", 0), ("syscalls", 11), ("flamegraph", 99)],
)
def test_profiling_server_that_dies(script: str, messages: int, tmp_path: Path) -> None:
    done = run(script, "--cmd", program(tmp_path, DYING, str(messages)), "--clients", "2")
    failed(done, "dying.py", "the server died under load: weary" if script == "flamegraph" else "")


@pytest.mark.parametrize("folder", ["/dev/null/results", "/proc/results"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_profiling_output_that_cannot_be(script: str, folder: str) -> None:
    done = run(script, "v3", "--output", folder)
    failed(done, f"{script}: cannot write to {folder}")
    assert done.stderr.count("\n") == 1, "it began to measure"


def test_flamegraph_without_the_right_to_trace(tmp_path: Path, output: Path) -> None:
    done = run("flamegraph", "v3", "--output", str(output), PATH=own_spy(tmp_path, EPERM))
    failed(done, "py-spy may not trace the server", "kernel.yama.ptrace_scope")
    assert not output.exists()


def test_flamegraph_too_few_samples(output: Path) -> None:
    options = ["--duration", "0.1", "--clients", "5", "--rate", "20"]
    done = run("flamegraph", "v3", *options, "--output", str(output))
    failed(done, "samples are too few for a picture, 50 are needed")
    assert not output.exists()


def own_spy(tmp_path: Path, text: str) -> str:
    """A PATH with another py-spy."""
    spy = tmp_path / "bin" / "py-spy"
    spy.parent.mkdir()
    spy.write_text(text.replace("{python}", sys.executable))
    spy.chmod(0o755)
    return f"{spy.parent}:{os.environ['PATH']}"


def begin(
    tmp_path: Path, output: Path, script: str, **environment: str
) -> tuple[subprocess.Popen[str], int]:
    """A script that goes on for long, and the pid of its server, once it is being looked at."""
    program = str(ROOT / "profiling" / f"{script}.py")
    process = subprocess.Popen(
        [sys.executable, program, *LONG[script], "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, MARK: str(tmp_path), **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # if nohup'ed
    )
    servers: list[int] = []

    def is_looked_at() -> bool:
        """py-spy says so; in a room that is counted there are a listener and clients."""
        assert process.poll() is None, process.communicate()
        lines = processes(tmp_path).items()
        servers[:] = [
            pid for pid, line in lines if "server.py" in line and "starter.py" not in line
        ]
        with contextlib.suppress(OSError):  # it goes on
            if script == "flamegraph":
                logs = output.glob(".*/*/py-spy.log")
                return any("Sampling process" in log.read_text() for log in logs)
            links = Path(f"/proc/{servers[-1]}/fd").iterdir() if servers else ()
            return sum(os.readlink(link).startswith("socket:") for link in links) >= 4
        return False

    wait_until(is_looked_at, "nobody looks at the server")
    return process, servers[-1]


LONG = {
    "syscalls": ("v3", "--rounds", "1000000"),
    "flamegraph": ("v3", "--duration", "60", "--clients", "5"),
}


@pytest.mark.parametrize("script", LONG)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_profiling_stopped(script: str, signum: int, tmp_path: Path, output: Path) -> None:
    """Neither a process nor a file is left; Ctrl-C reaches the whole group of the terminal."""
    process, _ = begin(tmp_path, output, script)
    send = os.killpg if signum == signal.SIGINT else os.kill
    send(process.pid, signum)
    _, errors = process.communicate(timeout=DEADLINE)
    wait_until(lambda: not processes(tmp_path), "something is left")  # SIGKILL: a moment later
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
        return
    assert process.returncode == 128 + signum
    assert errors.splitlines()[-1] == f"{script}: stopped, nothing is written"
    assert not output.parent.exists()


@pytest.mark.parametrize("spy", ["py-spy's", "one that never waits"])
def test_flamegraph_server_that_is_killed(spy: str, tmp_path: Path, output: Path) -> None:
    """A tracer that does not wait keeps a killed process from its end: its sockets stay open."""
    environment = {} if spy == "py-spy's" else {"PATH": own_spy(tmp_path, SPY)}
    process, server = begin(tmp_path, output, "flamegraph", **environment)
    os.kill(server, signal.SIGKILL)
    _, errors = process.communicate(timeout=2 * DEADLINE)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "flamegraph: v3: the server died under load"
    assert not output.parent.exists() and not processes(tmp_path)
