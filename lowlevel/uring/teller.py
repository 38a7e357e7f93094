"""How a room is told on a ring: one send for each, and one system call for all of them.

Every member has a submission of its own that is ready but for what is sent. All are told the same
bytes, which the kernel reads where they are; so the address and the length are written into all of
them by two assignments that loop in C, and the whole array goes into the submission queue. Nothing
of this is done for each member in Python.

Nor is anything done afterwards for those who have taken all. Sends that succeed post no completion
(IOSQE_CQE_SKIP_SUCCESS), and so silence must mean that everything was taken:

MSG_WAITALL     makes a send that was cut short a failure, which is told of. Without it the kernel
                counts a short send as a success: no completion, and the rest is lost.
MSG_DONTWAIT    makes the kernel give up where the send buffer is full. Without it it would keep the
                send, and go on reading the bytes when we think that it has done with them.

With both, the bytes are ours again when the submissions have been taken.
"""

from array import array
from typing import Any, Dict, List, Mapping

from lowlevel.uring.completion import KIND_BITS, TELL, Completions
from lowlevel.uring.ring import SEND, SKIP_SUCCESS, SQE_SIZE, address_of, sqe

FLAGS = 0x40 | 0x100  # MSG_DONTWAIT, MSG_WAITALL
# Of a submission in words of 8 bytes.
WORDS = SQE_SIZE // 8
ADDRESS, LENGTH_AND_FLAGS = 2, 3


class RingTeller:
    """Tells the members of a room, all of whom are CompletionConnections."""

    def __init__(self, completions: Completions):
        self._completions = completions
        self._recipients: List[Any] = []  # who takes all that it is told
        self._sends = bytearray()  # the submission of each of them
        self._behind: Dict[Any, None] = {}  # who does not
        self._data = b""  # what was told last
        self._instead: Mapping[Any, bytes] = {}

    def add(self, member: Any) -> None:
        """From now on it is told by a send."""
        self._behind.pop(member, None)
        member.place = len(self._recipients)
        self._recipients.append(member)
        user_data = member.key << KIND_BITS | TELL
        self._sends += sqe(SEND, member.fileno(), user_data, flags=SKIP_SUCCESS)

    def remove(self, member: Any) -> None:
        """It is told no more."""
        self._behind.pop(member, None)
        if member.place >= 0:
            self._to_place(member, len(self._recipients) - 1)
            del self._recipients[-1], self._sends[-SQE_SIZE:]
            member.place = -1

    def fall_behind(self, member: Any) -> None:
        """It keeps what it is told, since something waits for it."""
        self.remove(member)
        self._behind[member] = None

    def last_sent_to(self, member: Any) -> bytes:
        """What it was told last."""
        return self._instead.get(member, self._data)

    def tell(self, members: Mapping[Any, bytes], data: bytes, instead: Mapping[Any, bytes]) -> None:
        """Queue the sends, which leave together with the next wait."""
        # Nobody may be told this in front of the rest of what it has been told before.
        self._completions.settle()
        self._data, self._instead = data, instead
        count = len(self._recipients)
        for member, part in instead.items():
            if not part and member.place >= 0:
                count -= 1
                self._to_place(member, count)
        if count:
            end = count * WORDS
            with memoryview(self._sends) as sends, sends.cast("Q") as words:
                words[ADDRESS:end:WORDS] = array("Q", [address_of(data)]) * count
                words[LENGTH_AND_FLAGS:end:WORDS] = array("Q", [len(data) | FLAGS << 32]) * count
                for member, part in instead.items():
                    if part and member.place >= 0:
                        word = member.place * WORDS
                        words[word + ADDRESS] = address_of(part)
                        words[word + LENGTH_AND_FLAGS] = len(part) | FLAGS << 32
                with sends[: count * SQE_SIZE] as queued:  # released: a view forbids to resize
                    self._completions.ring.queue(queued)
        for member in list(self._behind):
            part = instead.get(member, data)
            if part:
                member.transmit(part)

    def _to_place(self, member: Any, place: int) -> None:
        """Change places with whoever is there."""
        if member.place == place:
            return
        other, sends = self._recipients[place], self._sends
        here, there = member.place * SQE_SIZE, place * SQE_SIZE
        send = sends[here : here + SQE_SIZE]
        sends[here : here + SQE_SIZE] = sends[there : there + SQE_SIZE]
        sends[there : there + SQE_SIZE] = send
        self._recipients[member.place], self._recipients[place] = other, member
        member.place, other.place = place, member.place
