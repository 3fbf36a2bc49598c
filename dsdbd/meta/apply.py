"""The state machine: ``apply(state, index, envelope) -> (state, result)``, pure and total.

Every node applies the same entries in the same order, so whatever an entry holds it must give the same state and the
same answer everywhere, and it must not stop the cluster: bytes that are no command, and a command that is refused,
give an error result and leave the objects as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dsdbd.limits import REQUEST_DEDUPE_CHUNK_BYTES, REQUEST_DEDUPE_ENTRIES
from dsdbd.meta import apply_databases, apply_moves, apply_nodes, apply_schema, apply_shards, apply_users, commands
from dsdbd.meta.commands import Failure, Result, decode_envelope, encode_result
from dsdbd.meta.edit import Context
from dsdbd.meta.refusals import Refusal
from dsdbd.meta.state import Answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.meta.commands import Envelope
    from dsdbd.meta.edit import Applied
    from dsdbd.meta.state import MetaState

    Handler = Callable[[MetaState, Any, Context], Applied]

_ANSWER_CHUNKS = 100
_ANSWERS_PER_CHUNK = REQUEST_DEDUPE_ENTRIES // _ANSWER_CHUNKS

HANDLERS: dict[type, Handler] = {
    commands.InitCluster: apply_nodes.init_cluster,
    commands.CreateMetaNode: apply_nodes.create_meta_node,
    commands.CreateDataNode: apply_nodes.create_data_node,
    commands.UpdateMetaNode: apply_nodes.update_meta_node,
    commands.UpdateDataNode: apply_nodes.update_data_node,
    commands.DropMetaNode: apply_nodes.drop_meta_node,
    commands.DropDataNode: apply_nodes.drop_data_node,
    commands.SetDraining: apply_nodes.set_draining,
    commands.CreateDatabase: apply_databases.create_database,
    commands.DropDatabase: apply_databases.drop_database,
    commands.CreateRetentionPolicy: apply_databases.create_retention_policy,
    commands.UpdateRetentionPolicy: apply_databases.update_retention_policy,
    commands.RaiseReplication: apply_databases.raise_replication,
    commands.SetDefaultRetentionPolicy: apply_databases.set_default_retention_policy,
    commands.DropRetentionPolicy: apply_databases.drop_retention_policy,
    commands.CreateShardGroups: apply_shards.create_shard_groups,
    commands.DeleteShardGroup: apply_shards.delete_shard_group,
    commands.PruneShardGroups: apply_shards.prune_shard_groups,
    commands.DropShard: apply_shards.drop_shard,
    commands.AddShardOwner: apply_shards.add_shard_owner,
    commands.RemoveShardOwner: apply_shards.remove_shard_owner,
    commands.BeginMoves: apply_moves.begin_moves,
    commands.CompleteMove: apply_moves.complete_move,
    commands.CancelMoves: apply_moves.cancel_moves,
    commands.CreateFields: apply_schema.create_fields,
    commands.DropMeasurementSchema: apply_schema.drop_measurement_schema,
    commands.CreateContinuousQuery: apply_schema.create_continuous_query,
    commands.DropContinuousQuery: apply_schema.drop_continuous_query,
    commands.RecordContinuousQueryRuns: apply_schema.record_continuous_query_runs,
    commands.CreateSubscription: apply_schema.create_subscription,
    commands.DropSubscription: apply_schema.drop_subscription,
    commands.CreateUser: apply_users.create_user,
    commands.UpdateUser: apply_users.update_user,
    commands.DropUser: apply_users.drop_user,
    commands.SetPrivilege: apply_users.set_privilege,
    commands.RevokePrivilege: apply_users.revoke_privilege,
    commands.SetAdminPrivilege: apply_users.set_admin_privilege,
}
"""What carries out each command; a handler gives the next state or raises Refusal."""


def apply(state: MetaState, index: int, envelope: bytes) -> tuple[MetaState, bytes]:
    """The state after the Raft entry at ``index`` and the encoded Result for whoever proposed it.

    A request id that was answered before gets the stored answer, with the index of its first time, and changes
    nothing. The state's index moves in every case.
    """
    try:
        request = decode_envelope(envelope)
    except ValueError as error:
        return replace(state, index=index), encode_result(Result(index, Failure("bad_command", str(error))))
    known = state.answers.get(request.request_id)
    if known is not None:
        return replace(state, index=index), known
    state, result = _carry_out(state, index, request)
    answer = encode_result(result)
    return replace(state, index=index, answers=remember(state.answers, request.request_id, answer)), answer


def _carry_out(state: MetaState, index: int, request: Envelope) -> tuple[MetaState, Result]:
    try:
        changed, value = HANDLERS[type(request.command)](state, request.command, Context(index, request.now_ns))
    except Refusal as refusal:
        return state, Result(index, Failure(refusal.code, refusal.message))
    except MemoryError:
        raise  # the only failure that other nodes may not share: going on would let the states drift apart
    except Exception as error:  # a fault that all nodes share must not stop them all at this entry
        name = type(request.command).__name__
        return state, Result(index, Failure("internal", f"{name} failed inside dsdbd: {type(error).__name__}"))
    return changed, Result(index, value=value)


def remember(answers: Answers, request_id: str, answer: bytes) -> Answers:
    """The table with one more answer; the oldest chunk goes when there are more than a hundred."""
    chunks = answers.chunks
    full = chunks and (
        len(chunks[-1]) >= _ANSWERS_PER_CHUNK or answers.newest_bytes + len(answer) > REQUEST_DEDUPE_CHUNK_BYTES
    )
    if full or not chunks:
        return Answers((*chunks, {request_id: answer})[-_ANSWER_CHUNKS:], len(answer))
    return Answers((*chunks[:-1], {**chunks[-1], request_id: answer}), answers.newest_bytes + len(answer))
