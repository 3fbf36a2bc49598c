"""The steps of the start-up that are longer than a line: addresses, listeners, Raft, storage, first registration."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from dsdbd import limits
from dsdbd.cluster.follower import FollowerBackend
from dsdbd.cluster.formation import Addresses
from dsdbd.cluster.handoff import Handoff
from dsdbd.cluster.lateness import late_ns
from dsdbd.cluster.secret import is_loopback
from dsdbd.config import advertised_address, advertised_host, join_address, split_address
from dsdbd.errors import AddressError, ConfigError, DSDBError, IdentityError, NoLeader, OutcomeUnknown, StorageCorrupt
from dsdbd.http.apps import Service
from dsdbd.http.gate import limited
from dsdbd.http.listener import AcceptThread, Endpoint, Listener, bind
from dsdbd.meta.commands import CreateDataNode, CreateMetaNode, InitCluster, NodeIs
from dsdbd.meta.identity import Phase, save_identity
from dsdbd.meta.raft import PREAMBLE, RaftNode, RaftTimings
from dsdbd.meta.store import MetaMachine, RaftBackend
from dsdbd.storage import Store, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.cluster.node import Node
    from dsdbd.config import Config
    from dsdbd.http.apps import Applications
    from dsdbd.http.front import Front
    from dsdbd.meta.identity import Identity

log = structlog.get_logger("daemon")
_REQUEST_END_S = 3.0
"""Requests under way get this long when the daemon stops; a join or a big query may take much longer."""


def advertise(config: Config, os_hostname: str) -> Addresses:
    """The addresses other nodes are told; logs a warning where they reach this machine only."""
    resolves = _resolves_beyond_loopback(os_hostname)
    warnings: set[str] = set()

    def address(bind_address: str) -> str:
        found = advertised_host(config, bind_address, os_hostname, resolves)
        if found.warning:
            warnings.add(found.warning)
        return advertised_address(found.host, bind_address)

    addresses = Addresses(
        tcp=address(config.bind_address),
        meta_http=address(config.meta.http_bind_address) if config.meta.enabled else "",
        data_http=address(config.http.bind_address) if config.data.enabled else "",
    )
    for warning in warnings:
        log.warning(warning)
    return addresses


def _resolves_beyond_loopback(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return not is_loopback(host)


def refuse_changed_roles(identity: Identity, config: Config) -> None:
    """A role is given up by dropping it from the cluster, not by a setting: others count on it."""
    if identity.phase is not Phase.MEMBER:
        return
    for role, enabled, number in (
        ("meta", config.meta.enabled, identity.meta_id),
        ("data", config.data.enabled, identity.data_id),
    ):
        if number is not None and not enabled:
            raise IdentityError(
                f"this node is {role} node {number} of cluster {identity.cluster_id}, but [{role}] enabled is false. "
                f"Run DROP {role.upper()} SERVER {number} on the cluster first, or set enabled = true."
            )


class Network:
    """The listening sockets of the node, one per distinct address, and the HTTP servers behind them."""

    def __init__(self, config: Config, addresses: Addresses) -> None:
        self._config = config
        self._addresses = addresses
        self._sockets: list[tuple[str, socket.socket, set[Service]]] = []
        self._listeners: list[Listener] = []
        self._runners: list[web.AppRunner] = []
        self._fronts: list[Front] = []
        self._accepting = AcceptThread()

    def bind(self) -> None:
        """Take every address; raises AddressError. Nothing answers before ``start``."""
        wanted: dict[tuple[str, int], tuple[str, set[Service]]] = {}

        def want(address: str, service: Service) -> None:
            wanted.setdefault(_place(address), (address, set()))[1].add(service)

        want(self._config.bind_address, Service.NODE)
        if self._config.meta.enabled:
            want(self._config.meta.http_bind_address, Service.META)
        if self._config.http.enabled:
            want(self._config.http.bind_address, Service.PUBLIC)
        try:
            for address, services in _merge_wildcards(wanted):
                self._sockets.append((address, bind(address), services))
        except AddressError:
            self._close_sockets()
            raise
        alias = self._alias()
        if self._config.http.enabled and alias and _place(alias) not in wanted:
            try:
                self._sockets.append((alias, bind(alias), {Service.PUBLIC}))
            except AddressError as error:
                log.warning("the alias address is not served", reason=error.message)

    def _alias(self) -> str:
        """The alias address; without a host it is on the host of the API: a second port opens no other interface."""
        alias = self._config.http.alias_bind_address
        if not alias:
            return ""
        host, port = split_address(alias)
        return join_address(host or split_address(self._config.http.bind_address)[0], port)

    async def start(self, applications: Applications) -> None:
        """Answer HTTP on every address."""
        loop = asyncio.get_running_loop()
        try:
            for address, sock, services in self._sockets:
                tls = self._tls(services)
                runner = web.AppRunner(
                    applications.build(services, tls=tls is not None),
                    access_log=None,
                    handle_signals=False,
                    shutdown_timeout=_REQUEST_END_S,
                    # Bodies are unpacked by http/body.py, which bounds them and notices when one is cut short.
                    auto_decompress=False,
                    # Clients put long statements into the URL.
                    max_line_size=limits.MAX_QUERY_CHARS,
                )
                await runner.setup()
                self._runners.append(runner)
                assert runner.server is not None
                http = Endpoint(loop, self._protocols(applications, runner.server, services, tls=tls), tls)
                preamble = PREAMBLE if Service.NODE in services else b""
                self._listeners.append(Listener(address, sock, http, raft_preamble=preamble))
                log.info("listening", address=address, services=",".join(sorted(s.value for s in services)))
        except BaseException:
            self._close_sockets()
            raise
        await self._accepting.start(self._listeners)

    def _protocols(
        self,
        applications: Applications,
        server: web.Server,
        services: set[Service],
        *,
        tls: ssl.SSLContext | None,
    ) -> Callable[[], Any]:
        """What makes the protocol of each connection. With TLS it is the library's: it refuses clients without."""
        if Service.PUBLIC not in services:
            return server
        most = self._config.http.max_connection_limit
        if tls is not None:
            return limited(server, lambda: server.connections, most)
        front = applications.front(server)
        self._fronts.append(front)
        return limited(front, lambda: front.connections, most)

    def open_raft(self, raft: RaftNode) -> None:
        """Hand Raft connections of the node-to-node address to a started Raft node."""
        for listener in self._listeners:
            if listener.raft_preamble:
                listener.raft = Endpoint(raft.loop, raft.protocol_factory)

    def close_raft(self) -> None:
        """Refuse Raft connections from now on."""
        for listener in self._listeners:
            listener.raft = None

    async def stop(self) -> None:
        """Stop accepting, let requests under way end, close their connections."""
        await self._accepting.stop()
        self._close_sockets()
        fronts = [front.stop(_REQUEST_END_S) for front in self._fronts]
        await asyncio.gather(*fronts, *(runner.cleanup() for runner in self._runners))

    def _close_sockets(self) -> None:
        for _, sock, _ in self._sockets:
            sock.close()

    def _tls(self, services: set[Service]) -> ssl.SSLContext | None:
        http, meta = self._config.http, self._config.meta
        if Service.PUBLIC in services and http.https_enabled:
            certificate, key = http.https_certificate, http.https_private_key
        elif Service.META in services and meta.https_enabled:
            certificate, key = meta.https_certificate, None
        else:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            assert certificate is not None
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot use the certificate {certificate}: {error.strerror or error}") from error
        return context


