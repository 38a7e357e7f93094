"""stages/v5/OPERATING.md, from top to bottom, on a machine of its own that systemd has booted."""

from __future__ import annotations

import os
import re
import resource
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import trustme

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import wait_until
from tests.container.conftest import BUILD_TIME, HERE, environment, packed_project, podman

pytestmark = pytest.mark.container

MACHINE = "localhost/sock-chat-machine:test"
WHEELS = "localhost/sock-chat-wheels:test"
PAGE = (ROOT / "stages/v5/OPERATING.md").read_text("utf-8")
# With what a machine has, so that systemd can give its services less than that.
ALONE = (
    *("--systemd=always", "--network=none"),
    *("--cap-add=SYS_ADMIN,SYS_PTRACE", "--security-opt=seccomp=unconfined"),
)
ELSEWHERE = ("In containers",)  # on this machine, by test_compose.py


def blocks(text: str) -> list[str]:
    """Of shell commands; one in a list is as far in as its item."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


class Section(NamedTuple):
    heading: str
    commands: list[str]


SECTIONS = [
    Section(heading, blocks(text))
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
]


class Machine:
    def __init__(self, name: str):
        self.name = name

    def run(self, script: str) -> str:
        """As root, in the clone. AssertionError: a command in it failed, and it stopped there."""
        command = ["podman", "exec", "-i", "-w", "/root/sock_chat", self.name]
        done = subprocess.run(
            [*command, "bash", "-euo", "pipefail", "-s"],
            input=script,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=BUILD_TIME,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def machine(image: str) -> Iterator[Machine]:
    options = ("--pull=never", "--network=host", "--format=docker")
    podman("build", *options, "--target=wheels", "--tag", WHEELS, ".", within=BUILD_TIME)
    file = HERE / "images/machine.Containerfile"
    podman("build", *options, "--tag", MACHINE, "--file", str(file), str(HERE), within=BUILD_TIME)
    name = f"sock-chat-machine-{os.getpid()}"
    try:
        podman("run", "--detach", "--name", name, *ALONE, MACHINE)
        machine = Machine(name)
        copy_project(name)
        wait_until(
            lambda: "running" in machine.run("systemctl is-system-running || true"),
            "systemd does not come up",
            pause=0.1,
        )
        yield machine
    finally:
        podman("rm", "--force", "--time=0", "--ignore", name)


def copy_project(name: str) -> None:
    unpack = "mkdir /root/sock_chat && tar -x -C /root/sock_chat"
    subprocess.run(
        ["podman", "exec", "-i", name, "sh", "-c", unpack],
        input=packed_project(),
        env=environment(),
        check=True,
    )


AUTHORITY = trustme.CA()


def renew(machine: Machine) -> None:
    """What somebody who issues certificates would put there."""
    issued = AUTHORITY.issue_cert("127.0.0.1")
    files = {
        "ca.pem": AUTHORITY.cert_pem.bytes(),
        "fullchain.pem": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        "privkey.pem": issued.private_key_pem.bytes(),
    }
    for file, content in files.items():
        machine.run(f"cat > {file} <<'END'\n{content.decode()}END\n")


def log(machine: Machine) -> str:
    return machine.run("journalctl --no-pager -u sock-chat -o cat --since -1h")


def talk(machine: Machine, *lines: str, options: str = "") -> str:
    """What a client hears who says that, and leaves."""
    text = "".join(f"{line}\n" for line in lines)
    return machine.run(f"printf %s {shlex.quote(text)} | /opt/sock-chat/bin/sock-chat {options}")


def test_sections_are_those_that_are_tested() -> None:
    assert {section.heading for section in SECTIONS if section.commands} == {*CHECKS, *ELSEWHERE}


def after_install(machine: Machine, output: str) -> None:
    assert "* Hola, bea. En general: bea." in output
    assert re.search(r"exposure level for sock-chat.service: 1\.\d OK", output)
    assert "\nok" in output
    assert "Servidor chat iniciado en ('127.0.0.1', 8080)" in log(machine)
    pid = machine.run("systemctl show --property=MainPID --value sock-chat").strip()
    status = machine.run(f"cat /proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status


def after_setting_up(machine: Machine, output: str) -> None:
    assert "Servidor chat iniciado en ('0.0.0.0', 8080)" in log(machine)
    assert "es tuyo" in talk(machine, "ana", "/register correct horse")


def after_reading_metrics(machine: Machine, output: str) -> None:
    metrics = set(re.findall(r"^# TYPE (\w+) ", output, re.MULTILINE))
    section = PAGE.partition("## Metrics and alerts")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(?:sock_chat|process)_\w+", section))
    assert len(named) >= 4 and named <= {*metrics, *(f"{name}_total" for name in metrics)}


def after_raising_limits(machine: Machine, output: str) -> None:
    """As far as this machine allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = re.search(r"Max open files +(\d+) +\1", output)
    assert limit and 0 < int(limit[1]) <= hard
    assert "LimitNOFILE=262144" in machine.run("systemctl cat sock-chat")


def after_certificates(machine: Machine, output: str) -> None:
    assert "* Hola, bea." in talk(machine, "bea", options="--tls --cafile ca.pem")
    assert "TLS en ('0.0.0.0', 8443)" in log(machine)


def after_proxies(machine: Machine, output: str) -> None:
    assert "* Hola, bea." in talk(machine, "bea", options="--tls --cafile ca.pem")


def after_restoring(machine: Machine, output: str) -> None:
    assert "* Hola, bea." in talk(machine, "bea", options="--port 9080")


def after_reading_the_log(machine: Machine, output: str) -> None:
    assert '"event"' in output


def after_the_upgrade(machine: Machine, output: str) -> None:
    after_restoring(machine, output)


CHECKS: dict[str, Callable[[Machine, str], None]] = {
    "Install it": after_install,
    "Set it up": after_setting_up,
    "The log": after_reading_the_log,
    "Metrics and alerts": after_reading_metrics,
    "Limits, and how to raise them": after_raising_limits,
    "Certificates": after_certificates,
    "Behind a proxy": after_proxies,
    "Back it up, and bring it back": after_restoring,
    "A new version": after_the_upgrade,
}


@pytest.mark.parametrize("heading", CHECKS)
def test_commands_of_a_section(machine: Machine, heading: str) -> None:
    """Each goes on where the one before has ended."""
    section = next(section for section in SECTIONS if section.heading == heading)
    output = ""
    for commands in section.commands:
        renew(machine)
        machine.run("systemctl reset-failed")  # nobody else starts it so often in 10 s
        output += machine.run(commands)
    CHECKS[heading](machine, output)
