"""The client at a terminal: one's own line stays below what comes in.

prompt-toolkit reads the keys, and draws that line, from the first moment to the last: the terminal
echoes nothing, so that no key of a password is seen, however fast it comes. For what comes in the
line is erased, and drawn again below it, once for all that a read brings.

While there is no connection what is typed is not sent, and that is said.
"""

import asyncio
import contextlib
import io
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from sock_chat.client import keyboard
from sock_chat.client.backoff import Backoff
from sock_chat.client.connection import READ_SIZE, Address, Lines, Streams
from sock_chat.client.conversation import Conversation
from sock_chat.names import clean

NICK_PAUSE = 5.0  # seconds until one's own nick is asked for again
FAREWELL_TIME = 1.0  # seconds that the server has to close after /quit
FAREWELL = "\n/quit\n"  # where a password is asked, the empty line is the answer


def is_terminal() -> bool:
    """Whether there is a screen to draw on, and a keyboard."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not is_dumb_terminal()


class Terminal:
    def __init__(self, address: Address):
        self.address = address
        self.conversation = Conversation()
        self.backoff = Backoff(random.random)
        self.network: asyncio.Task[int]
        self.writer: asyncio.StreamWriter | None = None  # None: no connection
        self.session: PromptSession[str] = PromptSession(
            lambda: self.conversation.prompt,
            is_password=Condition(lambda: self.conversation.asks_password),
            input_processors=[MaskedSecrets()],
            history=KeyboardHistory(self.conversation),
            completer=Words(self.conversation),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
        )

    async def run(self, streams: Streams) -> int:
        """Talk over a connection that is there, until either side ends it; the exit status."""
        loop = asyncio.get_running_loop()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # what it cannot show
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop_typing)
        self.session.default_buffer.accept_handler = lambda buffer: self.accept(buffer.text)

        def start() -> None:
            self.network = loop.create_task(self.stay_connected(streams))
            self.network.add_done_callback(lambda _: self.stop_typing())

        with contextlib.suppress(EOFError, KeyboardInterrupt):
            await self.session.prompt_async(pre_run=start)
        if self.network.done():
            return self.network.result()
        await self.leave()
        return 0

    def stop_typing(self) -> None:
        app = self.session.app
        if app.is_running and not app.is_done:
            app.exit(exception=EOFError)

    async def leave(self) -> None:
        if self.writer:
            self.conversation.leaves = True
            self.send([FAREWELL.removesuffix("\n")])
            await asyncio.wait([self.network], timeout=FAREWELL_TIME)
        self.network.cancel()

    # The keyboard

    def accept(self, text: str) -> bool:
        """What has been typed, at Enter. False: the next line begins empty."""
        prompt, secret = self.conversation.prompt, self.conversation.asks_password
        lines = ["***"] if secret else [clean(keyboard.mask(line)) for line in text.split("\n")]
        self.show([prompt + lines[0], *lines[1:]])
        if self.writer:
            self.send(self.conversation.say(text))
        elif text:
            self.show(["! Sin conexión: no se ha enviado."])
        return False

    def send(self, lines: Sequence[str]) -> None:
        if lines and self.writer:
            self.writer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))

    def forget_password(self, needless: bool) -> None:
        """What has been typed of a password that nobody wants any more would be shown now."""
        if needless:
            self.session.default_buffer.reset()

    # The screen

    def show(self, lines: Iterable[str]) -> None:
        """Print lines above the line that is typed."""
        app = self.session.app
        if app.is_running:
            app.renderer.erase()
        print(*lines, sep="\n", flush=True)
        app.invalidate()

    # The network

    async def stay_connected(self, streams: Streams) -> int:
        """The life of the connections, one after the other; the exit status."""
        while True:
            self.backoff.connected(time.monotonic())
            reason = await self.listen(streams)
            self.forget_password(self.conversation.asks_password)
            if not self.conversation.lost():
                if self.conversation.leaves:
                    return 0
                self.show([f"! {reason}."])
                return 1
            streams = await self.reconnect(reason)

    async def listen(self, streams: Streams) -> str:
        """The life of one connection; how it has ended."""
        reader, self.writer = streams
        lines, reason, data = Lines(), "", b"..."
        try:
            while data:
                try:
                    data = await reader.read(READ_SIZE)
                except OSError as error:
                    data, reason = b"", f": {error.strerror or error}"
                self.receive(lines.receive(data) if data else [lines.finish()])
        finally:
            self.writer.close()
            self.writer = None
        return f"El servidor {'se ha ido' if reason else 'ha cerrado la conexión'}{reason}"

    def receive(self, lines: Iterable[str]) -> None:
        shown = [line for line in lines if line]
        asked, waited = self.conversation.asks_password, self.conversation.wants_nick
        for line in shown:
            self.send(self.conversation.receive(line))
        self.forget_password(asked and not self.conversation.asks_password)
        if shown:
            self.show(shown)
        if self.conversation.wants_nick and not waited:
            asyncio.get_running_loop().call_later(NICK_PAUSE, self.ask_for_nick)

    def ask_for_nick(self) -> None:
        if self.conversation.wants_nick:
            self.conversation.wants_nick = False
            self.send([self.conversation.nick])

    async def reconnect(self, reason: str) -> Streams:
        while True:
            pause = self.backoff.failed(time.monotonic())
            self.show([f"! {reason}. Otro intento en {pause:.1f} s."])
            await asyncio.sleep(pause)
            try:
                streams = await self.address.connect()
            except (OSError, UnicodeError) as error:
                reason = f"No se puede conectar con {self.address[:2]}: {error}"
            else:
                self.show(["! Hay conexión."])
                return streams


class MaskedSecrets(Processor):
    """Shows * for each character of a password within a command."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        line = transformation_input.document.lines[transformation_input.lineno]
        if keyboard.secret_start(line) is None:
            return Transformation(transformation_input.fragments)
        return Transformation([("", keyboard.mask(line))])


class KeyboardHistory(InMemoryHistory):
    """What the arrow keys bring back: no password."""

    def __init__(self, conversation: Conversation):
        super().__init__()
        self.conversation = conversation

    def append_string(self, string: str) -> None:
        if not (self.conversation.asks_password or keyboard.is_secret(string)):
            super().append_string(string)


class Words(Completer):
    def __init__(self, conversation: Conversation):
        self.conversation = conversation

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        word, candidates = keyboard.complete(document.text_before_cursor, self.conversation)
        for candidate in candidates:
            yield Completion(candidate, start_position=-len(word))
