"""The chat room: who is in it, and who is told what. It knows no socket and no descriptor.

There are two ways to tell what was said:

Flush.MESSAGE   each message to each member at once: N - 1 sends for every line.
Flush.TURN      what is said in one turn of the reactor becomes one batch, and at the end of the
                turn each member gets it in one send, however many lines it has. Nothing waits for a
                timer: a message that comes alone leaves in the same turn.

A send costs the kernel microseconds, nearly the same for a short line as for many. So where more
than one message arrives in a turn, the second way is worth more than any change of the event loop
or of the language. A member who said nothing in that turn, and that is nearly everybody, gets the
batch as it is, the same object; one who spoke gets it without its own part. To join the
bytes for each member in Python would cost more than a loop in C wins.
"""

from enum import Enum
from operator import methodcaller
from typing import Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

from lowlevel.system import visible

SEND_COST = 32  # bytes of a turn which one send() uses up: short lines cost their sends
BATCH_SIZE = 1 << 16  # bytes of a batch which goes out before its turn ends


class Flush(Enum):
    """When it is told."""

    TURN = "turn"
    MESSAGE = "message"


class Member(Protocol):
    """Somebody to whom bytes can be sent, and who may not take them all."""

    @property
    def name(self) -> str: ...

    @property
    def transmit(self) -> Callable[[bytes], int]:
        """Send bytes; how many of them are off our hands. OSError: none, for this reason."""

    def fell_short(self, data: bytes, sent: int, error: Optional[OSError] = None) -> None:
        """Of the data only `sent` bytes are off our hands: keep the rest, or drop it."""

    def close(self, reason: str = "") -> None:
        """Leave the room, and whatever else it is in."""


# Tell the members, who are the keys of the first, some bytes; but whoever is in `instead` gets the
# bytes there, if any, instead.
Teller = Callable[[Dict[Member, bytes], bytes, Mapping[Member, bytes]], None]


class Room:
    """log: takes lines for the operator; None: nobody wants them. tell: how members are told; None:
    by their own transmit()."""

    def __init__(
        self,
        flush: Flush,
        log: Optional[Callable[[str], None]],
        tell: Optional[Teller] = None,
    ):
        self._flush = flush
        self._log = log
        self._tell = tell or tell_each
        self._members: Dict[Member, bytes] = {}  # what stands before each line of theirs
        self._unsent: List[Tuple[Member, bytes]] = []  # what was said in this turn, and by whom
        self._size = 0  # bytes of it

    def close(self) -> None:
        """Everybody leaves."""
        for member in list(self._members):
            member.close()

    def enter(self, member: Member) -> None:
        self.flush()  # it has not heard what was said before it came
        self._members[member] = f"{member.name} dice: ".encode()
        if self._log:
            self._log(visible(f"Cliente conectado: {member.name}"))

    def leave(self, member: Member, reason: str = "") -> None:
        del self._members[member]
        if self._log:
            because = f" ({reason})" if reason else ""
            self._log(visible(f"Cliente desconectado: {member.name}{because}"))

    def cost(self, member: Member) -> int:
        """What telling a line of this member uses up of its turn, in bytes, beside its length."""
        if self._flush is Flush.TURN:
            return len(self._members[member])
        return SEND_COST * (len(self._members) - 1)

    def say(self, member: Member, lines: bytes) -> None:
        """A member says some whole lines, as LineProtocol gives them."""
        prefix = self._members[member]
        if self._log:
            texts = lines.decode().split("\n")[:-1]
            self._log("\n".join(visible(f"{member.name} dice: {text}") for text in texts))
        if self._flush is Flush.TURN:
            part = prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
            self._unsent.append((member, part))
            self._size += len(part)
            if self._size >= BATCH_SIZE:
                self.flush()
        else:
            for line in lines[:-1].split(b"\n"):
                self._tell(self._members, prefix + line + b"\n", {member: b""})

    def flush(self) -> None:
        """Tell everyone what the others have said in this turn."""
        if not self._unsent:
            return
        parts, self._unsent, self._size = self._unsent, [], 0
        batch = b"".join([part for _, part in parts])
        own: Dict[Member, List[Tuple[int, int]]] = {}  # from where to where in the batch
        start = 0
        for member, part in parts:
            own.setdefault(member, []).append((start, start + len(part)))
            start += len(part)
        alone = len(own) == 1
        instead = {member: b"" if alone else without(batch, cuts) for member, cuts in own.items()}
        self._tell(self._members, batch, instead)


def tell_each(members: Dict[Member, bytes], data: bytes, instead: Mapping[Member, bytes]) -> None:
    """Tell the members by their transmit()."""
    others = members.copy()
    for member in instead:
        others.pop(member, None)
    send_each(list(others), data)
    for member, part in instead.items():
        if part and member in members:
            send_each([member], part)


def send_each(members: Sequence[Member], data: bytes) -> None:
    """The loop that this server spends its life in. map() makes it run in C, which takes away
    a good part of what Python costs here; who has not taken everything is found afterwards,
    and who raised an error by how far the loop got. That extend() keeps what came before an
    exception is CPython's behaviour, which the language does not promise."""
    transmit = methodcaller("transmit", data)
    remaining = iter(members)
    sent: List[int] = []
    while len(sent) < len(members):
        try:
            sent.extend(map(transmit, remaining))
        except OSError as error:
            member = members[len(sent)]
            sent.append(len(data))
            member.fell_short(data, 0, error)
    if sent.count(len(data)) < len(sent):
        for member, taken in zip(members, sent):
            if taken < len(data):
                member.fell_short(data, taken)


def without(batch: bytes, cuts: List[Tuple[int, int]]) -> bytes:
    """The batch without these parts of it, given in their order."""
    if len(cuts) == 1:
        ((start, end),) = cuts
        return batch[:start] + batch[end:]
    view = memoryview(batch)
    ends = [0, *(end for _, end in cuts)]
    starts = [*(start for start, _ in cuts), len(batch)]
    return b"".join([view[end:start] for end, start in zip(ends, starts)])
