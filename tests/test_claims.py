"""No number in prose without a proof: what the pages claim stands in the code, in the contract, in
a test or in a file of results.

Pages are the README files of the project, its stages, lowlevel/ and profiling/, the exercises, and
the docstrings at the top of stages/v*/server.py and lowlevel/*.py. Left out is what is generated
(from `<!-- begin: ... -->` or `<!-- value: ... -->` to `<!-- end -->`), blocks of code, comments,
and where links lead.

A claim is
- a number with a unit of time, bytes, frequency or share (%), or with `times`, `x`, `-fold`;
- a number of what is counted here: calls (also by name, `sendto`), sends, receives, waits, reads,
  writes, accepts, connects, wakeups, switches, turns, rounds, clients, connections, newcomers,
  visitors, senders, readers, threads, processes, tasks, coroutines, cores, CPUs, descriptors,
  sockets, messages, lines, deliveries, segments, packets, events, copies, bits, characters,
  samples, tests; up to two words may stand between: 500 idle clients;
- `twice`, `doubled`, `half the`, `a third of`, `3:1`;
- a formula in N, with its calls or without: `2 epoll_wait + (N-1) sendto`, `N + 1`;
- a number beside the name of a constant, 16 (`RESERVE`); `descriptor 1024`; `limit of 1024`.
Digits are numbers, and words from two on; one is none. A part of a name is none either: `v3`,
`UTF-8`, `epoll(7)`, 127.0.0.1, Python 3.8. Of a range or a list each number is claimed. In a table
a bare number has the unit that the head of its column names.

A claim is proven where it stands: in its paragraph, its item of a list, its row of a table (or in
the head of that), its field of a docstring. It is, when one of these is named there and agrees:
- a constant, in backticks, in the claim's unit: 64 KiB is 1 << 16. If modules differ in its value,
  the nearest counts: one that is named, one in the page's folder, the servers';
- a test, as `tests/file.py::test_name` or as a link with that name, that works with the number: in
  its body, its decorators or a constant that it uses, not in its docstring or a message; in the
  base unit (bytes, s, a share of 1), or in the claim's own if the test's source speaks of that. Of
  benchmarks/ a whole module will do;
- a file under benchmarks/results/ or profiling/results/ that has the number, rounded to the
  decimals given (.json: exactly), where the file speaks of that unit; when the paragraph names
  servers or others that the file has rows about, then there, or on a line about none;
- for counts of calls, tests/test_syscalls.py or profiling/results/syscalls.md, which must have the
  same formula for a server that the paragraph names, or that the page is about. A docstring needs
  no reference for its own servers' formula.
And on a page that links to the contract, stages/README.md, whatever number and unit that names as
a limit (no ratio). The contract's own claims are constants, or stand in CONTRACT below with the
test that works with them. What claims nothing about this project stands in EXCEPT, with the reason.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

from benchmarks.harness import ROOT
from tests.claims import Page, Proofs, claims
from tests.test_syscalls import EXPECTED

CONTRACT = {
    # A snippet of stages/README.md with a limit that is no constant -> the test that holds it.
    "128 KiB | behind": "tests/test_contract.py::test_client_128_kib_behind_is_not_dropped",
    "No delivery is later than 1 s": "tests/test_contract.py::test_flooder_starves_nobody",
    "no more than 15 % of a CPU": "tests/test_resources.py::test_accept_fails_all_the_same",
    "the process ends within 2 s": "tests/test_process.py::test_stops_within_two_seconds",
    "a burst of 500 connects": "tests/test_contract.py::test_five_hundred_connect_at_once",
    "500 idle clients cost no": "tests/test_resources.py::test_idle_clients_cost_nothing",
}
EXCEPT: dict[str, str] = {
    # A snippet of a page that is no claim about this project -> why.
}
PAGES = sorted(
    {
        *(ROOT / name for name in ("README.md", "stages/README.md", "stages/exercises.md")),
        *ROOT.glob("stages/v*/README.md"),
        *(ROOT / folder / "README.md" for folder in ("lowlevel", "profiling")),
        *ROOT.glob("stages/v*/server.py"),
        *ROOT.glob("lowlevel/*.py"),
    }
)
HELP = """
To prove a number, name in the same paragraph its constant (`NAME`), its test
(`tests/file.py::test_name`) or its file of results; let it be generated; or do without it. The
docstring of tests/test_claims.py has the rules.
"""


@functools.lru_cache(maxsize=None)
def checked() -> tuple[Proofs, dict[Path, list[str]]]:
    """The proofs, after all pages have been held against them, and what is unproven in each."""
    proofs = Proofs(ROOT, EXPECTED, CONTRACT, EXCEPT)
    pages = [Page(path, path.read_text()) for path in PAGES if path.is_file()]
    return proofs, {page.path: proofs.unproven(page) for page in pages}


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.is_file()], ids=lambda path: str(path.relative_to(ROOT))
)
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
        ("A send takes 4 to 6 µs.", ["4 to 6 µs"]),
        ("between 4 and 6\nµs", ["4 and 6 µs"]),
        ("4\u20136 ms, then 20ms", ["4\u20136 ms", "20ms"]),
        ("64 KiB, 65,536 bytes or 1 << 16 bytes", ["64 KiB", "65,536 bytes", "1 << 16 bytes"]),
        ("`64` KiB", ["64` KiB"]),
        ("one wait and 2 `epoll_wait`", ["2 `epoll_wait`"]),
        ("15 % of a CPU, 15% of it, 15 per cent", ["15 %", "15%", "15 per cent"]),
        ("three times longer", ["three times"]),
        ("1.2 times, 3x, tenfold", ["1.2 times", "3x", "tenfold"]),
        ("twice as long in half the time", ["twice", "half"]),
        ("two thirds of it", ["two thirds"]),
        ("a ratio of 3:1", ["3:1"]),
        ("500 idle clients, a dozen calls", ["500 idle clients", "a dozen calls"]),
        ("two of its threads", ["two of its threads"]),
        ("three system calls", ["three system calls"]),
        ("10, 100 and 1000 clients", ["10, 100 and 1000 clients"]),
        ("fifteen thousand clients", ["fifteen thousand clients"]),
        ("thirty-two bytes", ["thirty-two bytes"]),
        ("a two-core machine", ["two-core"]),
        ("It is read in 20 minutes.", ["20 minutes"]),
        ("the last 16\n(`RESERVE`)", ["16 (`RESERVE`)"]),
        ("`FD_SETSIZE`, 1024; `BACKLOG` (1024)", ["`FD_SETSIZE`, 1024", "`BACKLOG` (1024"]),
        ("descriptor 1024 does not fit", ["descriptor 1024"]),
        ("a limit of 1024", ["limit of 1024"]),
        ("1 `recvfrom` + (N-1) `sendto`", ["1 `recvfrom` + (N-1) `sendto`"]),
        ("N - 1 sends, M·(N-1) in all", ["N - 1 sends", "M·(N-1)"]),
        ("N + 1, 2 N + 4 or 3 N", ["N + 1", "2 N + 4", "3 N"]),
        ("| a | KiB |\n|---|---|\n| x | 0.64 (0.5-0.7) |", ["0.64 (0.5-0.7)"]),
        ("| a | b |\n|---|---|\n| x | 7 |", []),
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
        "Python 3.8 reads it; Linux 5.4 sends, version 2 tests",
        "127.0.0.1:8080 clients, port 8080, at 22:13",
        "tests/test_limits.py::test_1100_clients",
        "exit status 1, `MALLOC_MMAP_THRESHOLD_=131072` bytes, x=3 calls",
        "one client, a line, no call, the first message, half a line",
        "two other terminals, in two others",
        "N clients, M messages, the first two send nothing",
        "2 x AMD EPYC",
        "```\n5 ms\n```",
        "text\n\n    5 ms of code\n\ntext",
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
    text = f'# 5 ms\n"""{header}"""\nSIZE = 1  # 6 bytes\n'
    found = list(claims(Path("server.py"), text))
    assert [(claim.text, claim.line) for claim in found] == [
        ("3 lines", 2),
        ("1 select + 2 write", 4),
        ("4 s", 7),
    ]
    assert [claim.block.refs.strip()[:5] for claim in found] == ["v9: a", "Cost:", "Break"]


def test_sentence_is_told() -> None:
    [claim] = claims(Path("page.md"), "First. It takes\n4 s when idle. Last.")
    assert claim.sentence == "It takes 4 s when idle."


# The proofs, in a small project.

FILES = {
    "stages/README.md": "It ends within 2 s. `ROOM` is 64 KiB, `ROOM` twice.",
    "stages/v1/server.py": '"""v1: 1 recvfrom + 1 write."""\nROOM = 1 << 16\nPAUSE = 0.2\n',
    "stages/v3/server.py": '"""v3: 1 select + (N-1) sendto."""\nROOM = 1 << 16\nMANY = 3\n',
    "lowlevel/room.py": "MANY = 4\n",
    "benchmarks/test_speed.py": "ROUNDS = 30\n",
    "tests/wire.py": "PROMPTLY = 1.0\n",
    "tests/test_syscalls.py": "EXPECTED = {}\n",
    "tests/test_it.py": '''
from tests.wire import PROMPTLY
CPU = 0.15
LIMIT = 2.0
@decorated(40)
def test_it():
    """Of 777 clients."""
    assert took < LIMIT, "no longer than 888 s"
    assert share < CPU and late < PROMPTLY
    join(500, "60"); fail("999 clients"); pick[123]
    assert grown() < 128 << 10
def test_kib():
    assert kib() < 9
''',
    "benchmarks/results/table.md": """# Time, µs

