"""Make the picture of v5's page: start the server, let people talk, look at two of them.

    python -m stages.course.picture      # rewrites stages/v5/page.png

One is at a desk, the other at a phone, which is dark; others are at a terminal. What the picture
was made by, when and of which commit stands in it, as text chunks of PNG.
"""

from __future__ import annotations

import argparse
import io
import re
import socket
import sys
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from benchmarks.harness import browser
from benchmarks.harness.browser import Visitor
from benchmarks.harness.environment import environment
from benchmarks.harness.files import ROOT
from benchmarks.harness.server import Server

PICTURE = ROOT / "stages/v5/page.png"
SCALE = 2
DESK, PHONE = (900, 640), (360, 640)
MARGIN = 24
GAP = (255, 0, 255)
"""What is between the two is transparent, and of this colour, which the page does not have."""
COLOURS = 256
"""In the palette: it makes a third of the size, and nobody sees a difference."""
EVENING = 18
TALK = (
    ("carlos", "Buenas tardes. ¿Alguien se apunta al cine el jueves?"),
    ("bea", "¡Yo! ¿Qué ponen?"),
    ("carlos", "«El espíritu de la colmena», copia restaurada, a las ocho en el Doré."),
    ("ana", "Esa no me la pierdo. La vi de niña y no entendí nada."),
    ("diego", "Nadie la entiende de niño, ni falta que hace. Voy."),
    ("bea", "¿Quedamos un rato antes y tomamos algo?"),
    ("ana", "Vale, a las siete en la esquina de siempre. Saco yo las entradas: somos cuatro, ¿no?"),
    ("carlos", "Perfecto. Yo escribo desde un telnet en el trabajo, que nadie se entere."),
    ("bea", "Y yo desde el autobús. El jueves a las siete, entonces."),
)


def talk(server: Server, desk: Visitor, phone: Visitor, stack: ExitStack) -> None:
    """Everybody comes in, and says his part when the one before has been seen by both."""
    visitors = {"ana": desk, "bea": phone}

    def at_a_terminal(*lines: str) -> socket.socket:
        sock = stack.enter_context(socket.create_connection(server.address))
        sock.sendall("".join(f"{line}\n" for line in lines).encode())
        return sock

    terminals = {nick: at_a_terminal(nick) for nick in ("carlos", "diego")}
    at_a_terminal("elena", "/join cine")
    for nick, visitor in visitors.items():
        visitor.enter(nick)
    expect(desk.members()).to_have_count(4)
    for nick, text in TALK:
        if nick in visitors:
            visitors[nick].say(text)
        else:
            terminals[nick].sendall(f"{text}\n".encode())
        for visitor in visitors.values():
            expect(visitor.log.locator(".message .text").last).to_have_text(text)
    terminals["diego"].sendall("/pm ana ¿Le decimos también a Elena?\n".encode())
    desk.button(re.compile("^diego, 1 sin leer")).wait_for()
    desk.pending().first.wait_for(state="detached")


def evening() -> str:
    """A time zone in which it is about six in the evening: what they say goes with the time."""
    ahead = (EVENING - datetime.now(timezone.utc).hour + 11) % 24 - 11
    return f"Etc/GMT{-ahead:+d}"  # POSIX's sign: west is positive


def picture() -> tuple[Image.Image, str]:
    """And the version of the browser."""
    with ExitStack() as stack:
        server = stack.enter_context(Server("v5"))
        assert server.web
        url = f"http://127.0.0.1:{server.web[1]}/"
        chromium = stack.enter_context(browser.chromium())
        screens = []
        for (width, height), scheme in ((DESK, "light"), (PHONE, "dark")):
            visitor = stack.enter_context(
                browser.opened(
                    chromium,
                    url,
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    device_scale_factor=SCALE,
                    timezone_id=evening(),
                )
            )
            screens.append(visitor)
        talk(server, screens[0], screens[1], stack)
        desk, phone = (
            Image.open(io.BytesIO(visitor.page.screenshot(animations="disabled", caret="hide")))
            for visitor in screens
        )
        beside = desk.width + round(MARGIN * SCALE)
        both = Image.new("RGB", (beside + phone.width, desk.height), GAP)
        both.paste(desk, (0, 0))
        both.paste(phone, (beside, 0))
        return both, chromium.version


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the picture of v5's page.")
    parser.add_argument("--output", metavar="FILE", type=Path, default=PICTURE)
    path = parser.parse_args().output
    if reason := browser.missing():
        print(reason, file=sys.stderr)
        return 1
    about = environment()
    image, chromium = picture()
    text = PngInfo()
    for name in ("command", "date", "commit", "kernel", "python"):
        text.add_text(name, about[name])
    text.add_text("browser", f"chromium {chromium}, playwright {version('playwright')}")
    palette = image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    gap = palette.getpixel((round(DESK[0] * SCALE), 0))
    palette.save(path, optimize=True, transparency=gap, pnginfo=text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
