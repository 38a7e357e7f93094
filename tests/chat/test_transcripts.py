"""The contract, row by row, as transcripts of what clients send and get.

    ana> text     ana sends a line; she connects with her first (ana~ comes neither by TLS nor from
                  loopback; ana@192.0.2.7 from there)
    ana< text     the next line that she gets
    ana# QUIT     she is closed for this reason
    +30           so many seconds later

At the end nobody has got anything that is not in the transcript. The clients in ROOM are in
general from the beginning, and have seen what there was to see. Rosa and op have owners.
"""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from sock_chat.codec import Refused
from sock_chat.table import TABLE
from tests.chat.world import Client, World

STEP = re.compile(
    r"(?P<who>\w+)(?P<insecure>~?)(?:@(?P<address>\S+))?(?P<kind>[><#]) ?(?P<text>.*)"
)
ROOM = ("ana", "bea")
LONG = "x" * 100

TRANSCRIPTS = {
    # what the server says
    "welcome": """
        zoe>
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe> 2zoe
        zoe< * Apodo no válido: de 1 a 24 letras, cifras, - o _; empieza por una letra.
        zoe> ana
        zoe< * El apodo ana está en uso.
        zoe> аna
        zoe< * El apodo аna se parece demasiado a ana.
        zoe> admin
        zoe< * El apodo admin está reservado.
        zoe> zoe
        zoe< * Hola, zoe. En general: ana, bea, zoe.
        ana< * zoe ha entrado.
        bea< * zoe ha entrado.""",
    "nick and message in one segment": """
        zoe> zoe
        zoe> hola
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Hola, zoe. En general: ana, bea, zoe.
        ana< * zoe ha entrado.
        ana< zoe dice: hola
        bea< * zoe ha entrado.
        bea< zoe dice: hola""",
    "only these commands at the door": """
        zoe> /list
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Apodo no válido: de 1 a 24 letras, cifras, - o _; empieza por una letra.
        zoe> /login
        zoe< * Uso: /login APODO CONTRASEÑA
        zoe> /login zoe abc
        zoe< * El apodo zoe no tiene dueño.
        zoe> /quit adiós
        zoe# QUIT""",
    "the owner comes in": """
        Rosa> Rosa
        Rosa< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        Rosa< * El apodo Rosa tiene dueño. ¿Contraseña?
        Rosa> /help
        Rosa< * Contraseña incorrecta.
        Rosa> correct horse
        Rosa< * Hola, Rosa. En general: ana, bea, Rosa.
        ana< * Rosa ha entrado.
        bea< * Rosa ha entrado.""",
    "an empty password": """
        zoe> rosa
        zoe>
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * El apodo rosa tiene dueño. ¿Contraseña?
        zoe< * ¿Qué apodo quieres?
        zoe> ana
        zoe< * El apodo ana está en uso.""",
    "three wrong passwords": """
        zoe> rosa
        zoe> incorrecta 1
        zoe> incorrecta 2
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * El apodo rosa tiene dueño. ¿Contraseña?
        zoe< * Contraseña incorrecta.
        zoe< * Contraseña incorrecta.
        zoe> 3
        zoe< * Contraseña incorrecta.
        zoe< * Demasiados intentos.
        zoe# TRIES""",
    "no passwords for all to read": """
        zoe~> rosa
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Solo por TLS.
        zoe> /login rosa correct horse
        zoe< * Solo por TLS.
        zoe> zoe
        zoe< * Hola, zoe. En general: ana, bea, zoe.
        ana< * zoe ha entrado.
        bea< * zoe ha entrado.
        zoe> /register correct horse
        zoe> /nick rosa
        zoe> /password correct horse
        zoe< * Solo por TLS.
        zoe< * Solo por TLS.
        zoe< * Solo por TLS.""",
    "too many attempts from an address": """
        eve1> rosa
        eve1> incorrecta
        eve1< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        eve1< * El apodo rosa tiene dueño. ¿Contraseña?
        eve1< * Contraseña incorrecta.
        +1
        fail 9
        eve1> correct horse
        eve1< * Demasiados intentos.
        eve1# TRIES
        ana> /login rosa correct horse
        ana< * Demasiados intentos.
        +60
        ana> /login rosa correct horse
        ana< * ana ahora es rosa.
        bea< * ana ahora es rosa.""",
    "the owner takes over": """
        one> Rosa
        one> correct horse
        one< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        one< * El apodo Rosa tiene dueño. ¿Contraseña?
        one< * Hola, Rosa. En general: ana, bea, Rosa.
        ana< * Rosa ha entrado.
        bea< * Rosa ha entrado.
        two> /login Rosa correct horse
        two< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        two< * Hola, Rosa. En general: ana, bea, Rosa.
        one< * Has entrado desde otro sitio.
        one# TAKEN_OVER
        ana< * Rosa ha salido.
        ana< * Rosa ha entrado.
        bea< * Rosa ha salido.
        bea< * Rosa ha entrado.
        bea> hola
        ana< bea dice: hola
        two< bea dice: hola""",
    "nobody stays at the door": """
        zoe> rosa
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * El apodo rosa tiene dueño. ¿Contraseña?
        +30
        zoe< * Sin apodo en 30 s.
        zoe# NO_NICK""",
    "history": """
        ana> uno
        bea< ana dice: uno
        +1
        bea> dos
        ana< bea dice: dos
        zoe> zoe
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< [2026-11-24 16:45:10] ana dice: uno
        zoe< [2026-11-24 16:45:11] bea dice: dos
        zoe< * Hola, zoe. En general: ana, bea, zoe.
        ana< * zoe ha entrado.
        bea< * zoe ha entrado.
        zoe> /history 1
        zoe< [2026-11-24 16:45:11] bea dice: dos
        zoe> /history 0
        zoe> /history x
        zoe< * Uso: /history [N]
        zoe< * Uso: /history [N]
        zoe> tres
        ana< zoe dice: tres
        bea< zoe dice: tres
        zoe> /history 1
        zoe< [2026-11-24 16:45:11] zoe dice: tres""",
    "what is said": """
        ana> hola
        ana>
        ana> //help
        bea< ana dice: hola
        bea< ana dice: /help
        ana> una\x1b[31m \u202ebroma
        bea< ana dice: una�[31m �broma
        ana> * bea ha salido.
        bea< ana dice: * bea ha salido.""",
    "too long": """
        ana> TOO LONG
        ana> hola
        ana< * Línea demasiado larga: 4096 bytes como mucho.
        bea< ana dice: hola""",
    # commands
    "nick": """
        ana> /nick Ana
        ana< * ana ahora es Ana.
        bea< * ana ahora es Ana.
        ana> /nick Ana
        ana> /nick bea
        ana> /nick x y
        ana> /nick
        ana> hola
        ana< * El apodo bea está en uso.
        ana< * Uso: /nick NUEVO
        ana< * Uso: /nick NUEVO
        bea< Ana dice: hola
        ana> /nick аna
        ana< * Ana ahora es аna.
        bea< * Ana ahora es аna.
        bea> /nick ana
        bea< * El apodo ana se parece demasiado a аna.""",
    "an owned nick from inside": """
        ana> /nick rosa
        ana> incorrecta
        ana> hola
        ana< * El apodo rosa tiene dueño. ¿Contraseña?
        ana< * Contraseña incorrecta.
        bea< ana dice: hola
        ana> /nick rosa
        ana>
        ana> aquí sigo
        ana< * El apodo rosa tiene dueño. ¿Contraseña?
        bea< ana dice: aquí sigo
        ana> /nick rosa
        ana> correct horse
        ana< * El apodo rosa tiene dueño. ¿Contraseña?
        ana< * ana ahora es rosa.
        bea< * ana ahora es rosa.
        ana> /nick Rosa
        ana> /register another one
        ana< * rosa ahora es Rosa.
        bea< * rosa ahora es Rosa.
        ana< * El apodo Rosa ya es tuyo.""",
    "register": """
        ana> /register 1234567
        ana> /register with  spaces
        ana> /register again and again
        ana< * Una contraseña tiene de 8 a 128 caracteres.
        ana< * El apodo ana es tuyo.
        ana< * El apodo ana ya es tuyo.
        ana> /password 1234567
        ana> /password eight chars
        ana< * Una contraseña tiene de 8 a 128 caracteres.
        ana< * Contraseña cambiada.
        bea> /nick ana
        bea> with  spaces
        bea< * El apodo ana tiene dueño. ¿Contraseña?
        bea< * Contraseña incorrecta.
        ana> /unregister
        ana> /unregister
        ana> /password eight chars
        ana< * El apodo ana ya no tiene dueño.
        ana< * El apodo ana no tiene dueño.
        ana< * El apodo ana no tiene dueño.
        bea> /nick ana
        bea< * El apodo ana está en uso.""",
    "list": """
        ana> /list
        ana> /LIST
        ana> /list all
        ana< * En general (2): ana, bea
        ana< * En general (2): ana, bea
        ana< * Uso: /list""",
    "pm": """
        ana> /pm bea  dos
        ana> /pm  BEA tres
        ana> /pm ana cuatro
        ana> /pm zoe hola
        ana> /pm bea
        ana> /pm {LONG} hola
        ana> /join cine
        ana> /pm bea cinco
        bea< ana te dice:  dos
        bea< ana te dice: tres
        ana< ana te dice: cuatro
        ana< * No hay nadie llamado zoe.
        ana< * Uso: /pm APODO TEXTO
        ana< * No hay nadie llamado {CUT}.
        ana< * En cine: ana.
        bea< * ana ha salido.
        bea< ana te dice: cinco""",
    "login": """
        ana> /login zoe correct horse
        ana> /login 2 correct horse
        ana> /login admin correct horse
        ana> /login rosa
        ana> /login rosa incorrecta
        ana< * El apodo zoe no tiene dueño.
        ana< * Apodo no válido: de 1 a 24 letras, cifras, - o _; empieza por una letra.
        ana< * El apodo admin está reservado.
        ana< * Uso: /login APODO CONTRASEÑA
        ana< * Contraseña incorrecta.
        ana> /login rosa correct horse
        ana< * ana ahora es rosa.
        bea< * ana ahora es rosa.""",
    "too few words or too many": """
        ana> /help x
        ana> /join
        ana> /join a b
        ana> /rooms x
        ana> /history 1 2
        ana> /history -1
        ana> /register
        ana> /password
        ana> /unregister x
        ana< * Uso: /help
        ana< * Uso: /join SALA
        ana< * Uso: /join SALA
        ana< * Uso: /rooms
        ana< * Uso: /history [N]
        ana< * Uso: /history [N]
        ana< * Uso: /register CONTRASEÑA
        ana< * Uso: /password NUEVA
        ana< * Uso: /unregister
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /kick
        ana> /ban
        ana> /ban bea x
        ana> /ban bea 1 2
        ana> /unban
        ana> /unban bea x
        ana> /bans x
        ana< * Uso: /kick APODO [RAZÓN]
        ana< * Uso: /ban APODO|DIRECCIÓN [MINUTOS]
        ana< * Uso: /ban APODO|DIRECCIÓN [MINUTOS]
        ana< * Uso: /ban APODO|DIRECCIÓN [MINUTOS]
        ana< * Uso: /unban APODO|DIRECCIÓN
        ana< * Uso: /unban APODO|DIRECCIÓN
        ana< * Uso: /bans""",
    "an operator is who is logged in as one": """
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /nick ana
        ana< * op ahora es ana.
        bea< * op ahora es ana.
        ana> /bans
        ana< * Solo para operadores.
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /nick OP
        ana< * op ahora es OP.
        bea< * op ahora es OP.
        ana> /bans
        ana< * Nadie tiene prohibida la entrada.
        ana> /unregister
        ana> /bans
        ana< * El apodo OP ya no tiene dueño.
        ana< * Solo para operadores.
        ana> /quit
        bea< * OP ha salido.
        ana# QUIT
        zoe> op
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Hola, op. En general: bea, op.
        bea< * op ha entrado.
        zoe> /bans
        zoe< * Solo para operadores.""",
    "what is too long to be quoted": """
        zoe> zoe
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Hola, zoe. En general: ana, bea, zoe.
        ana< * zoe ha entrado.
        bea< * zoe ha entrado.
        zoe> /quit {LONG}{LONG}x
        ana< * zoe ha salido: {FAREWELL}
        bea< * zoe ha salido: {FAREWELL}
        zoe# QUIT
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /kick bea {LONG}
        ana< * bea ha salido.
        bea< * Te han echado: {CUT}
        bea# KICKED""",
    "quit": """
        ana> adiós
        ana> /quit me voy
        ana> no more
        bea< ana dice: adiós
        bea< * ana ha salido: me voy
        ana# QUIT
        bea> /quit
        bea# QUIT""",
    "rooms": """
        ana> /join Cine
        ana< * En cine: ana.
        bea< * ana ha salido.
        bea> /rooms
        bea< * Salas: cine (1), general (1)
        ana> sola
        bea> sola
        bea> /join cine
        bea< [2026-11-24 16:45:10] ana dice: sola
        bea< * En cine: ana, bea.
        ana< * bea ha entrado.
        bea> /rooms
        bea< * Salas: cine (2), general (0)
        ana> /join ¡no!
        ana> /join cine
        ana< * Sala no válida: de 1 a 24 letras, cifras, - o _; empieza por una letra.
        ana< * En cine (2): ana, bea
        ana> /join general
        ana< [2026-11-24 16:45:10] bea dice: sola
        ana< * En general: ana.
        bea< * ana ha salido.
        bea> /join general
        bea< [2026-11-24 16:45:10] bea dice: sola
        bea< * En general: ana, bea.
        ana< * bea ha entrado.
        ana> /rooms
        ana< * Salas: general (2)""",
    "unknown": """
        ana> /foo bar
        ana> /
        ana> /{LONG}
        ana< * No conozco /foo. /help dice lo que hay.
        ana< * No conozco /. /help dice lo que hay.
        ana< * No conozco /{CUT1}. /help dice lo que hay.""",
    "not for everybody": """
        ana> /kick bea
        ana> /ban bea
        ana> /unban bea
        ana> /bans
        ana> /kick
        ana< * Solo para operadores.
        ana< * Solo para operadores.
        ana< * Solo para operadores.
        ana< * Solo para operadores.
        ana< * Solo para operadores.""",
    "kick": """
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /kick zoe
        ana> /kick bea por pesada
        ana< * No hay nadie llamado zoe.
        ana< * bea ha salido.
        bea< * Te han echado: por pesada
        bea# KICKED
        zoe> zoe
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Hola, zoe. En general: op, zoe.
        ana< * zoe ha entrado.
        ana> /kick zoe
        ana< * zoe ha salido.
        zoe< * Te han echado.
        zoe# KICKED""",
    "ban": """
        ana> /login op correct horse
        ana< * ana ahora es op.
        bea< * ana ahora es op.
        ana> /join cine
        ana< * En cine: op.
        bea< * op ha salido.
        ana> /bans
        ana< * Nadie tiene prohibida la entrada.
        Rosa@192.0.2.7> /login Rosa correct horse
        Rosa< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        Rosa< * Hola, Rosa. En general: bea, Rosa.
        bea< * Rosa ha entrado.
        ana> /ban zoe
        ana> /ban rosa 0
        ana< * No hay nadie llamado zoe.
        ana< * Uso: /ban APODO|DIRECCIÓN [MINUTOS]
        ana> /ban rosa 5
        ana< * Prohibidos: 192.0.2.7 (5 min), rosa (5 min)
        Rosa< * Tienes prohibida la entrada.
        Rosa# BANNED
        bea< * Rosa ha salido.
        zoe@192.0.2.8> rosa
        zoe< * Bienvenido a sock_chat. ¿Qué apodo quieres?
        zoe< * Tienes prohibida la entrada.
        zoe# BANNED
        ana> /ban 2001:DB8::1
        ana> /unban rosa
        ana> /unban rosa
        ana> /bans
        ana< * Prohibidos: 2001:db8::1 (60 min)
        ana< * rosa puede entrar.
        ana< * rosa no tiene prohibida la entrada.
        ana< * Prohibidos: 192.0.2.7 (5 min), 2001:db8::1 (60 min)""",
}


