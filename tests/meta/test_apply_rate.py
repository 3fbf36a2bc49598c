"""Commands per second with a large state; slow, because it builds 10,000 shard groups."""

import time

import pytest

from dsdbd.meta import commands as c
from dsdbd.meta.apply import apply
from dsdbd.meta.state import MetaState, decode_state, encode_state
from dsdbd.model.types import FieldType
from tests.meta.dialogue import Machine

HOUR = 3_600 * 10**9
GROUPS = 10_000
FLOOR_PER_S = 3_000


def rate(state, commands):
    """The state after ``commands`` and how many a second were applied, in processor time of this thread."""
    blobs = [c.encode_envelope(c.Envelope(f"q{n}", n, command)) for n, command in enumerate(commands)]
    start = time.thread_time()
    for index, blob in enumerate(blobs):
        state, answer = apply(state, index + 1, blob)
        assert answer
    return state, len(blobs) / (time.thread_time() - start)


@pytest.mark.slow
def test_ten_thousand_shard_groups_do_not_slow_commands_down():
    machine = Machine()
    for number in range(5):
        machine.give(c.CreateDataNode(f"u{number}", f"h{number}:1", f"h{number}:2"))
    machine.give(c.CreateDatabase("d", c.PolicySpec(replica_n=3, shard_group_duration_ns=HOUR)))
    for start in range(0, GROUPS, 1000):
        times = tuple((start + hour) * HOUR for hour in range(1000))
        assert machine.give(c.CreateShardGroups("d", "autogen", times)).ok
    fields = {f"m{n}": {f"f{f}": FieldType.FLOAT for f in range(10)} for n in range(1000)}
    assert machine.give(c.CreateFields("d", "autogen", fields)).ok
    state: MetaState = machine.state
    blob = encode_state(state)
    assert decode_state(blob) == state
    kinds = {
        "groups at the end": [c.CreateShardGroups("d", "autogen", ((GROUPS + n) * HOUR,)) for n in range(1000)],
        "groups that exist": [c.CreateShardGroups("d", "autogen", (n * HOUR,)) for n in range(1000)],
        "groups at the front": [c.CreateShardGroups("d", "autogen", (-n * HOUR,)) for n in range(1, 1001)],
        "fields of new measurements": [
            c.CreateFields("d", "autogen", {f"n{n}": {"x": FieldType.FLOAT}}) for n in range(1000)
        ],
        "users": [c.CreateUser(f"u{n}", "h") for n in range(1000)],
        "databases": [c.CreateDatabase(f"d{n}") for n in range(1000)],
    }
    rates = {name: max(rate(state, commands)[1] for _ in range(3)) for name, commands in kinds.items()}
    print({name: round(value) for name, value in rates.items()}, len(blob))
    assert min(rates.values()) >= FLOOR_PER_S, rates