def _place(address: str) -> tuple[str, int]:
    """Where an address really is, so that two spellings of one place share a listener."""
    host, port = split_address(address)
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "", port
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
    except OSError:
        return host, port


def _merge_wildcards(
    wanted: dict[tuple[str, int], tuple[str, set[Service]]],
) -> list[tuple[str, set[Service]]]:
    """One entry per socket: a wildcard takes over the services of every other host with its port."""
    merged: dict[tuple[str, int], tuple[str, set[Service]]] = {}
    for (host, port), (address, services) in sorted(wanted.items()):
        everywhere = merged.get(("", port))
        if everywhere is not None:
            everywhere[1].update(services)
        else:
            merged[(host, port)] = (address, services)
    return list(merged.values())


async def start_metadata(node: Node, network: Network) -> None:
    """Start Raft on a node with a vote, or the follower on one without; the stored metadata is there on return."""
    config, identity, loop = node.config, node.identity, asyncio.get_running_loop()
    assert identity is not None
    votes = config.meta.enabled and not (identity.phase is Phase.MEMBER and identity.meta_id is None)
    if not votes:
        if config.meta.enabled:
            log.warning("this node has no vote any more; to give it one, drop it, empty its directories and join again")
        follower = FollowerBackend(
            metadata=node.metadata,
            peers=node.peers,
            meta_dir=config.meta.dir,
            first_nodes=identity.voters,
            on_fatal=node.fail,
        )
        node.metadata.backend = follower
        await follower.start()
        return

    if identity.phase is Phase.MEMBER and not (config.meta.dir / "raft" / "raft.journal").exists():
        # Without it the node would not know what it voted for, and could give a second vote in the same term.
        raise StorageCorrupt(
            f"the Raft journal in {config.meta.dir / 'raft'} is gone, but this node is a meta node of cluster "
            f"{identity.cluster_id}. Restore the directory; if there is no copy, run DROP META SERVER "
            f"{identity.meta_id}"
            + (f" and DROP DATA SERVER {identity.data_id}" if identity.data_id is not None else "")
            + f" on another member, empty {config.meta.dir} and join again."
        )

    # Both are called on the Raft thread.
    def fatal(error: DSDBError) -> None:
        loop.call_soon_threadsafe(node.fail, error)

    def refused(peer: str, sentence: str) -> None:
        log.warning("refused", peer=peer, reason=sentence)
        loop.call_soon_threadsafe(node.refusals.__setitem__, peer, sentence)

    raft = RaftNode(
        self_address=node.addresses.tcp,
        data_dir=config.meta.dir / "raft",
        bootstrap=identity.voters,
        machine=MetaMachine(node.metadata.publish),
        secret=node.secret,
        cluster_id=identity.cluster_id,
        timings=RaftTimings(
            election_timeout_s=max(config.meta.election_timeout_s, config.meta.heartbeat_timeout_s),
            leader_lease_s=config.meta.leader_lease_timeout_s,
            # More heartbeats than ten in an election timeout only cost: no write waits for one.
            append_period_s=max(config.meta.commit_timeout_s, config.meta.election_timeout_s / 10),
        ),
        on_fatal=fatal,
        on_refused=refused,
    )
    await _start_whole(raft)
    node.raft = raft
    node.metadata.backend = RaftBackend(raft)
    network.open_raft(raft)


