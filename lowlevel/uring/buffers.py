"""Provided buffers: memory that the kernel takes from when it has something to put into it.

A receive that waits for a client that says nothing would hold its buffer all the time, one for
each idle client. Provided buffers belong to nobody. A receive that is armed names the group; when
bytes are there the kernel takes the next buffer of the group, and its completion says which
(IORING_CQE_F_BUFFER, the number in the upper half of the flags). What was in it is copied out here
at once, and the buffer goes back.

The way back is a ring, too, of (address, length, number). We write entries and the tail, the
kernel reads them when it wants a buffer. When none is left, the receive ends with ENOBUFS. Nothing
is lost: the bytes are still in the socket, and a receive that is armed after the buffers have gone
back gets them.
"""

import mmap
import struct

from lowlevel.uring.ring import Ring, address_of_map

REGISTER_PBUF_RING = 22
ENTRY = struct.Struct("<QIH")  # and two bytes that are not ours: in the first entry, the tail
ENTRY_SIZE = 16
TAIL = 14


class Buffers:
    """`count` buffers, a power of two, of `size` bytes, as a group of the ring."""

    def __init__(self, ring: Ring, count: int, size: int, group: int = 0):
        self.group = group
        self._size = size
        self._mask = count - 1
        self._memory = mmap.mmap(-1, count * size)
        self._address = address_of_map(self._memory)
        self._entries = mmap.mmap(-1, count * ENTRY_SIZE)  # a page of its own, as it must be
        self._tail = 0
        self._shared_tail = memoryview(self._entries)[TAIL : TAIL + 2].cast("H")
        self._numbers = [-1] * count  # what stands in each entry
        registration = struct.pack("<QIHH24x", address_of_map(self._entries), count, group, 0)
        ring.register(REGISTER_PBUF_RING, bytearray(registration), 1)
        for number in range(count):
            self._give_back(number)

    def take(self, number: int, length: int) -> bytes:
        """What the kernel has put into this buffer, which goes back."""
        start = number * self._size
        data = self._memory[start : start + length]
        self._give_back(number)
        return data

    def _give_back(self, number: int) -> None:
        place = self._tail & self._mask
        if self._numbers[place] != number:  # not given back in the order in which it was taken
            self._numbers[place] = number
            address = self._address + number * self._size
            ENTRY.pack_into(self._entries, place * ENTRY_SIZE, address, self._size, number)
        self._tail = (self._tail + 1) & 0xFFFF
        self._shared_tail[0] = self._tail  # after the entry, not before

    def close(self) -> None:
        """Once the ring is closed, and nobody puts anything into them."""
        self._shared_tail.release()
        self._memory.close()
        self._entries.close()
