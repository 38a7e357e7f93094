"""Which nicks come in, and what those that do not are told."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sock_chat import names
from sock_chat.skeleton import TABLE, skeleton
from tests.chat.world import World

PRESENT = ("ana", "Eva", "Iris", "modem", "José", "пётр")
OWNED = ("Rosa", "carlos")

INVALID = "* Apodo no válido: de 1 a 24 letras, cifras, - o _; empieza por una letra."
USED = "* El apodo {} está en uso."
ALIKE = "* El apodo {} se parece demasiado a {}."
RESERVED = "* El apodo {} está reservado."
PASSWORD = "* El apodo {} tiene dueño. ¿Contraseña?"
IN = "* Hola, {}."

TABLE_OF_NICKS = [
    # what is typed, the answer, what stands in it
    ("zoe", IN, "zoe"),
    ("Zoé_2-b", IN, "Zoé_2-b"),
    ("x" * 24, IN, "x" * 24),
    ("x" * 25, INVALID),
    ("x" * 4000, INVALID),
    ("", None),
    (" ", INVALID),
    ("ana maría", INVALID),
    (" zoe", INVALID),
    ("zoe ", INVALID),
    ("zoe\t", INVALID),
    ("2zoe", INVALID),
    ("-zoe", INVALID),
    ("_zoe", INVALID),
    ("*zoe", INVALID),
    ("/zoe", INVALID),
    ("zoe!", INVALID),
    ("zoe.", INVALID),
    # canonical equivalence: one nick, and 24 code points after NFC
    ("Zoe\u0301", IN, "Zoé"),
    ("e\u0301" * 24, IN, "é" * 24),
    ("jose\u0301", USED, "josé"),
    ("JOSÉ", USED, "JOSÉ"),
    ("jose", IN, "jose"),
    # marks: two on a letter, none on anything else
    ("zo\u0332\u0333e", IN, "zo\u0332\u0333e"),
    ("zo\u0332\u0333\u0334e", INVALID),
    ("\u0301zoe", INVALID),
    ("z2\u0332e", INVALID),
    ("क्षि", IN, "क्षि"),
    # width and case
    ("ｚｏｅ", IN, "zoe"),
    ("ａｎａ", USED, "ana"),
    ("ANA", USED, "ANA"),
    ("ПЁТР", USED, "ПЁТР"),
    ("ﾊﾟ", IN, "パ"),
    # nothing invisible, nothing that turns the line around, no pictures
    ("z\u200boe", INVALID),
    ("z\u200doe", INVALID),
    ("\u202ezoe", INVALID),
    ("z\u00adoe", INVALID),
    ("zoe\x07", INVALID),
    ("zoe\x1b[31m", INVALID),
    ("z\ufeffoe", INVALID),
    ("zoe😀", INVALID),
    ("ℨoe", INVALID),
    ("ﬁn", INVALID),
    ("zoe\u2028", INVALID),
    ("שלום", IN, "שלום"),
    ("שלוםa", INVALID),  # of two directions
    # confusable with somebody who is here
    ("аna", ALIKE, "аna", "ana"),  # Cyrillic а
    ("аnа", ALIKE, "аnа", "ana"),
    ("αna", ALIKE, "αna", "ana"),  # Greek
    ("еva", ALIKE, "еva", "Eva"),
    ("Еva", ALIKE, "Еva", "Eva"),
    ("lris", ALIKE, "lris", "Iris"),
    ("lrIS", ALIKE, "lrIS", "Iris"),
    ("rnodern", ALIKE, "rnodern", "modem"),
    ("nodem", IN, "nodem"),
    ("petр", IN, "petр"),
    # with an owner, here or not
    ("rosa", PASSWORD, "rosa"),
    ("ROSA", PASSWORD, "ROSA"),
    ("ｒosa", PASSWORD, "rosa"),
    ("Rоsа", ALIKE, "Rоsа", "Rosa"),
    ("сarlos", ALIKE, "сarlos", "carlos"),
    ("carIos", ALIKE, "carIos", "carlos"),
    # reserved
    ("servidor", RESERVED, "servidor"),
    ("Servidor", RESERVED, "Servidor"),
    ("ѕervidor", RESERVED, "ѕervidor"),
    ("ADMIN", RESERVED, "ADMIN"),
    ("adrnin", RESERVED, "adrnin"),
    ("sistema", RESERVED, "sistema"),
    ("sisterna", RESERVED, "sisterna"),
    ("administra", IN, "administra"),
]


@pytest.mark.parametrize("row", TABLE_OF_NICKS, ids=lambda row: ascii(row[0])[:40])
def test_nick(row: tuple[str, ...]) -> None:
    text, answer, *quoted = row
    world = World()
    for nick in OWNED:
        world.own(nick)
    list(world.enter(*PRESENT))
    client = world.connect(text)
    _, *lines = client.new()
    expected = [answer.format(*quoted)] if answer else []
    if answer == IN:
        lines = [line[: len(expected[0])].replace(". En", ".") for line in lines]
    assert lines == expected


def test_of_two_who_race_for_a_nick_one_gets_it() -> None:
    for late in ((), ("names",)):
        world = World(late)
        clients = [world.connect().send(text) for text in ("ana", "Ana", "аna")]
        world.turn()
        answers = [client.new()[1:] for client in clients]
        assert answers == [
            ["* Hola, ana. En general: ana."],
            ["* El apodo Ana está en uso."],
            ["* El apodo аna se parece demasiado a ana."],
        ]


@pytest.mark.parametrize("end", ["quit", "lost", "kick"])
def test_a_nick_is_free_when_its_holder_has_left(end: str) -> None:
    world = World()
    (ana,) = world.enter("ana")
    if end == "kick":
        ana.session.kick("")
    else:
        getattr(ana.session, end)()
    world.turn()
    assert world.connect("аna").new()[-1] == "* Hola, аna. En general: аna."


@given(st.text(max_size=30))
def test_a_nick_stays_what_it_is(text: str) -> None:
    """Its shown form is a nick again, the same; its folded form is what fold() says."""
    nick = names.parse(text)
    if nick:
        assert names.parse(nick.shown) == nick
        assert names.fold(nick.shown) == nick.folded
        assert all(skeleton(look) == look for look in nick.skeletons)
        assert unicodedata.is_normalized("NFC", nick.shown)


def test_the_table_of_looks_needs_no_second_look() -> None:
    assert all(text.translate(TABLE) == text for text in TABLE.values())
    assert skeleton("m") == skeleton("rn") == "rn"


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("12345678", "12345678"),
        ("1234567", None),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("con espacios dentro ", "con espacios dentro "),
        ("con\u00a0espacio", "con espacio"),
        ("contrasen\u0303a", "contraseña"),
        ("tab\tulador", None),
        ("x" * 4000, None),
    ],
)
def test_password(text: str, password: str | None) -> None:
    assert names.parse_password(text) == password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hola\tñ 😀 👩\u200d🚀 \u200c", "hola\tñ 😀 👩\u200d🚀 \u200c"),
        ("\x1b[2J\x9b\x7f\x00\x85", "�[2J����"),
        ("a\u202eb\u2066\ufeff\u00ad", "a�b���"),
        ("\u2028\u2029\ud800\U000e0001", "����"),
        ("\u0378\ue000", "\u0378\ue000"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert names.clean(text) == shown


def test_cut_is_by_characters_and_farewells_by_bytes() -> None:
    assert names.cut("x" * 64) == "x" * 64
    assert names.cut("x" * 65) == "x" * 63 + "…"
    assert names.cut_farewell("x" * 200) == "x" * 200
    assert names.cut_farewell("x" * 201) == "x" * 197 + "…"
    assert len(names.cut_farewell("ñ😀" * 60).encode()) in range(197, 201)
