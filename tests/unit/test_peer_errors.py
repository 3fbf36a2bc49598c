"""What a peer answers becomes the error it had, also where a more special error shares its code."""

from __future__ import annotations

import msgspec
import pytest

import dsdb_cli.node  # noqa: F401 - it has errors of its own, under codes of the daemon
from dsdbd import errors
from dsdbd.cluster.peer_lines import PeerUnreachable
from dsdbd.cluster.peers import error_from_body
from dsdbd.errors import DSDBError
from dsdbd.query import QueryCancelled


@pytest.mark.parametrize(
    "kind",
    [
        errors.Unavailable,
        errors.ShardUnavailable,
        errors.DiskFull,
        errors.OutcomeUnknown,
        errors.CorruptData,
        QueryCancelled,
    ],
)
def test_an_error_of_a_peer_is_of_the_class_that_its_code_names(kind: type[DSDBError]) -> None:
    body = msgspec.json.encode({"error": "why", "code": kind.code})
    error = error_from_body(503, body, "other:8088")
    assert type(error) is kind
    assert error.message == "why"


def test_an_error_that_shares_a_code_is_told_as_the_one_that_has_it() -> None:
    unreachable = PeerUnreachable("no answer from third:8088", sent=True)
    body = msgspec.json.encode({"error": unreachable.message, "code": unreachable.code})
    assert type(error_from_body(503, body, "other:8088")) is errors.ShardUnavailable