@pytest.mark.parametrize("late", [(), ("log", "history", "names", "accounts", "people")])
@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
def test_transcript(transcript: str, late: tuple[str, ...]) -> None:
    world = World(late, operators=["op"])
    world.own("Rosa")
    world.own("op")
    clients = dict(zip(ROOM, world.enter(*ROOM), strict=True))
    world.turn()
    for client in clients.values():
        client.seen = len(client.writes)
    lines: dict[Client, list[str]] = {}

    def look() -> None:
        world.turn()
        for client in clients.values():
            lines.setdefault(client, []).extend(client.new())

    filled = transcript.replace("{LONG}", LONG).replace("{CUT1}", "x" * 62 + "…")
    filled = filled.replace("{CUT}", "x" * 63 + "…").replace("{FAREWELL}", "x" * 197 + "…")
    for step in dedent(filled).strip().split("\n"):
        if step.startswith("+"):
            look()
            world.clock += float(step)
            for client in clients.values():
                if client.session.deadline <= world.clock:
                    client.session.expire()
            look()
        elif step.startswith("fail"):
            for _ in range(int(step.split()[1])):
                world.accounts.throttle.begin("192.0.2.1", world.clock)
        else:
            match = STEP.fullmatch(step)
            assert match, step
            who, text = match["who"], match["text"]
            if match["kind"] == ">":
                if who not in clients:
                    address = match["address"] or "192.0.2.1"
                    clients[who] = world.connect(secure=not match["insecure"], address=address)
                line = Refused("Línea demasiado larga: 4096 bytes como mucho.")
                clients[who].send(line if text == "TOO LONG" else text)
            else:
                look()
                if match["kind"] == "#":
                    assert (closed := clients[who].closed) and closed.name == text, step
                else:
                    assert lines[clients[who]][:1] == [text], step
                    del lines[clients[who]][0]
    look()
    assert {who: lines[client] for who, client in clients.items() if lines[client]} == {}


