"""The command line of `dsdb node`, and what it prints."""

from __future__ import annotations

import pytest

from dsdb_cli.errors import UsageError
from dsdb_cli.node import duration_text, node_lines, plan_lines, progress_line, size_text
from dsdb_cli.options import parse_node


def test_flags_stand_before_the_numbers_or_behind_them() -> None:
    for words in (
        "-host a:1 replace 4 8 -dry-run",
        "replace 4 -dry-run 8 -host a:1",
        "replace -dry-run=true -host=a:1 4 8",
    ):
        options = parse_node(words.split(), {})
        assert (options.command, options.node, options.to, options.dry_run) == ("replace", 4, 8, True)
        assert (options.server.host, options.server.port, options.detach) == ("a", 1, False)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "dsdb node needs a command: it has list, add"),
        ("ad 4", 'unknown command "ad"'),
        ("add", "takes the number of one node, not 0"),
        ("replace 4", "takes two numbers of nodes, the old one and the new one, not 1"),
        ("list 4", "takes no numbers of nodes, not 1"),
        ("add four", '"four" is no number of a node'),
        ("add 0", '"0" is no number of a node'),
        ("drain 4 -force", "flag provided but not defined: -force"),
        ("list -format csv", "prints text or json"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_node(words.split(), {})


def test_help_needs_no_command() -> None:
    assert parse_node(["-help"], {}).show_help


def test_a_plan_says_how_much_goes_where() -> None:
    move = {"shard": 3, "database": "d", "retention_policy": "rp", "to": 8, "replaces": 6, "bytes": 2_500_000}
    added = {**move, "shard": 4, "replaces": None, "bytes": 500}
    plan = {"moves": [move, added], "removals": [], "bytes": 2_500_500, "seconds": 200.0, "refusals": []}
    assert plan_lines(plan) == [
        "2 copies, 2.5 MB, about 3 min:",
        "  shard 3 of d.rp to data node 8, in place of data node 6: 2.5 MB",
        "  shard 4 of d.rp to data node 8: 500 B",
    ]
    surplus = {**plan, "moves": [], "removals": [{"shard": 9, "from": 4}]}
    assert plan_lines(surplus) == ["shard 9 has more copies than its policy asks for: data node 4 gives up its own"]
    assert plan_lines({**plan, "moves": []}) == ["nothing has to move"]
    assert plan_lines({**plan, "refusals": ["shard 7 has no other copy"]}) == [
        "refused:",
        "  shard 7 has no other copy",
    ]


def test_progress_names_what_stands_in_the_way() -> None:
    moves = [
        {"state": "copying", "bytes": 10, "total_bytes": 20, "error": ""},
        {"state": "failed", "bytes": 0, "total_bytes": 0, "error": "no owner of shard 3 answers"},
    ]
    assert progress_line(moves, 9) == "7 of 9 copies made, 1 under way: 10 B of 20 B; no owner of shard 3 answers"
    assert progress_line([{**moves[0], "state": "waiting", "error": ""}], 1) == "0 of 1 copy made, 0 under way"


def test_a_plan_says_who_leaves_and_what_the_votes_left_are_good_for() -> None:
    plan: dict[str, object] = {"moves": [], "removals": [], "bytes": 0, "seconds": 0.0, "refusals": []}
    leaves = [{"role": "data", "id": 4}, {"role": "meta", "id": 3}]
    assert plan_lines({**plan, "leaves": leaves, "votes_left": 2}) == [
        "nothing has to move",
        "then data node 4 and meta node 3 leave the cluster",
        "meta nodes left: 2; the metadata cannot change while one of them is away",
    ]
    assert plan_lines({**plan, "leaves": leaves, "votes_left": 4})[-1].endswith("while at most 1 of them are away")
    assert plan_lines({**plan, "leaves": leaves[:1], "votes_left": 3}) == [
        "nothing has to move",
        "then data node 4 leaves the cluster",
    ]


def test_the_list_shows_what_a_node_holds_and_what_it_did_not_say() -> None:
    up = {
        "data_id": 2,
        "meta_id": 1,
        "tcp_addr": "a:1",
        "state": "draining",
        "shards": 3,
        "incoming": 0,
        "leaving": 3,
        "bytes": 1_234,
        "kept_bytes": 0,
    }
    down = {"data_id": 4, "meta_id": None, "tcp_addr": "b:1", "state": "down", "shards": 1, "incoming": 0, "leaving": 0}
    assert node_lines([up, down]) == [
        "DATA  META  TCP  STATE     SHARDS  INCOMING  LEAVING  BYTES   HANDOFF",
        "2     1     a:1  draining  3       0         3        1.2 kB  0 B",
        "4     -     b:1  down      1       0         0        -       -",
    ]


def test_sizes_and_times_have_units() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 12_345_678, 10**13)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "10.0 TB",
    ]
    assert [duration_text(seconds) for seconds in (0.0, 89.0, 90.0, 7200.0)] == ["1 s", "89 s", "2 min", "2.0 h"]
