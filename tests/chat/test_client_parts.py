"""What is typed, framed and waited for: the client's parts that know nothing of each other."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sock_chat.client.backoff import LONGEST, SHORTEST, STABLE, Backoff
from sock_chat.client.connection import MAX_LINE, Address, Lines
from sock_chat.client.conversation import Conversation
from sock_chat.client.keyboard import complete, is_secret, mask, secret_start
from sock_chat.table import TABLE, BadUsage


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("/register", None),
        ("/register ", 10),
        ("/register correct horse", 10),
        ("/REGISTER secret", 10),
        ("/password new", 10),
        ("/login", None),
        ("/login ana", None),
        ("/login ana ", 11),
        ("/login ana  two", 11),
        ("/login   ana secret", 13),
        ("/nick ana", None),
        ("/pm ana /login ana secret", None),
        ("//login ana secret", None),
        ("register secret", None),
        ("", None),
    ],
)
def test_where_the_secret_of_a_line_begins(line: str, start: int | None) -> None:
    assert secret_start(line) == start
    if start is not None:
        assert mask(line) == line[:start] + "*" * len(line[start:])
    assert is_secret(f"hola\n{line}\nhola") == (start is not None)


@pytest.mark.parametrize("command", ["register", "password", "login"])
@given(words=st.lists(st.text("ab ", max_size=3), max_size=4))
def test_the_secret_is_what_the_command_takes_for_it(command: str, words: list[str]) -> None:
    text = " ".join(words)
    line = f"/{command} {text}"
    start = secret_start(line)
    try:
        arguments = TABLE[command].split(text)
    except BadUsage:
        return
    assert start is not None
    assert line[start:] == arguments[-1]


def test_no_command_with_a_password_is_forgotten() -> None:
    secret = {name for name in TABLE if secret_start(f"/{name} aa bb cc") is not None}
    assert secret == {"login", "register", "password"}


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("/p", ["/password ", "/pm "]),
        ("/LI", ["/list"]),
        ("/pm b", ["bea", "Bernardo"]),
        ("hola BEA", ["bea"]),
        ("hola ", []),
        ("/login b", ["bea", "Bernardo"]),
        ("/login bea b", []),
        ("/register b", []),
        ("uno\n/un", ["/unban ", "/unregister"]),
        ("z", []),
    ],
)
def test_words_are_completed(text: str, candidates: list[str]) -> None:
    conversation = Conversation()
    conversation.receive("* Hola, ana. En general: ana, bea, Bernardo.")
    assert complete(text, conversation)[1] == candidates


def test_at_the_door_only_its_commands_are_offered() -> None:
    conversation = Conversation()
    assert complete("/", conversation)[1] == ["/help", "/login ", "/quit "]
    conversation.receive("* El apodo ana tiene dueño. ¿Contraseña?")
    assert complete("/", conversation)[1] == [], "a password may begin so"


@given(st.binary(max_size=200), st.integers(1, 20))
def test_lines_do_not_depend_on_segments(data: bytes, size: int) -> None:
    whole, parts = Lines(), Lines()
    lines = whole.receive(data)
    segments = [data[at : at + size] for at in range(0, len(data), size)]
    assert [line for part in segments for line in parts.receive(part)] == lines
    assert parts.finish() == whole.finish()
    assert parts.finish() == ""


def test_a_network_that_is_gone_ends_the_connection() -> None:
    async def option() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            _, writer = await Address(*listener.getsockname()).connect()
            keeps = writer.get_extra_info("socket").getsockopt(
                socket.SOL_SOCKET, socket.SO_KEEPALIVE
            )
            writer.close()
            return int(keeps)

    assert asyncio.run(option()) == 1


def test_what_is_shown_can_do_nothing_to_a_terminal() -> None:
    data = "a\x1b[2J\u202e\x00\x9b\u2028\u200d\t ñ€𝄞\r\n".encode() + b"\xff\n"
    hidden = "\ufffd"
    assert Lines().receive(data) == [
        f"a{hidden}[2J{hidden * 4}\u200d\t ñ€𝄞",
        hidden,
    ]


def test_a_line_without_an_end_fills_no_memory() -> None:
    lines = Lines()
    received = [line for _ in range(100) for line in lines.receive(b"x" * 10_000)]
    assert sum(map(len, received)) >= 100 * 10_000 - MAX_LINE - 10_000


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.5, 0.75)])
def test_back_off_doubles_up_to_a_bound(chance: float, share: float) -> None:
    backoff = Backoff(lambda: chance)
    waits = [backoff.failed(0.0) for _ in range(20)]
    assert waits[:3] == [SHORTEST * share, 2 * SHORTEST * share, 4 * SHORTEST * share]
    assert waits[-1] == LONGEST * share


def test_back_off_begins_anew_after_a_connection_that_has_lasted() -> None:
    backoff = Backoff(lambda: 0.0)
    first = backoff.failed(0.0)
    backoff.connected(100.0)
    assert backoff.failed(100.0 + STABLE / 2) > first, "a server that lets in and throws out"
    backoff.connected(200.0)
    assert backoff.failed(200.0 + STABLE) == first