def test_help_is_the_table() -> None:
    world = World()
    (ana,), zoe = world.enter("ana"), world.connect("/help")
    ana.send("/help")
    world.turn()
    usages = [f"* {command.usage}: {command.help}" for command in TABLE.values()]
    assert ana.new() == zoe.new()[1:] == usages
    assert len(TABLE) == 16


def test_a_long_list_goes_on_in_further_lines() -> None:
    world = World()
    nicks = [f"ñandú{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    list(world.enter(*nicks))
    zoe = world.connect("zoe")
    zoe.seen = len(zoe.writes)
    zoe.send("/list")
    world.turn()
    lines = zoe.new()
    assert " ".join([line.removeprefix("* ") for line in lines]) == (
        f"En general (101): {', '.join(['zoe', *nicks])}"
    )
    assert max(len(line.encode()) for line in lines) < 400


def test_a_greeting_has_twenty_names() -> None:
    world = World()
    list(world.enter(*[f"n{chr(97 + i)}" for i in range(22)]))
    greeting = world.connect("zoe").new()[-1]
    assert greeting.endswith(": " + ", ".join([f"n{chr(97 + i)}" for i in range(20)]) + " y 3 más.")


def test_a_history_has_two_hundred_lines_at_most() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    ana.send(*[f"{number}" for number in range(300)])
    world.turn()
    bea.new()
    for line, count in {"/history": 50, "/history 200": 200, "/history 1000000": 200}.items():
        bea.send(line)
        world.turn()
        assert [text.split()[-1] for text in bea.new()] == list(map(str, range(300 - count, 300)))


def test_there_are_a_thousand_rooms_beside_general() -> None:
    world = World()
    clients = [world.connect().send(f"n{n}", f"/join r{n}") for n in range(1001)]
    world.turn()
    assert sum("* No caben más salas." in client.new() for client in clients) == 1
    assert len(world.rooms.counts()) == 1001
    clients[0].session.lost()
    world.turn()
    assert len(world.rooms.counts()) == 1000
