"""A small state machine for tests: a map with request ids, which counts how often each key was really set."""

from __future__ import annotations

import msgspec

POISON = b"poison"


def set_command(request_id: str, key: str, value: object) -> bytes:
    return msgspec.msgpack.encode([request_id, key, value])


class MapMachine:
    def __init__(self) -> None:
        self.values: dict[str, list] = {}
        self.answers: dict[str, int] = {}
        self.applied: list[int] = []

    def apply(self, index: int, command: bytes) -> bytes:
        assert not self.applied or index > self.applied[-1], "indexes only grow"
        self.applied = [index]
        if command == POISON:
            raise ValueError("poisoned")
        request_id, key, value = msgspec.msgpack.decode(command)
        if request_id not in self.answers:
            self.answers[request_id] = index
            self.values[key] = [value, self.values.get(key, [None, 0])[1] + 1]
        return msgspec.msgpack.encode(self.answers[request_id])

    def dump(self) -> bytes:
        return msgspec.msgpack.encode([self.values, self.answers])

    def load(self, blob: bytes) -> None:
        self.values, self.answers = msgspec.msgpack.decode(blob)
        self.applied = []
