"""Commands per second with a large state; slow, because it builds 10,000 shard groups."""

import time

import pytest

from dsdbd.meta import commands as c
from dsdbd.meta import rows
from dsdbd.meta.apply import apply
from dsdbd.meta.state import decode_state, encode_state
from dsdbd.model.types import FieldType
from tests.meta.dialogue import Machine

HOUR = 3_600 * 10**9
GROUPS = 10_000
FLOOR_PER_S = 3_000
FLOOR_IN_ONE_POLICY_PER_S = 1_000  # a new group copies the references to all groups of its policy


def rate(state, commands):
    """The state after ``commands`` and how many a second were applied, in processor time of this thread."""
    blobs = [c.encode_envelope(c.Envelope(f"q{n}", n, command)) for n, command in enumerate(commands)]
    start = time.thread_time()
    for index, blob in enumerate(blobs):
        state, answer = apply(state, index + 1, blob)
        assert answer
    return state, len(blobs) / (time.thread_time() - start)


def filled(policies):
    """A state with 10,000 groups of an hour, spread evenly over that many policies, and 1,000 measurements in each."""
    machine = Machine()
    for number in range(5):
        machine.give(c.CreateDataNode(f"u{number}", f"h{number}:1", f"h{number}:2"))
    machine.give(c.CreateDatabase("d", autocreate=False))
    fields = {f"m{n}": {f"f{f}": FieldType.FLOAT for f in range(10)} for n in range(1000)}
    each = GROUPS // policies
    for policy in range(policies):
        assert machine.give(c.CreateRetentionPolicy("d", f"p{policy}", 0, 3, HOUR)).ok
        assert machine.give(c.CreateFields("d", f"p{policy}", fields)).ok
        for start in range(0, each, 500):
            times = tuple((start + hour) * HOUR for hour in range(500))
            assert machine.give(c.CreateShardGroups("d", f"p{policy}", times)).ok
    assert len(rows.show_shard_groups(machine.state).rows) == GROUPS
    return machine.state, each


@pytest.mark.slow
@pytest.mark.parametrize(("policies", "floor"), [(4, FLOOR_PER_S), (1, FLOOR_IN_ONE_POLICY_PER_S)])
def test_ten_thousand_shard_groups_do_not_slow_commands_down(policies, floor):
    state, each = filled(policies)
    blob = encode_state(state)
    assert decode_state(blob) == state
    floats = {"x": FieldType.FLOAT}
    kinds = {
        "groups at the end": [c.CreateShardGroups("d", "p0", ((each + n) * HOUR,)) for n in range(1000)],
        "groups that exist": [c.CreateShardGroups("d", "p0", (n * HOUR,)) for n in range(1000)],
        "groups at the front": [c.CreateShardGroups("d", "p0", (-n * HOUR,)) for n in range(1, 1001)],
        "fields of new measurements": [c.CreateFields("d", "p0", {f"n{n}": floats}) for n in range(1000)],
        "users": [c.CreateUser(f"u{n}", "h") for n in range(1000)],
        "databases": [c.CreateDatabase(f"d{n}") for n in range(1000)],
    }
    rates = {name: max(rate(state, commands)[1] for _ in range(3)) for name, commands in kinds.items()}
    print({name: round(value) for name, value in rates.items()}, len(blob))
    assert min(rates.values()) >= floor, rates
