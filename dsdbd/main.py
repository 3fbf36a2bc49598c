"""The daemon, told from top to bottom: read the configuration, answer HTTP, become a member, serve, stop.

This is the only place where the parts meet. HTTP answers before the node is a member, so that a node which waits can
be asked what it waits for.
"""

from __future__ import annotations

from dsdbd import loading

# isort: split
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from dsdbd import commands, notify
from dsdbd.bringup import (
    Network,
    advertise,
    open_handoff,
    open_store,
    refuse_changed_roles,
    register_founder,
    start_metadata,
)
from dsdbd.clock import SystemClock
from dsdbd.cluster.detector import FailureDetector
from dsdbd.cluster.formation import Formation, Progress, check_lone_member
from dsdbd.cluster.membership import Membership
from dsdbd.cluster.node import Node
from dsdbd.cluster.peers import PeerClient
from dsdbd.cluster.reads import ReadPath
from dsdbd.cluster.repair import Repair
from dsdbd.cluster.secret import resolve_secret
from dsdbd.cluster.transfer import Transfer
from dsdbd.cluster.watch import RemovalWatch, ShardReaper
from dsdbd.cluster.writes import WritePath
from dsdbd.config import load_config, split_address
from dsdbd.errors import ConfigError, DSDBError, StartError, UsageError
from dsdbd.fsio import make_dirs
from dsdbd.http.apps import Applications
from dsdbd.http.metrics import watch_loop_lag
from dsdbd.logs import set_up_logging
from dsdbd.meta.identity import Phase, check_address, load_identity
from dsdbd.meta.store import Metadata
from dsdbd.services.continuous import ContinuousQueries
from dsdbd.services.precreation import Precreation
from dsdbd.services.replication import Replication
from dsdbd.services.retention import Retention
from dsdbd.services.subscriber import Subscriber
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from dsdbd.commands import Invocation
    from dsdbd.config import Config
    from dsdbd.services.leading import LeaderJob

loading.done()
log = structlog.get_logger("daemon")
_STOP_TIMEOUT_S = 25.0
_WRITE_OUT_S = 12.0
"""Of it, for writing out what is in memory; the log keeps the rest for the next start."""


def main() -> int:
    """Entry point of ``dsdbd``; returns the exit code, and prints one sentence instead of a traceback."""
    if sys.argv[1:2] in (["backup"], ["restore"]):
        # They are clients of a daemon, and nothing of theirs is needed to run one.
        from dsdbd.backup import program

        return program.main(sys.argv[1:])
    try:
        invocation = commands.parse(sys.argv[1:])
        match invocation.command:
            case commands.Command.HELP:
                sys.stdout.write(commands.HELP)
            case commands.Command.VERSION:
                branch, commit = commands.source_state(Path(__file__).parent.parent)
                sys.stdout.write(commands.version_text(branch, commit) + "\n")
            case commands.Command.CONFIG:
                sys.stdout.write(commands.run_config(invocation, os.environ))
            case commands.Command.RUN:
                _run(invocation)
    except UsageError as error:
        sys.stderr.write(error.message + "\n")
        return error.exit_code
    except StartError as error:
        for line in error.message.splitlines():
            sys.stderr.write(f"dsdbd: {line}\n")
        return error.exit_code
    except DSDBError as error:
        sys.stderr.write(f"dsdbd: {error.message}\n")
        return 1
    except Exception:
        log.exception("the daemon ended by a defect of dsdbd")
        sys.stderr.write("dsdbd: stopped by a defect of its own; the log has the details, please report them\n")
        return 1
    return 0


def _run(invocation: Invocation) -> None:
    set_up_logging(os.environ)
    config = load_config(invocation.config_path, os.environ, invocation.flags)
    log.info("starting", version=VERSION, pid=os.getpid(), config=str(config.source or "built-in defaults"))
    for warning in config.warnings:
        log.warning(warning)
    with contextlib.ExitStack() as stack:
        if invocation.pidfile is not None:
            stack.enter_context(notify.PidFile(invocation.pidfile))
        # What was imported stays until the end: each full collection of garbage that looked at it stopped all threads
        # for tens of milliseconds.
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config))


