"""Decoders made by many threads at once: the library by itself ends the process where types share a struct."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
import msgspec
from dsdbd.decoding import decode_json, decode_msgpack

sys.setswitchinterval(1e-6)
for round in range(40):
    names = {"msgspec": msgspec}
    fields = "".join(f"    f{number}: 'list[tuple[int, str]] | None' = None\\n" for number in range(40))
    exec(f"class Inner(msgspec.Struct):\\n{fields}\\nclass A(msgspec.Struct):\\n    one: Inner\\n", names)
    barrier = threading.Barrier(8)

    def decode(number):
        barrier.wait()
        if number % 2:
            assert decode_json(b'{"one": {}}', names["A"]).one == names["Inner"]()
        else:
            assert decode_msgpack(msgspec.msgpack.encode({}), names["Inner"]) == names["Inner"]()

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print("done")
"""


@pytest.mark.slow
def test_threads_may_decode_types_nobody_decoded_before() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")