async def _start_whole(raft: RaftNode) -> None:
    """Start a Raft node; when the daemon is told to stop meanwhile, let the start end first and then stop the node.

    A start broken off in the middle would leave its connections to a thread that is gone.
    """
    starting = asyncio.ensure_future(raft.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(DSDBError):
            await starting
            await raft.stop()
        raise


async def register_founder(node: Node) -> Identity:
    """Write the new cluster's id and this node's registrations, in the order that gives meta 1 and data 2."""
    assert node.identity is not None
    meta_id = data_id = None
    while True:
        try:
            await node.metadata.propose(InitCluster(node.identity.cluster_id))
            created = await node.metadata.propose(
                CreateMetaNode(node.uuid, node.addresses.meta_http, node.addresses.tcp)
            )
            assert isinstance(created.value, NodeIs)
            meta_id = created.value.id
            if node.addresses.data_http:
                created = await node.metadata.propose(
                    CreateDataNode(node.uuid, node.addresses.data_http, node.addresses.tcp)
                )
                assert isinstance(created.value, NodeIs)
                data_id = created.value.id
            break
        except (NoLeader, OutcomeUnknown) as error:
            # Every step may be repeated: the ids of a registration that happened are given again.
            node.progress.say(f"waiting for this node to lead its cluster: {error.message}")
    final = msgspec.structs.replace(node.identity, phase=Phase.MEMBER, meta_id=meta_id, data_id=data_id)
    await asyncio.to_thread(save_identity, node.config.meta.dir, final)
    return final


async def open_handoff(node: Node) -> Handoff | None:
    """The writes that earlier runs kept for other nodes; None where the configuration wants none kept."""
    settings = node.config.hinted_handoff
    if not settings.enabled:
        return None
    handoff = Handoff(node)
    try:
        await handoff.open()
    except OSError as error:
        raise ConfigError(f"cannot use [hinted-handoff] dir {settings.dir}: {error.strerror}") from error
    return handoff


async def open_store(node: Node) -> None:
    """Open the storage in a worker thread and hand it to the node; a node without the data role has none."""
    config, loop = node.config, asyncio.get_running_loop()
    if not config.data.enabled:
        return

    def fatal(error: BaseException) -> None:
        wrapped = error if isinstance(error, DSDBError) else StorageCorrupt(f"the storage stopped: {error}")
        loop.call_soon_threadsafe(node.fail, wrapped)

    def damaged(shard_id: int) -> None:
        if node.repair is not None:
            loop.call_soon_threadsafe(node.repair.damaged, shard_id)

    settings = StoreSettings(
        head_max_bytes=config.data.cache_snapshot_memory_size_bytes,
        head_total_bytes=config.data.cache_max_memory_size_bytes // 2,
        head_hard_bytes=config.data.cache_max_memory_size_bytes,
        flush_age_s=config.data.cache_snapshot_write_cold_duration_s,
        full_merge_age_s=config.data.compact_full_write_cold_duration_s,
        merge_files=config.data.compact_min_file_count,
        merge_bytes_per_s=config.data.compact_throughput_bytes,
        read_cache_bytes=config.data.read_cache_size_bytes,
    )
    store = Store(
        data_dir=config.data.dir,
        wal_dir=config.data.wal_dir,
        settings=settings,
        on_fatal=fatal,
        on_problem=lambda problem: log.warning("storage problem", problem=problem),
        on_damaged=damaged,
        late_ns=lambda: late_ns(node),
        settled=lambda shard_id: 0 if node.repair is None else node.repair.settled(shard_id),
    )

    def tell(sentence: str) -> None:
        log.info(f"storage: {sentence}")
        node.opening = sentence

    opening = asyncio.ensure_future(asyncio.to_thread(store.open, tell))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on opening, and starts the threads of a store that nobody else would end.
        await asyncio.wait({opening})
        if opening.exception() is None:
            await asyncio.to_thread(store.close)
        raise
    node.store = store
