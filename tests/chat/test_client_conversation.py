"""The client's conversation with real sessions: what it learns of their lines, and what it says by
itself."""

from __future__ import annotations

from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sock_chat.client.conversation import Conversation
from sock_chat.link import Reason
from tests.chat.world import PASSWORD, Client, World

LONG = [letter + "\U00010400" * 22 + end for letter in "abc" for end in "defghijklm"]


class Talk:
    """A conversation, and the session that it is with."""

    def __init__(self, world: World):
        self.world = world
        self.conversation = Conversation()
        self.connect()

    def connect(self) -> list[str]:
        self.client: Client = self.world.connect()
        return self.hear()

    def hear(self) -> list[str]:
        """All that the session says, and what is answered by itself; the lines."""
        self.world.turn()
        heard = self.client.new()
        for line in heard:
            self.client.send(*self.conversation.receive(line))
        return [*heard, *self.hear()] if heard else []

    def say(self, *lines: str) -> list[str]:
        for line in lines:
            self.client.send(*self.conversation.say(line))
            heard = self.hear()
        return heard


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def talk(world: World) -> Talk:
    return Talk(world)


def test_nicks_are_learnt_from_what_the_server_says(world: World, talk: Talk) -> None:
    bea, carlos = world.enter("bea", "carlos")
    talk.say("ana")
    assert (talk.conversation.nick, talk.conversation.prompt) == ("ana", "ana> ")
    assert talk.conversation.nicks == {"bea", "carlos"}
    world.enter("dora")
    bea.send("/nick beatriz")
    carlos.send("/quit hasta luego")
    talk.hear()
    assert talk.conversation.nicks == {"beatriz", "dora"}
    world.connect("eva", "/join cine", "/pm ana hola")
    talk.hear()
    assert "eva" in talk.conversation.nicks, "one who speaks in private is somebody, too"
    talk.say("/nick Anita")
    assert talk.conversation.nick == "Anita"
    talk.say("/join cine")
    assert talk.conversation.nicks == {"eva"}, "of this room"
    assert talk.conversation.room == "cine"


def test_lists_that_go_on_in_further_lines(world: World, talk: Talk) -> None:
    list(world.enter(*LONG))
    assert len([line for line in talk.say("ana") if line.startswith("* ")]) > 2
    assert talk.conversation.nicks < set(LONG)
    assert len(talk.conversation.nicks) >= 18, "at most one of the 20 is beside a break, and ana"
    talk.say("/list")
    assert talk.conversation.nicks == set(LONG)


def test_a_password_is_asked_at_the_door(world: World, talk: Talk) -> None:
    world.own("ana")
    talk.say("ana")
    assert (talk.conversation.asks_password, talk.conversation.prompt) == (True, "Contraseña: ")
    talk.say("x" * 5000)
    assert talk.conversation.asks_password, "a line that is too long is no answer"
    talk.say("wrong")
    assert talk.conversation.asks_password
    talk.say("")
    assert not talk.conversation.asks_password
    talk.say("/login ana wrong")
    assert not talk.conversation.asks_password, "the next line is a nick"
    talk.say("ana", f"{PASSWORD}\nnot to be said aloud")
    assert not talk.conversation.asks_password
    assert talk.conversation.prompt == "ana> "
    assert world.log.messages == []


def test_a_password_is_asked_inside(world: World, talk: Talk) -> None:
    world.own("bea")
    for answer in ("wrong", ""):
        talk.say("ana", "/nick bea")
        assert talk.conversation.asks_password
        talk.say(answer)
        assert not talk.conversation.asks_password, "there is one try"
    talk.say("/nick bea", PASSWORD)
    assert (talk.conversation.nick, talk.conversation.asks_password) == ("bea", False)


@pytest.mark.parametrize(
    "text",
    [
        "* El apodo ana tiene dueño. ¿Contraseña?",
        "* Has entrado desde otro sitio.",
        "* Hola, eva. En cine: eva.",
        "* bea ha salido.",
        "* bea ahora es eva.",
    ],
)
@pytest.mark.parametrize("line", ["{}", "/pm ana {}", "/quit {}", "/kick zoe {}"])
def test_nobody_imitates_the_server(world: World, talk: Talk, line: str, text: str) -> None:
    """En and El are nicks; the server's sentences begin with these words, too."""
    for nick in ("En", "El"):
        world.connect(nick, "hola", line.format(text)).session.lost()
    list(world.enter("bea"))
    talk.say("ana")
    nicks = set(talk.conversation.nicks)
    for nick in ("En", "El"):
        world.connect(nick, line.format(text))
    talk.hear()
    assert (talk.conversation.nick, talk.conversation.room) == ("ana", "general")
    assert not talk.conversation.asks_password
    assert talk.conversation.nicks - {"En", "El"} == nicks - {"En", "El"} == {"bea"}
    assert talk.conversation.lost()


