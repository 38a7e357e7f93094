"""No number in prose without a proof: what the pages claim stands in the code, in the contract, in
a test or in a file of results.

Pages are the README files of the project, its stages, lowlevel/ and profiling/, the exercises, and
the docstrings at the top of stages/v*/server.py and lowlevel/*.py. What a claim is, says the
docstring of tests/text/claims.py; what proves one, that of tests/text/proofs.py.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from benchmarks.harness.server import ROOT
from tests.contract.test_syscalls import EXPECTED
from tests.text.claims import claims
from tests.text.proofs import Proofs

WIRE = "tests/contract/test_contract.py"
RESOURCES = "tests/contract/test_resources.py"
CONTRACT = {
    # A snippet of stages/README.md with a limit that is no constant -> the test that holds it.
    "128 KiB | behind": f"{WIRE}::test_client_128_kib_behind_is_not_dropped",
    "No delivery is later than 1 s": "tests/contract/test_contract.py::test_flooder_starves_nobody",
    "no more than 15 % of a CPU": f"{RESOURCES}::test_accept_fails_all_the_same",
    "the process ends within 2 s": "tests/contract/test_process.py::test_stops_within_two_seconds",
    "a burst of 500 connects": "tests/contract/test_contract.py::test_five_hundred_connect_at_once",
    "500 idle clients cost no": "tests/contract/test_resources.py::test_idle_clients_cost_nothing",
}
EXCEPT: dict[str, str] = {
    # A snippet of a page that is no claim about this project -> why.
}
PATTERNS = (
    *("README.md", "stages/*.md", "stages/v*/README.md", "lowlevel/README.md"),
    *("profiling/README.md", "stages/v*/server.py", "lowlevel/*.py"),
)
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
HELP = """
To prove a number, name in the same paragraph its constant (`NAME`), its test
(`tests/file.py::test_name`) or its file of results; let it be generated; or do without it. A limit
of the contract that is no constant needs its test in CONTRACT of tests/text/test_claims.py. The
docstrings of tests/text/claims.py and tests/text/proofs.py have the rules.
"""


@functools.lru_cache(maxsize=None)
def checked() -> tuple[Proofs, dict[Path, list[str]]]:
    """The proofs, after all pages have been held against them, and what is unproven in each."""
    proofs = Proofs(ROOT, EXPECTED, CONTRACT, EXCEPT)
    return proofs, {path: proofs.unproven(path, path.read_text()) for path in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_is_proven(path: Path) -> None:
    unproven = checked()[1][path]
    if unproven:
        pytest.fail("\n".join(["claims without a proof:", *unproven, HELP]), pytrace=False)


def test_tables_hold_nothing_that_is_not_needed() -> None:
    assert {*CONTRACT, *EXCEPT} - checked()[0].used == set(), "no page says this any more"


# The collector.


def collected(text: str, name: str = "page.md") -> list[str]:
    return [claim.text for claim in claims(Path(name), text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("between 4 and 6\nµs, 4\u20136 ms, 20ms", ["4 and 6 µs", "4\u20136 ms", "20ms"]),
        ("`64` KiB or 65,536 bytes", ["64` KiB", "65,536 bytes"]),
        ("15 % of a CPU, 15% of it, 15 per cent", ["15 %", "15%", "15 per cent"]),
        ("three times, 1.2 times, 3x", ["three times", "1.2 times", "3x"]),
        ("twice as long in half the time, doubled", ["twice", "half", "doubled"]),
        ("Two clients, three calls", ["Two clients", "three calls"]),
        ("500 idle clients, a dozen calls", ["500 idle clients", "dozen calls"]),
        ("two of its threads, a two-core machine", ["two of its threads", "two-core"]),
        ("three system calls, 2 `epoll_wait`", ["three system calls", "2 `epoll_wait"]),
        ("10, 100 and 1000 clients", ["10, 100 and 1000 clients"]),
        ("fifteen thousand or thirty-two bytes", ["fifteen thousand or thirty-two bytes"]),
        ("the last 16\n(`RESERVE`)", ["16 (`RESERVE`)"]),
        ("FD_SETSIZE, 1024; `BACKLOG` (500)", ["FD_SETSIZE, 1024", "`BACKLOG` (500"]),
        ("no descriptor from 1024 on; a limit of 80", ["descriptor from 1024", "limit of 80"]),
        ("1 `recvfrom` + (N-1) `sendto`", ["1 `recvfrom", "(N-1) `sendto"]),
        ("N - 1 sends, M·(N-1) in all", ["N - 1 sends", "M·(N-1)"]),
        ("N + 1, 2 N + 4 or 3 N", ["N + 1", "2 N + 4", "3 N"]),
        ("| a | KiB |\n|---|---|\n| 7 | 0.64 (0.5-0.7) |", ["0.64 (0.5-0.7)"]),
        ("- 2 s\n- 3 s\n\n# 4 s", ["2 s", "3 s", "4 s"]),
    ],
)
def test_claims_are_found(text: str, found: list[str]) -> None:
    assert collected(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "v3 clients, `v3` and v4 messages, epoll-et",
        "epoll(7) waits, select(2) calls, `recv(16384)`",
        "UTF-8 lines, IPv6 clients, 0x1f bytes",
        "127.0.0.1:8080 clients, port 8080, at 22:13",
        "tests/contract/test_limits.py::test_1100_clients",
        "exit status 1, `MALLOC_MMAP_THRESHOLD_=131072` bytes, x=3 calls",
        "one client, a line, no call, the first message, half a line",
        "two other terminals, in two others",
        "```\n5 ms\n```",
        "<!-- 5 ms -->",
        "<!-- begin: cost v3 -->\n| 5 ms |\n<!-- end -->",
        "It takes <!-- value: a/b -->5<!-- end --> ms, <!-- value: a -->5 ms<!-- end -->.",
        "[it](5-ms), https://example.org/5-ms",
        "1. wait\n2. reads",
    ],
)
def test_what_is_no_claim_is_not_found(text: str) -> None:
    assert collected(text) == []


def test_claims_of_a_docstring_have_their_line_and_their_field() -> None:
    header = "v9: a server of 3 lines.\n\nCost: 1 select\n    + 2 write.\nBreaks: after\n    4 s.\n"
    found = list(claims(Path("server.py"), f'# 5 ms\n"""{header}"""\nSIZE = 1  # 6 bytes\n'))
    assert [(claim.text, claim.line, claim.block.text.strip()[:5]) for claim in found] == [
        ("3 lines", 2, "v9: a"),
        ("1 select", 4, "Cost:"),
        ("2 write", 5, "Cost:"),
        ("4 s", 7, "Break"),
    ]


# The proofs, in a small project.

FILES = {
    "stages/README.md": "It ends within 2 s. `ROOM` is 64 KiB.",
    "stages/v1/server.py": '"""v1: 1 recvfrom + 1 write."""\nROOM = 1 << 16\nPAUSE = 0.2\n',
    "stages/v3/server.py": '"""v3: 1 select + (N-1) sendto."""\nROOM = 1 << 16\nMANY = 3\n',
    "lowlevel/room.py": "MANY = 4\n",
    "tests/support/wire.py": "PROMPTLY = 1.0\n",
    "tests/contract/test_syscalls.py": "EXPECTED = {}\n",
    "tests/test_it.py": '''
from tests.support.wire import PROMPTLY
CPU = 0.15
LIMIT = 2.0
@decorated(40, reason="666 clients")
def test_it():
    """Of 777 clients."""
    assert took < LIMIT, "no longer than 888 s"
    assert share < CPU and late < PROMPTLY
    join(500, "60"); pick[123]
    assert grown() < 128 << 10
def test_kib():
    assert kib() < 9
''',
    "benchmarks/results/table.md": """# Time, µs

