"""No number in prose without something that holds it: claims.txt, and the rules in claims.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from tests.text.claims import NAMES, PAGES, Claim, claims, holds, prose, unheld

CLAIMS = list(claims())
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def held_on(path: Path) -> list[Claim]:
    return [claim for claim in CLAIMS if ROOT / claim.page == path]


@each_page
def test_every_number_is_held(path: Path) -> None:
    assert unheld(prose(path), held_on(path)) == [], "see tests/text/claims.py"


@each_page
def test_a_changed_digit_is_noticed(path: Path) -> None:
    """Each in its turn, but for those of names."""
    text, held = prose(path), held_on(path)
    numbers = re.sub(NAMES, lambda name: "-" * len(name[0]), text)
    for digit in re.finditer(r"\d", numbers, re.ASCII):
        changed = text[: digit.start()] + str(9 - int(digit[0])) + text[digit.end() :]
        assert unheld(changed, held), changed[max(0, digit.start() - 40) : digit.end() + 40]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page}: {claim.text}")
def test_what_a_claim_names_says_the_same(claim: Claim) -> None:
    assert (ROOT / claim.page) in PAGES
    assert holds(claim), claim


@pytest.mark.parametrize(
    ("holder", "literal"),
    [
        ("LOW_WATER", ""),  # 64 KiB
        ("NOWHERE", ""),
        ("tests/support/wire.py", "HIGH_WATER = 1 << 21"),
        ("tests/contract/test_resources.py::test_full_of_descriptors", "range(500)"),
    ],
)
def test_what_does_not_hold_a_number(holder: str, literal: str) -> None:
    assert not holds(Claim("README.md", "1 MiB", holder, literal))


NUMBERS = [
    *("4 µs", "64KiB", "`15`%", "3x", "-1", "descriptor 1024", "N - 1 sends", "2 (N - 1)", "v6"),
    *("three times", "two more calls", "twice", "half as long", "Python 3.7", "epoll(2)/4"),
]
OTHERS = ["v3, IPv4", "epoll(7)", "two terminals", "half a line", "tests/a.py::test_1", "a second"]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_are_seen(text: str) -> None:
    assert unheld(f"It is {text}, so.", [])
    assert unheld(f"It is {text}, so.", [Claim("", text, "", "")]) == []


@pytest.mark.parametrize("text", OTHERS)
def test_names_are_no_numbers(text: str) -> None:
    assert unheld(f"It is {text}, so.", []) == []


def test_what_is_generated_is_no_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "## 1. Heading\n<!-- 5 ms -->\n<!-- [[[cog print(7) ]]] -->\n5 ms\n<!-- [[[end]]] -->\n"
        "It takes <!-- value: cpu(5) -->5 ms<!-- end -->, [x](5.md).\n```sh\n5 ms\n```\n"
    )
    assert not re.search(r"\d", prose(page))
    module = tmp_path / "module.py"
    module.write_text('"""It takes 5 ms."""\nCOUNT = 6\n')
    assert prose(module) == "It takes 5 ms."
