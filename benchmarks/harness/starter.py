"""The process between us and a program that we start. It becomes that program, by execve(2).

    python -I -S starter.py '{"signum": 9, "parent": 1234}' COMMAND ...

process.starter() makes this command line and says what may be asked for. Whatever is set here
outlives execve(2): the session, the resource limits, and the signal on the parent's end, unless
the program is set-user-ID or has capabilities of its own, prctl(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int = 0, signum: int = signal.SIGKILL) -> None:
    """From now on this process gets `signum` when the thread that has started it ends, however
    that ends. The parent may be gone already, and then nothing would come any more: if it is not
    `parent` by now, this process ends. 0: whoever it is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if parent and os.getppid() != parent:
        os._exit(1)


def become(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def fork_and_watch(command: list[str], watcher: list[str], log: str) -> None:
    """COMMAND is a child, and this process waits for it, until SIGUSR1 comes: then it becomes the
    watcher, which so has the right of a parent to trace it (kernel.yama.ptrace_scope)."""
    signals = {signal.SIGUSR1, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    own, child = os.getpid(), os.fork()
    if not child:
        end_with_parent(own)
    elif signal.sigwait(signals) == signal.SIGCHLD:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(128 - status if status < 0 else status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    if not child:
        become(command)
    output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    become([*watcher, "--pid", str(child)])


def main(asked: dict[str, Any], command: list[str]) -> None:
    if asked.get("session"):
        os.setsid()
    if asked.get("signum"):
        end_with_parent(asked.get("parent", 0), asked["signum"])
    for number, limits in asked.get("limits", []):
        resource.setrlimit(number, limits)
    if asked.get("watcher"):
        fork_and_watch(command, asked["watcher"], asked["log"])
    become(command)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
