"""Numbers in prose: each is generated, or claims.txt names the constant or the test that holds it.

Prose is a page without what is generated, its blocks of code and where its links lead; of a module
it is the docstring at the top. A number in it is whatever has a digit and is no name (NAMES), or a
word for one before a unit. claims.txt has, below the page that it is for, a line for each:

    what the page says <- NAME                  a constant, of that value wherever a server has it
    what the page says <- FILE literal          what stands in that file
    what the page says <- FILE::TEST literal    what stands in that test
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.files import ROOT

SERVERS = [*ROOT.glob("stages/v*/server.py"), *ROOT.glob("lowlevel/*.py")]
FOLDERS = ("", "stages/", "stages/v*/", "lowlevel/", "profiling/")
PAGES = [*SERVERS, *(path for folder in FOLDERS for path in ROOT.glob(f"{folder}*.md"))]
LEFT_OUT = r"""(?msx) <!--\ \[\[\[cog.*?\[\[\[end\]\]\]\ --> | <!--\ value:.*?<!--\ end\ -->
    | <!--.*?--> | ^[ ]*```.*?^[ ]*``` | \]\([^)]*\) | ^[#]+\ \d+\. """
NAMES = r"""(?x) \bv[1-5]\b | \bpython3\b | \bPython\ 3\.1[25]\b | \bUTF-8\b | \bIPv[46]\b | ::1\b
    | \bU\+FFFD\b | \bpselect6\b | \bPEP\ 475\b | --looks\ 0\b | \b127\.0\.0\.1\b | \bstrace\(1\)
    | \b(?:lock-step|flood)\ 10{1,3}\b | \b(?:sigwait|mallopt)\(3\) | \b(?:epoll|tcp)\(7\)
    | \b(?!epoll\(|mallopt|sigwait)[a-z_]{4,}\(2\)
    | [\w./-]+\.(?:py|md|patch)(?:::\w+)? | \btest_\w+"""
NUMBER = r"""(?ix) \S*\d\S* | \b(?:(?:two|three|four|five|six|seven|eight|nine|ten|dozen|hundred)
    (?:\ [a-z]+)?\ (?:times|seconds?|minutes|bytes|[km]ib|per\ ?cent|calls|sends|waits|reads|writes
    |clients|threads|messages|lines|deliveries|descriptors|turns|rounds)|twice|double[sd]?|halve[sd]?
    |half\ (?:of|the|as)|an?\ (?:third|quarter|tenth)\ of)\b"""
UNITS = {"": 1.0, "%": 0.01, "ms": 1e-3, "s": 1.0, "KiB": 2.0**10, "MiB": 2.0**20}


class Claim(NamedTuple):
    page: str
    text: str
    holder: str
    literal: str


def claims() -> Iterator[Claim]:
    page = ""
    for line in filter(None, Path(__file__).with_name("claims.txt").read_text("utf-8").split("\n")):
        text, arrow, holder = line.partition(" <- ")
        page = page if arrow else text
        if arrow:
            yield Claim(page, text, *holder.partition(" ")[::2])


def prose(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    return " ".join(re.sub(LEFT_OUT, " … ", text).split())


def unheld(text: str, held: list[Claim]) -> list[str]:
    """What is wrong with prose: claims that it no longer makes, and numbers that nothing holds."""
    wrong = [f"is not said: {claim.text!r}" for claim in held if claim.text not in text]
    for claim in held:
        text = text.replace(claim.text, "…")
    text = re.sub(NAMES, "…", text)
    numbers = (text[max(0, m.start() - 40) : m.end() + 40] for m in re.finditer(NUMBER, text))
    return [*wrong, *(f"nothing holds {number!r}" for number in numbers)]


def holds(claim: Claim) -> bool:
    """Whether what a claim names says the same."""
    if claim.literal:
        path, _, test = claim.holder.partition("::")
        text = (ROOT / path).read_text("utf-8")
        if test:
            node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == test)
            decorators = getattr(node, "decorator_list", [])
            first = min(n.lineno for n in [node, *decorators])
            text = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
        return claim.literal in text
    match = re.search(r"([\d,.]*\d) ?(%|[KM]iB|ms|s)?\b", claim.text)
    value = float(match[1].replace(",", "")) * UNITS[match[2] or ""] if match else None
    definition = re.compile(rf"^{claim.holder} = ([\d. <]+)", re.MULTILINE)
    return {value} == {eval(v) for path in SERVERS for v in definition.findall(path.read_text())}
