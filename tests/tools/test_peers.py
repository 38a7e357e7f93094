"""The peers of benchmarks/peers: what is compared with our servers is a chat room, too.

One test for each; how far it goes beyond that is in `Peer.fails`, which `pytest -m long` measures.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import compiled
from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.files import ROOT
from benchmarks.harness.flood import SOURCE, FloodInC, LockStep
from benchmarks.harness.roster import LINE_PEERS, PEERS, SOMETIMES, Peer, PeerError
from benchmarks.harness.server import Server
from tests.conftest import Strace
from tests.contract import test_contract
from tests.support.needed import needed_in_ci
from tests.support.wire import Room

BURST = 200  # lines
TOO_OLD = "as of Linux 6.1"


def command(name: str) -> str:
    """Its command line with {port}; skips when something is missing."""
    missing = PEERS[name].missing()
    if missing and PEERS[name].source.endswith(".c") and TOO_OLD not in missing:
        needed_in_ci(missing)
    if missing:
        pytest.skip(missing)
    return shlex.join(PEERS[name].command("{port}"))


@pytest.mark.parametrize("peer", LINE_PEERS)
def test_peer_is_a_chat_room(peer: str) -> None:
    with Server(command(peer)) as server:
        room = Room(server, logs=False)
        ana, bea, carla = (room.join() for _ in range(3))

        for byte in "añ€𝄞 o\r\n".encode():  # cut within a character
            bea.send(bytes([byte]))
        room.hear(bea, "añ€𝄞 o")
        guest = room.join(listens=False)
        guest.send(b"first\nlast without newline")
        guest.finish()
        room.hear(guest, "first", "last without newline")
        assert guest.rest() == b"", "after a half-close it closes its side, and says nothing"

        texts = [f"{number}" for number in range(BURST)]
        for speaker in (ana, bea):
            speaker.say(*texts)
        for listener, others in ((ana, [bea]), (bea, [ana]), (carla, [ana, bea])):
            lines = [listener.line() for _ in others for _ in texts]
            for speaker in others:
                prefix = f"{speaker.name} dice: "
                own = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
                assert own == texts, f"{listener.name} heard it of {speaker.name}"
        carla.say("end")
        room.hear(carla, "end")  # and nothing before it
        bea.say("heard you")
        room.hear(bea, "heard you")

        assert server.stop() in (0, -signal.SIGTERM)
        assert (server.log.rest(), server.errors.rest()) == ([], []), "it prints nothing"


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer not in LINE_PEERS])
def test_peer_is_a_chat_room_for_browsers(peer: str) -> None:
    """For both loads, one of which reads the frames by itself."""
    command(peer)
    with Server(peer) as server:
        with LockStep(server, 4) as steps:
            assert steps.run(8).deliveries == 24
        if no_compiler(SOURCE):
            needed_in_ci("no C compiler")
        with FloodInC(server, 12, 3) as load:
            assert load.run(BURST).deliveries == 3 * BURST * 11
        assert server.stop() in (0, -signal.SIGTERM)
        assert (server.log.rest(), server.errors.rest()) == ([], []), "it prints nothing"


@pytest.mark.long
@pytest.mark.parametrize("peer", LINE_PEERS)
def test_peer_fails_what_its_roster_says(peer: str) -> None:
    """Of the contract, as `pytest --server COMMAND` runs it; and nothing else."""
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    contract = [str(Path(test_contract.__file__)), "--server", command(peer)]
    pytest_ = [sys.executable, "-m", "pytest", *options, *contract]
    done = subprocess.run(pytest_, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE))
    listed = set(PEERS[peer].fails)
    assert failed <= listed, "the roster does not know of these"
    assert listed - failed <= {*SOMETIMES}, "the roster says that it fails these"


def test_missing_package_says_how_to_get_it() -> None:
    how = {"trio_streams.py": "pip install -e '.[peers]'"}
    if shutil.which("node"):
        how["node_ws.js"] = "npm install --prefix benchmarks/peers"
    for source, install in how.items():
        peer = Peer(source, package="no_such_package")
        assert peer.missing() == f"no_such_package is not installed: {install}"
        with pytest.raises(PeerError, match="no_such_package is not installed"):
            peer.command(8080)


@pytest.mark.parametrize("error", ["EINVAL", "EPERM", "ENOSYS"])
def test_kernel_without_io_uring_gets_one_clear_line(error: str, strace: Strace) -> None:
    """As one before 6.1 refuses it, and seccomp in one way or the other."""
    wrapper = strace("-e", "trace=io_uring_setup", "-e", f"inject=io_uring_setup:error={error}")
    done = subprocess.run(
        [*wrapper, *shlex.split(command("c-uring").format(port=1))], capture_output=True, text=True
    )
    words = f"no io_uring{' ' + TOO_OLD if error == 'EINVAL' else ''}"
    assert (
        done.returncode == 1
        and done.stderr == f"c_uring: {words}: {os.strerror(getattr(errno, error))}\n"
    )


def test_source_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when it, or a header beside it, has changed; what was there stays usable."""
    command("c")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, header = tmp_path / "room.c", tmp_path / "status.h"
    header.write_text("#define STATUS 2\n")
    source.write_text('#include "status.h"\nint main(void) { return STATUS; }\n')
    first, *_ = Peer(str(source)).command(1)
    modified = Path(first).stat().st_mtime_ns
    assert Peer(str(source)).command(2)[0] == first
    assert Path(first).stat().st_mtime_ns == modified
    header.write_text("#define STATUS 1\n")
    second = compiled.program(source)
    assert sorted((tmp_path / "sock_chat").iterdir()) == sorted([Path(first), second])


def test_peer_that_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in C, which has status 1 then; without a port it is 2 else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "refuses.c"
    source.write_text(
        '#include <stdio.h>\nint main(void) { fputs("no luck\\n", stderr); return 1; }'
    )
    command("c")
    assert Peer(str(source)).missing() == "no luck"


def test_compile_error_is_in_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("c")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "broken.c"
    source.write_text("int main(void) { return nobody; }\n")
    with pytest.raises(PeerError, match=r"(?s)exit status 1.*broken\.c:1:.*nobody"):
        Peer(str(source)).command(8080)
    assert list((tmp_path / "sock_chat").iterdir()) == []