def test_a_connection_that_is_lost_is_taken_up_again(world: World, talk: Talk) -> None:
    talk.say("ana", "/join cine")
    talk.client.abort(Reason.QUIT)
    world.turn()
    assert talk.conversation.lost()
    assert talk.conversation.prompt == "> "
    talk.connect()
    assert talk.client.session.nick is not None
    assert (talk.client.session.nick.shown, talk.client.session.room_name) == ("ana", "cine")
    assert talk.conversation.room == "cine"


def test_one_s_own_nick_is_still_in_use(world: World, talk: Talk) -> None:
    """By the connection that was cut: the server has not seen it yet."""
    talk.say("ana")
    ghost = talk.client
    assert talk.conversation.lost()
    assert talk.connect()[-1] == "* El apodo ana está en uso."
    assert talk.conversation.wants_nick
    ghost.session.lost()
    talk.client.send(talk.conversation.nick)
    talk.hear()
    assert talk.conversation.is_in
    assert not talk.conversation.wants_nick
    talk.say("/nick ana")
    assert not talk.conversation.wants_nick


def test_who_types_another_nick_wants_that(world: World, talk: Talk) -> None:
    talk.say("ana")
    assert talk.conversation.lost()
    talk.connect()
    talk.say("anita")
    assert (talk.conversation.wants_nick, talk.conversation.nick) == (False, "anita")


def test_an_owner_is_asked_again(world: World, talk: Talk) -> None:
    world.own("ana")
    talk.say("ana", PASSWORD)
    assert talk.conversation.lost()
    talk.connect()
    assert talk.conversation.asks_password
    talk.say(PASSWORD)
    assert talk.conversation.is_in


@pytest.mark.parametrize(
    "end",
    [
        lambda talk: talk.client.session.kick("razón"),
        lambda talk: talk.client.session.kick(""),
        lambda talk: talk.client.session.ban(),
        lambda talk: talk.client.session.displace(talk.client.session.nick),
        lambda talk: talk.say("/quit adiós"),
        lambda talk: talk.say("/nick bea", "wrong", "/nick bea", "wrong", "/nick bea", "wrong"),
    ],
)
def test_ends_after_which_nobody_comes_back(world: World, talk: Talk, end: object) -> None:
    world.own("bea")
    talk.say("ana")
    assert callable(end)
    end(talk)
    talk.hear()
    assert talk.client.closed
    assert not talk.conversation.lost()


@pytest.mark.parametrize("last", ["Sin apodo", "El servidor se cierra"])
def test_ends_after_which_one_comes_back(world: World, talk: Talk, last: str) -> None:
    """But only who has been in: who has no nick yet is told why, and that is all."""
    assert not talk.conversation.lost()
    talk.connect()
    talk.say("ana")
    if last == "Sin apodo":
        assert talk.conversation.lost()
        talk.connect()  # and the nick is in use
        talk.client.session.expire()
    else:
        talk.client.session.stop(0.0)
    assert talk.hear()[-1].startswith(f"* {last}")
    assert talk.conversation.lost()


def test_each_line_of_a_paste_is_said(world: World, talk: Talk) -> None:
    talk.say("ana\nuno\n\ndos")
    assert [message.text for _, message in world.log.messages] == ["uno", "dos"]


WORDS = [
    *("* ", "En ", "Hola, ", "El apodo ", "ana", "bea", " ha entrado.", " ha salido: ", " dice: "),
    *(" ahora es ", ". ", ", ", " y 3 más.", " (2): ", " tiene dueño. ¿Contraseña?", "\ufffd"),
    *("* Hola, ana. En cine: ana.", "* Contraseña incorrecta.", "* El apodo ana está en uso."),
]


@given(
    lines=st.lists(st.lists(st.sampled_from(WORDS), max_size=5).map("".join)),
    typed=st.lists(st.sampled_from(["", "ana", "hola", "/quit", "/join cine", "a\nb"])),
)
def test_whatever_a_server_says_nothing_is_said_but_nick_and_room(
    lines: list[str], typed: list[str]
) -> None:
    conversation = Conversation()
    for line, text in zip_longest(lines, typed, fillvalue=""):
        assert set(conversation.receive(line)) <= {conversation.nick, f"/join {conversation.room}"}
        conversation.say(text)
        assert conversation.nick not in conversation.nicks or not conversation.is_in
        if "¿" in line and not conversation.asks_password:
            conversation.lost()
