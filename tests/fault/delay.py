"""Holds packets back: a queue of the kernel's packet filter whose packets wait here before they go on.

``python -I -S delay.py QUEUE DELAY_MS JITTER_MS`` runs inside one node's network namespace. What the filter's rules
hand to ``NFQUEUE`` number QUEUE goes on DELAY_MS ± JITTER_MS later, so that packets also overtake one another. It says
``ready`` when rules may be set, and ends when its input is closed; what it holds then goes on at once. It needs
nothing but the standard library and starts in a moment. Formats: linux/netlink.h, linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import errno
import heapq
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_QUEUE_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = _QUEUE_SUBSYSTEM, _QUEUE_SUBSYSTEM | 1, _QUEUE_SUBSYSTEM | 2
_ERROR = 2
_REQUEST, _ACK = 1, 4
_CFG_COMMAND, _CFG_PARAMS, _CFG_LENGTH, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_BIND, _COPY_META, _FLAG_SEGMENTS_LATER = 1, 1, 4
_PACKET_HEADER, _VERDICT_HEADER = 1, 2
_ACCEPT = 1
_MOST_PACKETS = 65_536
"""Beyond that the kernel drops, as a full queue of a network does."""
_BUFFER_BYTES = 8 << 20
_SO_RCVBUFFORCE = 33
_IDLE_S = 1.0


def message(kind: int, flags: int, queue: int, *attributes: tuple[int, bytes]) -> bytes:
    """One netlink message about a queue."""
    body = struct.pack(">BBH", socket.AF_UNSPEC, 0, queue)
    for number, value in attributes:
        size = 4 + len(value)
        body += struct.pack("=HH", size, number) + value + bytes(-size % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def packets(data: bytes) -> Iterator[int]:
    """Numbers of the packets that netlink messages tell of."""
    at = 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if kind == _PACKET:
            inner = at + 20
            while inner + 4 <= at + size:
                length, number = struct.unpack_from("=HH", data, inner)
                if number == _PACKET_HEADER:
                    yield struct.unpack_from(">I", data, inner + 4)[0]
                    break
                inner += (length + 3) & ~3
        at += (size + 3) & ~3


def refusal(data: bytes) -> int:
    """The error number of an answer to a request; 0 for an acknowledgement."""
    kind = struct.unpack_from("=H", data, 4)[0]
    return -struct.unpack_from("=i", data, 16)[0] if kind == _ERROR else 0


class Delay:
    """One queue of this namespace. Raises OSError where the kernel knows no such queues."""

    def __init__(self, queue: int, delay_s: float, jitter_s: float) -> None:
        self._queue = queue
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._held: list[tuple[float, int]] = []
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        for attributes in (
            [(_CFG_COMMAND, struct.pack(">BBH", _BIND, 0, socket.AF_INET))],
            [(_CFG_PARAMS, struct.pack(">IB", 0, _COPY_META)), (_CFG_LENGTH, struct.pack(">I", _MOST_PACKETS))],
            # Packets of a large send stay one piece: a hundredth of the work.
            [
                (_CFG_MASK, struct.pack(">I", _FLAG_SEGMENTS_LATER)),
                (_CFG_FLAGS, struct.pack(">I", _FLAG_SEGMENTS_LATER)),
            ],
        ):
            self._socket.send(message(_CONFIG, _REQUEST | _ACK, queue, *attributes))
            if error := refusal(self._socket.recv(1 << 16)):
                raise OSError(error, "the kernel refuses a queue")
        self._socket.setblocking(False)

    def run(self, ending: int) -> None:
        """Hold and let go until ``ending``, a file descriptor, can be read; then let all go."""
        while True:
            now_s = time.monotonic()
            wait_s = max(0.0, self._held[0][0] - now_s) if self._held else _IDLE_S
            readable, _, _ = select.select([self._socket, ending], [], [], wait_s)
            self._drain()
            self._let_go(time.monotonic())
            if ending in readable:
                self._let_go(float("inf"))
                return

    def _drain(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                # A buffer that ran over has lost news of packets that the kernel has dropped.
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            self._take(data, time.monotonic())

    def _take(self, data: bytes, now_s: float) -> None:
        for number in packets(data):
            due_s = now_s + self._delay_s + random.uniform(-self._jitter_s, self._jitter_s)
            heapq.heappush(self._held, (due_s, number))

    def _let_go(self, now_s: float) -> None:
        verdicts = b""
        while self._held and self._held[0][0] <= now_s:
            _, number = heapq.heappop(self._held)
            verdicts += message(_VERDICT, _REQUEST, self._queue, (_VERDICT_HEADER, struct.pack(">II", _ACCEPT, number)))
            if len(verdicts) > 1 << 15:
                self._socket.send(verdicts)
                verdicts = b""
        if verdicts:
            self._socket.send(verdicts)


def main() -> int:
    """Hold packets until the input is closed."""
    queue, delay_ms, jitter_ms = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    try:
        delay = Delay(queue, delay_ms / 1000, jitter_ms / 1000)
    except OSError as error:
        print(error, flush=True)
        return 1
    print("ready", flush=True)
    delay.run(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