At 2026-11-22 20:59 UTC, on 2 x CPU.

Never less than 30 µs.

| server | cost |
|---|---|
| `v1` | 4.24 (4.12-4.62) |
| `v3` | 7.77 |

# Memory, KiB

| `v1` | 8.08 |
""",
    "profiling/results/syscalls.md": "v3: N + 1",
}


@pytest.fixture
def proofs(tmp_path: Path) -> Proofs:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = {
        "v1": lambda n: {"recvfrom": 1, "write": 1},
        "v3": lambda n: {"select": 1, "recvfrom": 1, "sendto": n - 1},
    }
    return Proofs(tmp_path, expected, {"within 2 s": "tests/test_it.py::test_it"}, {})


def unproven(proofs: Proofs, text: str, name: str = "README.md") -> list[str]:
    return proofs.unproven(proofs.root / name, text)


def changed(text: str) -> str:
    """The same with another number in its first claim."""
    first = next(claims(Path("page.md"), text)).text
    other = re.sub(r"\d+", lambda digits: str(int(digits[0]) + 3), first, count=1)
    return text.replace(first, other)


@pytest.mark.parametrize(
    "text",
    [
        # A constant, in the unit of the claim.
        "There is room for 64 KiB (`ROOM`).",
        "It pauses for 200 ms, `PAUSE`.",
        "the last 65,536 (`ROOM`) and `PAUSE`",
        "| `ROOM` | x |\n|---|---|\n| 64 KiB | x |",
        # A limit of the contract.
        "It ends within 2 s, see [the contract](stages/README.md).",
        # A test.
        "500 clients (`tests/test_it.py::test_it`)",
        "60 s, [tests/test_it.py::test_it](tests/test_it.py), and of a decorator 40 s",
        "`tests/test_it.py::test_it` sees 15 % of a CPU, and 1 s.",
        "128 KiB (`tests/test_it.py::test_it`)",
        "9 KiB (`tests/test_it.py::test_kib`)",
        # A file of results, to the digits given.
        "30 µs ([results](benchmarks/results/table.md))",
        "v1 needs 4.2 µs, as benchmarks/results/table.md says.",
        "v1 needs 4.1 to 4.6 µs (`benchmarks/results/table.md`).",
        "`v1` takes 8.1 KiB, benchmarks/results/table.md",
        # The counts of calls.
        "v3 makes 1 `select` + (N-1) `sendto` (`tests/contract/test_syscalls.py`).",
        "v3 makes N - 1 sends and N +\n1 calls, see profiling/results/syscalls.md.",
        "`v1` makes 2 calls: tests/contract/test_syscalls.py",
    ],
)
def test_proof_holds_until_the_number_is_changed(proofs: Proofs, text: str) -> None:
    assert unproven(proofs, text) == []
    assert changed(text) != text
    assert len(unproven(proofs, changed(text))) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("There is room for 64 KiB.", "nothing is named"),
        ("- `ROOM`\n- 64 KiB", "nothing is named"),
        ("There is room for 64 KiB, `PAUSE`.", "64 does not stand in PAUSE (0.2)"),
        ("3 clients (`MANY`)", "MANY (3 or 4)"),
        ("It ends within 2 s.", "nothing is named"),
        ("It ends within 3 s: [the contract](stages/README.md).", "stages/README.md"),
        ("5 clients, `tests/test_it.py::test_gone`", "tests/test_it.py::test_gone"),
        ("500 clients, `tests/test_it.py`", "nothing is named"),
        *((f"{n} s, `tests/test_it.py::test_it`", f"{n} does") for n in (666, 777, 888, 123, 10)),
        ("40 KiB, `tests/test_it.py::test_it`", "40 does not stand in tests/test_it.py::test_it"),
        ("v3 needs 4.24 µs, benchmarks/results/table.md", "benchmarks/results/table.md"),
        ("4.24 µs, of whom? benchmarks/results/table.md", "benchmarks/results/table.md"),
        ("`v1`: 4.24 KiB, benchmarks/results/table.md", "benchmarks/results/table.md"),
        ("20 µs, benchmarks/results/table.md", "benchmarks/results/table.md"),
        ("v1: N - 1 sends, profiling/results/syscalls.md", "v1's calls"),
        ("N - 1 sends", "nothing is named"),
    ],
)
def test_what_is_no_proof_is_told(proofs: Proofs, text: str, told: str) -> None:
    [failure] = unproven(proofs, text)
    assert failure.startswith("README.md:")
    assert told in failure


def test_counts_of_a_docstring_are_those_of_its_server(proofs: Proofs) -> None:
    for server in ("v1", "v3"):
        name = f"stages/{server}/server.py"
        assert unproven(proofs, FILES[name], name) == []
    [failure] = unproven(proofs, FILES["stages/v1/server.py"], "stages/v3/server.py")
    assert "v3's calls" in failure


def test_contract_needs_constants_or_tests(proofs: Proofs) -> None:
    contract = FILES["stages/README.md"]
    assert unproven(proofs, contract, "stages/README.md") == []
    assert proofs.used == {"within 2 s"}
    for old, new in (("2 s", "3 s"), ("64 KiB", "63 KiB")):
        assert len(unproven(proofs, contract.replace(old, new), "stages/README.md")) == 1
    path = proofs.root / "tests" / "test_other.py"
    path.write_text(FILES["tests/test_it.py"].replace("LIMIT = 2.0", "LIMIT = 4.0"))
    other = Proofs(proofs.root, {}, {"within 2 s": "tests/test_other.py::test_it"}, {})
    assert len(unproven(other, contract, "stages/README.md")) == 1, "the test holds another limit"


def test_exceptions_are_for_a_snippet_and_noted(proofs: Proofs) -> None:
    proofs = Proofs(proofs.root, {}, {}, {"say two lines": "the reader does"})
    assert unproven(proofs, "Now say two\nlines.") == []
    assert proofs.used == {"say two lines"}
    assert len(unproven(proofs, "It says two lines.")) == 1
