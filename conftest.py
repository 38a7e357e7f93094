"""How one call of pytest runs: side by side what can, then alone what measures.

With pytest-xdist the tests are shared out among one process more than there are CPUs, for they wait
more than they compute; those marked `alone` run after them, one by one, in the process that was
called. `-n 0`, `-p no:xdist` and a pytest without xdist run all of them one by one; so do
`--benchmark-only`, and a test that is named by its id.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from benchmarks.harness.process import descriptor_limit_raised

RARE = ("long", "container", "unsteady")
"""Marks of tests that run only when `-m` names them."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("xdist"):  # setup.cfg has options of its
        group = parser.getgroup("sock_chat")
        for option in ("--numprocesses", "--dist"):
            group.addoption(
                option, dest="no_xdist", help="without effect: there is no pytest-xdist"
            )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    one_by_one = config.getoption("benchmark_only", False) or any("::" in x for x in config.args)
    return 0 if one_by_one else len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    # What a test starts is no worker, and pytest-benchmark would take it for one.
    os.environ.pop("PYTEST_XDIST_WORKER", None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    benchmarks = config.getoption("benchmark_only", False)
    rare = [mark for mark in RARE if mark not in config.getoption("markexpr")]

    def wanted(item: pytest.Item) -> bool:
        return benchmarks == ("benchmark" in getattr(item, "fixturenames", ())) and (
            not any(item.get_closest_marker(mark) for mark in rare)
        )

    def runs_here(item: pytest.Item) -> bool:
        return ("alone" in item.keywords) != hasattr(config, "workerinput")

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item) and (not shared(config) or runs_here(item))]
    if shared(config):
        items.reverse()  # the tests of the tools are the longest, and those of the contract many


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> Iterator[None]:
    with descriptor_limit_raised():
        yield


def shared(config: pytest.Config) -> bool:
    """Whether the tests of this call are shared out among processes."""
    return hasattr(config, "workerinput") or (
        config.getoption("dist", "no") not in ("no", None) and not config.option.collectonly
    )


# The process that was called collects, too, for what runs alone in it and for the counts.


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    result = yield
    if shared(session.config) and not hasattr(session.config, "workerinput"):
        session.perform_collect()
        if session.testsfailed:
            raise session.Interrupted("errors during collection")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    result = yield
    if shared(session.config) and not hasattr(session.config, "workerinput"):
        session.testscollected += len(session.items)
        for item, following in zip(session.items, [*session.items[1:], None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
    return result