| server | cost |
|---|---|
| `v1` | 4.24 (4.12-4.62) |
| `v3` | 7.77 |

# Memory, KiB

| `v1` | 8.08 |
""",
    "benchmarks/results/table.json": '{"cost": 4.24}',
    "profiling/results/syscalls.json": json.dumps(
        {
            "servers": {
                "v1": {"formula": {"recvfrom": "1", "write": "1"}},
                "v3": {"formula": {"select": "1", "recvfrom": "1", "sendto": "N - 1"}},
                "go": {"formula": {"read": None}},
            }
        }
    ),
    "profiling/results/syscalls.md": "v3: N + 1",
}


@pytest.fixture
def proofs(tmp_path: Path) -> Proofs:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = {"v3": lambda n: {"select": 1, "recvfrom": 1, "sendto": n - 1}}
    return Proofs(tmp_path, expected, {"within 2 s": "tests/test_it.py::test_it"}, {})


def unproven(proofs: Proofs, text: str, name: str = "README.md") -> list[str]:
    return proofs.unproven(Page(proofs.root / name, text))


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
        "There is room for 65,536 bytes: `ROOM`.",
        "It pauses for 200 ms, `PAUSE`.",
        "the last 65,536 (`ROOM`) and `PAUSE`",
        "4 clients (`MANY`), see `lowlevel/room.py`",
        "Rows:\n\n| `ROOM` | x |\n|---|---|\n| 64 KiB | x |",
        # A limit of the contract.
        "It ends within 2 s.\n\nSee [the contract](stages/README.md).",
        # A test.
        "500 clients (`tests/test_it.py::test_it`)",
        "60 clients, `tests/test_it.py::test_it`",
        "40 clients, [tests/test_it.py::test_it](tests/test_it.py)",
        "40 clients: [test_it](tests/test_it.py)",
        "[`test_it`](tests/test_it.py) sees 15 % of a CPU.",
        "It takes 1 s: `tests/test_it.py::test_it`",
        "128 KiB (`tests/test_it.py::test_it`)",
        "9 KiB (`tests/test_it.py::test_kib`)",
        "30 rounds (`benchmarks/test_speed.py`)",
        # A file of results, to the digits given.
        "4.24 µs ([results](benchmarks/results/table.md))",
        "v1 needs 4.2 µs, as benchmarks/results/table.md says.",
        "It needs 4.1 to 4.6 µs (`benchmarks/results/table.md`).",
        "`v1` takes 8.1 KiB, benchmarks/results/table.md",
        "4.24 µs, benchmarks/results/table.json",
        # The formulas.
        "v3 makes 1 `select` + (N-1) `sendto` (`tests/test_syscalls.py`).",
        "v3 makes N - 1 sends and N + 1 calls, see profiling/results/syscalls.md.",
        "It makes 1 `select`: v3, profiling/results/syscalls.json",
    ],
)
def test_proof_holds_until_the_number_is_changed(proofs: Proofs, text: str) -> None:
    assert unproven(proofs, text) == []
    assert changed(text) != text
    assert len(unproven(proofs, changed(text))) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("There is room for 64 KiB.", "`ROOM`"),
        ("`ROOM`\n\n64 KiB", "that is `ROOM`"),
        ("- `ROOM`\n- 64 KiB", "that is `ROOM`"),
        ("There is room for 64 KiB, `PAUSE`.", "`PAUSE` is 0.2"),
        ("3 clients (`MANY`)", "`MANY` is not the same in all modules"),
        ("It ends within 2 s.", "has this limit, but this page has no link"),
        ("twice, by [the contract](stages/README.md)", "nothing is named"),
        ("5 clients, `tests/test_it.py::test_gone`", "there is no tests/test_it.py::test_gone"),
        ("5 clients, `tests/test_gone.py::test_it`", "there is no tests/test_gone.py::test_it"),
        ("500 clients, `tests/test_it.py`", "nothing is named"),
        ("777 clients, `tests/test_it.py::test_it`", "does not work with 777"),
        ("888 s, `tests/test_it.py::test_it`", "does not work with 888"),
        ("999 clients, `tests/test_it.py::test_it`", "does not work with 999"),
        ("123 clients, `tests/test_it.py::test_it`", "does not work with 123"),
        ("10 clients, `tests/test_it.py::test_it`", "does not work with 10"),
        ("40 KiB, `tests/test_it.py::test_it`", "does not work with 40"),
        ("v3 needs 4.24 µs, benchmarks/results/table.md", "does not have 4.24 beside v3"),
        ("4.24 KiB, benchmarks/results/table.md", "does not have 4.24"),
        ("4.2 µs, benchmarks/results/table.json", "does not have 4.2"),
        ("v1: N - 1 sends, profiling/results/syscalls.md", "another formula for v1"),
        ("N - 1 sends", "nothing is named"),
    ],
)
def test_what_is_no_proof_is_told(proofs: Proofs, text: str, told: str) -> None:
    [failure] = unproven(proofs, text)
    assert failure.startswith("README.md:")
    assert told in failure


def test_formula_of_a_docstring_is_that_of_its_server(proofs: Proofs) -> None:
    for server in ("v1", "v3"):
        name = f"stages/{server}/server.py"
        assert unproven(proofs, FILES[name], name) == []
    wrong = FILES["stages/v3/server.py"].replace("1 select", "2 select")
    [failure] = unproven(proofs, wrong, "stages/v3/server.py")
    assert "another formula for v3" in failure


def test_contract_needs_constants_or_tests(proofs: Proofs) -> None:
    contract = FILES["stages/README.md"]
    [ratio] = unproven(proofs, contract, "stages/README.md")
    assert "'twice'" in ratio and "CONTRACT" in ratio
    assert proofs.used == {"within 2 s"}
    for old, new in (("2 s", "3 s"), ("64 KiB", "63 KiB")):
        assert len(unproven(proofs, contract.replace(old, new), "stages/README.md")) == 2
    path = proofs.root / "tests" / "test_other.py"
    path.write_text(FILES["tests/test_it.py"].replace("LIMIT = 2.0", "LIMIT = 4.0"))
    other = Proofs(proofs.root, {}, {"within 2 s": "tests/test_other.py::test_it"}, {})
    assert len(unproven(other, contract, "stages/README.md")) == 2, "the test holds another limit"


def test_exceptions_are_for_a_snippet_and_noted(proofs: Proofs) -> None:
    proofs = Proofs(proofs.root, {}, {}, {"say two lines": "the reader does"})
    assert unproven(proofs, "Now say two\nlines.") == []
    assert proofs.used == {"say two lines"}
    assert len(unproven(proofs, "It says two lines.")) == 1
