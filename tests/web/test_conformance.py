"""WebSocket as the Autobahn suite understands it: its cases, run by kosoku against a server that
sends back what it gets (`echo`). Those about compression are left out: v5 has none."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
import uvloop

from tests.web.echo import serve

kosoku = pytest.importorskip("kosoku")

COMPRESSION = ["12.*", "13.*"]
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """kosoku brings a pkg_resources of its own, which pytest would take for setuptools'."""
    path = sys.path.copy()
    yield
    sys.path[:] = path
    sys.modules.pop("pkg_resources", None)


async def results(cases: Sequence[str] | None) -> Counter[str]:
    """How many cases came to which end. Raises FailureError, which names those that failed."""
    server = await serve()
    port = server.sockets[0].getsockname()[1]
    url = f"ws://127.0.0.1:{port}"
    done = await kosoku.run_fuzzingclient(url, cases, COMPRESSION, concurrency=4)
    server.close()
    return Counter(case.behavior.value for case in done)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("cases", "count"),
    [(["1.1.*", "2.*", "3.*", "4.*", "7.*"], 73), pytest.param(None, 301, marks=pytest.mark.long)],
    ids=["quick", "whole"],
)
def test_no_case_fails(
    loop: str, cases: list[str] | None, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(LOOPS[loop]()) as new_loop:
        ends = new_loop.run_until_complete(results(cases))
    with capsys.disabled():
        print(f"\nAutobahn, {loop}: {dict(ends)}")
    assert ends.total() == count
    assert not set(ends) - {"OK", "NON-STRICT", "INFORMATIONAL"}