async def _serve(config: Config) -> None:
    """Run the node until a signal or a fatal error, which is raised."""
    node = await _make_node(config)
    membership, writes, reads = Membership(node), WritePath(node), ReadPath(node)
    node.versions = writes.clock
    node.detector = detector = FailureDetector(node)
    if config.data.enabled:
        node.repair = Repair(node, writes.clock)
        node.transfer = Transfer(node, writes.clock)
    subscriber = Subscriber(node) if config.subscriber.enabled else None
    network = Network(config, node.addresses)
    network.bind()
    await node.peers.start()
    node.handoff = await open_handoff(node)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, node)
    tasks: list[asyncio.Task[None]] = []
    try:
        await network.start(Applications(node, membership, writes, reads))
        node.progress.on_change = lambda sentence: _tell(notify.status("waiting: " + sentence))
        _tell(notify.READY + "\n" + notify.status("answering; becoming a member"))
        jobs = _jobs(node, reads, writes)
        tasks.append(asyncio.create_task(_live(node, membership, network, jobs), name="live"))
        tasks.append(asyncio.create_task(watch_loop_lag(), name="loop-lag"))
        tasks.append(asyncio.create_task(detector.run(), name="detector"))
        await _until_the_end(node, tasks)
    finally:
        _tell(notify.STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await _stop(node, network, writes, subscriber, tasks)
        log.info("stopped")


async def _make_node(config: Config) -> Node:
    """Everything about this node that needs no other: directories, identity, addresses, secret."""
    meta_dir = config.meta.dir
    try:
        make_dirs(meta_dir)
    except OSError as error:
        raise ConfigError(f"cannot create [meta] dir {meta_dir}: {error.strerror}") from error
    addresses = advertise(config, socket.gethostname())
    identity = load_identity(meta_dir)
    if identity is not None:
        check_address(identity, addresses.tcp, meta_dir)
        refuse_changed_roles(identity, config)
    elif not config.meta.enabled and not config.join:
        raise ConfigError(
            "server not set to join existing cluster must run also as a meta node: set [meta] enabled = true, or name "
            "members with -join"
        )
    hosts = [split_address(address)[0] for address in (config.bind_address, config.meta.http_bind_address)]
    secret = resolve_secret(
        configured=config.meta.cluster_secret_file,
        meta_dir=meta_dir,
        bind_hosts=hosts,
        fresh=identity is None,
        joins=bool(config.join),
    )
    node_uuid = identity.uuid if identity is not None else uuid.uuid4().hex
    clock = SystemClock()
    holder: list[Node] = []
    peers = PeerClient(
        secret,
        lambda: (holder[0].cluster_id, node_uuid),
        write_connections=config.cluster.max_remote_write_connections,
    )
    node = Node(
        config=config,
        clock=clock,
        uuid=node_uuid,
        addresses=addresses,
        secret=secret,
        join=tuple(config.join),
        peers=peers,
        metadata=Metadata(clock),
        progress=Progress(),
        started_ns=clock.now_ns(),
        fatal=asyncio.get_running_loop().create_future(),
        identity=identity,
    )
    holder.append(node)
    return node


def _jobs(node: Node, reads: ReadPath, writes: WritePath) -> list[LeaderJob]:
    """What this node does by itself while it leads, as far as the configuration wants it."""
    config = node.config
    jobs: list[LeaderJob] = [Replication(node)]
    if config.retention.enabled:
        jobs.append(Retention(node))
    if config.shard_precreation.enabled:
        jobs.append(Precreation(node))
    if config.continuous_queries.enabled:
        jobs.append(ContinuousQueries(node, reads, writes))
    return jobs


async def _live(node: Node, membership: Membership, network: Network, jobs: list[LeaderJob]) -> None:
    """Become a member and do what members do; ends only by cancellation or an error."""
    async with asyncio.TaskGroup() as group:
        # Side by side: recovery may take long, and a store that cannot be opened must not wait for an election.
        group.create_task(open_store(node))
        group.create_task(_become_member(node, network))
    assert node.identity is not None
    log.info("ready", cluster_id=node.cluster_id, meta_id=node.identity.meta_id, data_id=node.identity.data_id)
    _tell(notify.status(f"member of cluster {node.cluster_id}"))
    watch = RemovalWatch(node, meta_dir=node.config.meta.dir, on_vote_lost=network.close_raft)
    async with asyncio.TaskGroup() as group:
        group.create_task(membership.sweep())
        group.create_task(ShardReaper(node).run())
        if node.repair is not None:
            group.create_task(node.repair.run())
        if node.transfer is not None:
            group.create_task(node.transfer.run())
        group.create_task(watch.run())
        if node.handoff is not None:
            group.create_task(node.handoff.run())
        for job in jobs:
            group.create_task(job.run())
        group.create_task(_refuse_lone_start(node))


async def _become_member(node: Node, network: Network) -> None:
    """Found or join a cluster, or go on in the one this node belongs to."""
    formation = Formation(
        meta_dir=node.config.meta.dir,
        uuid=node.uuid,
        addresses=node.addresses,
        join=node.join,
        peers=node.peers,
        progress=node.progress,
    )
    if node.identity is None:
        node.identity = await formation.choose()
    elif node.join:
        log.info(
            "-join is ignored: this node belongs to a cluster", cluster_id=node.cluster_id, join=",".join(node.join)
        )
    await start_metadata(node, network)
    if node.identity.phase is Phase.FOUNDING:
        node.identity = await register_founder(node)
    elif node.identity.phase is Phase.JOINING:
        node.identity = await formation.join(node.identity)


async def _refuse_lone_start(node: Node) -> None:
    """End a cluster of one whose join list leads elsewhere: it was meant to be part of the other."""
    # The voters are in the Raft log; the applied metadata may lag behind it until a leader is elected.
    alone = node.raft is not None and len(node.raft.status().voters) <= 1
    if node.identity is not None and alone:
        await check_lone_member(node.identity, node.join, node.peers)


async def _until_the_end(node: Node, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the signal that resolves ``node.fatal`` with None, or raise what ends the daemon."""
    waiting: list[asyncio.Future[Any]] = [node.fatal, *tasks]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if node.fatal.done():
        error = node.fatal.result()
        if error is not None:
            raise error
        return
    for task in tasks:
        if task.done():
            try:
                task.result()
            except ExceptionGroup as group:
                raise _first_of(group) from None


def _first_of(group: ExceptionGroup[Exception]) -> Exception:
    """The error that ended a group of tasks, one that was raised on purpose before any other."""
    first = group.exceptions[0]
    for error in group.exceptions:
        if isinstance(error, DSDBError):
            first = error
            break
    return _first_of(first) if isinstance(first, ExceptionGroup) else first


def _on_signal(node: Node) -> None:
    """End cleanly at the first signal, at once at the second."""
    if node.fatal.done():
        os._exit(1)
    log.info("stopping")
    node.fatal.set_result(None)


async def _stop(
    node: Node, network: Network, writes: WritePath, subscriber: Subscriber | None, tasks: list[asyncio.Task[None]]
) -> None:
    """In this order: no new requests, no new work, stragglers of writes, Raft, then the store with its log."""
    node.metadata.stop_waiting()
    await network.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await writes.finish()
    if subscriber is not None:
        await subscriber.stop()
    if node.handoff is not None:
        await node.handoff.close()
    if node.metadata.backend is not None:
        await node.metadata.backend.stop()
    if node.store is not None:
        await asyncio.to_thread(node.store.close, _WRITE_OUT_S)
    await node.peers.close()


def _tell(state: str) -> None:
    notify.notify(state, os.environ)


if __name__ == "__main__":
    sys.exit(main())
