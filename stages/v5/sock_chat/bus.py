"""The connection to NATS, and whether it can be relied upon.

NATS is away when the connection is cut, when a reader hears nothing (`stream_reader`), and when
something that was written is not acknowledged in time. What then happens is the same for all of
them: connect, ask for the stream, read on to its end, and only then write again what has not been
read by then. Should that take longer than GRACE, the clients are told to wait. Nothing is lost
meanwhile and nothing comes twice, for the stream alone is trusted, and nats-py's own buffers are
not used.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import nats.errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, ServiceUnavailableError

from sock_chat.intervals import Intervals
from sock_chat.nats_client import NatsClient
from sock_chat.store import StoreError
from sock_chat.stream_reader import FAILURES, StreamReader
from sock_chat.wire import Subjects

NOT_NOW = (
    ServiceUnavailableError,
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    OSError,
)
NAME_IN_USE = 10058  # JetStream's error: there is such a stream, with another configuration
MSG_TTL_SINCE = (2, 11)  # nats-server
DUPLICATE_WINDOW = 120.0
MAX_SILENCE = 2.5  # heartbeats

T = TypeVar("T")


class Bus:
    """away, back: called when NATS is, once each."""

    def __init__(
        self,
        servers: Sequence[str],
        subjects: Subjects,
        intervals: Intervals,
        away: Callable[[], None],
        back: Callable[[], None],
    ):
        self.subjects = subjects
        self.intervals = intervals
        self.client = NatsClient()
        self.api: JetStreamContext = self.client.jetstream(timeout=intervals.answer)
        self.is_away = True
        self.is_recovering = True  # nothing is to be written
        self.has_ttl = False  # whether keys can have an end
        self._is_started = False
        self._servers = list(servers)
        self._away = away
        self._back = back
        self._readers: list[StreamReader] = []
        self._recovery: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._returned = asyncio.Event()
        self._error = ""
        self._began = 0.0  # when the recovery that is under way did

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    async def connect(self, keep: int, replicas: int) -> StreamInfo:
        """The stream, made if need be. Raises StoreError: why not, in one line."""
        seconds = self.intervals.connect
        try:
            await asyncio.wait_for(self._connect(), seconds)
            self.has_ttl = _version(self.client) >= MSG_TTL_SINCE
            await asyncio.wait_for(self._make_streams(keep, replicas), seconds)
            self.is_away = self.is_recovering = False
            self._returned.set()
            return await self.api.stream_info(self.subjects.stream)
        except (*FAILURES, ValueError) as error:
            await self._close_client()
            reason = self._error or str(error) or f"no responde en {seconds:g} s"
            raise StoreError(f"No se puede usar el bus {self._servers[0]}: {reason}") from None

    async def _connect(self) -> None:
        async def fail(error: Exception) -> None:
            self._error = str(error)

        async def recover() -> None:
            self.recover()

        await self.client.connect(
            self._servers, name="sock_chat", error_cb=fail, disconnected_cb=recover,
            reconnected_cb=recover, connect_timeout=2,
            reconnect_time_wait=self.intervals.retry,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=self.intervals.ping,  # type: ignore[arg-type]
            max_outstanding_pings=2, pending_size=1 << 26,
        )  # fmt: skip

    async def _make_streams(self, keep: int, replicas: int) -> None:
        subjects = self.subjects
        await self._make(
            StreamConfig(
                name=subjects.stream, subjects=[subjects.log], description=secrets.token_hex(8),
                max_msgs=keep or 1, storage=StorageType.FILE, num_replicas=replicas,
                duplicate_window=DUPLICATE_WINDOW, allow_direct=True,
            )
        )  # fmt: skip
        await self._make(
            StreamConfig(
                name=subjects.bucket, subjects=[f"{subjects.keys}>"], max_msgs_per_subject=1,
                storage=StorageType.FILE, num_replicas=replicas, discard=DiscardPolicy.NEW,
                duplicate_window=DUPLICATE_WINDOW, allow_direct=True, allow_rollup_hdrs=True,
                deny_delete=True, allow_msg_ttl=True if self.has_ttl else None,
            )
        )  # fmt: skip

    async def _make(self, config: StreamConfig) -> None:
        """Make a stream, or make one that is there as we want it."""
        assert config.name
        while True:
            with suppress(*NOT_NOW):
                try:
                    await self.api.add_stream(config)
                except APIError as error:
                    if error.err_code != NAME_IN_USE:
                        raise
                    there = (await self.api.stream_info(config.name)).config
                    await self.api.update_stream(config.evolve(description=there.description))
                return
            await asyncio.sleep(self.intervals.retry)  # a cluster has no leader yet

    def reader(self, stream: str, deliver: Callable[[int, Any], None]) -> StreamReader:
        reader = StreamReader(self.client, stream, deliver, self.recover, self.intervals.heartbeat)
        self._readers.append(reader)
        return reader

    def start(self) -> None:
        """All has been read. From now on look after the readers."""
        self._is_started = True
        self.do(self._watch())

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done, until the end of the server at most."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            context = {"message": "task", "exception": error}
            task.get_loop().call_exception_handler(context)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask NATS until it answers, however often."""
        while True:
            await self.wait()
            with suppress(*FAILURES):
                return await call()
            await asyncio.sleep(self.intervals.retry)

    async def wait(self) -> None:
        """Until NATS is back."""
        await self._returned.wait()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        silence = MAX_SILENCE * self.intervals.heartbeat
        while True:
            await asyncio.sleep(self.intervals.heartbeat / 2)
            if any(loop.time() - reader.heard > silence for reader in self._readers):
                self.recover()

    def recover(self) -> None:
        """Something is wrong: see to it."""
        if self._recovery is None and self._is_started:
            self.is_recovering = True
            self._recovery = asyncio.get_running_loop().create_task(self._recover())
            self._tasks.add(self._recovery)
            self._recovery.add_done_callback(self._done)

    async def _recover(self) -> None:
        began = time.monotonic()
        asyncio.get_running_loop().call_later(self.intervals.grace, self._say_away, began)
        self._began = began
        while True:
            with suppress(*FAILURES):
                for reader in self._readers:
                    await asyncio.wait_for(self._read_on(reader), 4 * self.intervals.answer)
                break
            await asyncio.sleep(self.intervals.retry)
        self._recovery = None
        self._began = 0.0
        self.is_away = self.is_recovering = False
        self._returned.set()
        self._back()

    async def _read_on(self, reader: StreamReader) -> None:
        if not self.client.is_connected:
            raise nats.errors.ConnectionClosedError
        info = await self.api.stream_info(reader.stream)
        reader.last = min(reader.last, info.state.last_seq)  # NATS has lost what came after
        await reader.catch_up(await reader.restart())
        reader.last = max(reader.last, info.state.last_seq)  # the last may have been deleted

    def _say_away(self, began: float) -> None:
        if self._began == began and not self.is_away:
            self.is_away = True
            self._returned.clear()
            self._away()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._close_client()

    async def _close_client(self) -> None:
        """In a task of its own: close() may end by a CancelledError that nobody has sent to it, and
        may swallow the one that is."""
        closing = asyncio.ensure_future(self.client.close())
        closing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([closing], timeout=self.intervals.answer)
        closing.cancel()


def _version(client: NatsClient) -> tuple[int, int]:
    version = client.connected_server_version
    return version.major, version.minor
