"""What is typed: what in it is secret, and how a word of it may go on.

Both are read from the table of the commands, by the words of their usage.
"""

import re

from sock_chat import commands as commands  # it fills the table
from sock_chat.client.conversation import Conversation
from sock_chat.names import fold
from sock_chat.table import TABLE, find

SECRETS = ("CONTRASEÑA", "NUEVA")


def secret_start(line: str) -> int | None:
    """Where the secret of a line begins, if there is one: it is what is left of it."""
    command = find(line) if line.startswith("/") else None
    words = command.arguments.split() if command else []
    for index, word in enumerate(words):
        if word in SECRETS:
            before = re.match(rf"[^ ]+ (?: *[^ ]+ ){{{index}}}", line)
            return before.end() if before else None
    return None


def mask(line: str) -> str:
    """The line with a * for each character of its secret."""
    start = secret_start(line)
    return line if start is None else line[:start] + "*" * (len(line) - start)


def is_secret(text: str) -> bool:
    return any(secret_start(line) is not None for line in text.split("\n"))


def complete(text: str, conversation: Conversation) -> tuple[str, list[str]]:
    """The word that text ends in, and what it may become: a command, or somebody's nick."""
    line = text.rpartition("\n")[2]
    word = line.rpartition(" ")[2]
    if conversation.asks_password or is_secret(line):
        return word, []
    if line.startswith("/") and word == line:
        wanted = word[1:].lower()
        return word, sorted(
            f"/{command.name}{' ' if command.arguments else ''}"
            for command in TABLE.values()
            if command.name.startswith(wanted) and (conversation.is_in or command.at_door)
        )
    if not word:
        return word, []
    return word, sorted(
        (nick for nick in conversation.nicks if fold(nick).startswith(fold(word))), key=fold
    )
