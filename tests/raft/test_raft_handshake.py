"""Strangers, wrong secrets, wrong clusters, wrong addresses, replays and junk; first as bytes, then over sockets."""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.meta.raft import PREAMBLE
from dsdbd.meta.raft.frames import FrameReader, Seal, frame
from dsdbd.meta.raft.handshake import Acceptor, Dialer, HandshakeRefused, Identity, derive_key
from tests.examples import examples
from tests.raft.harness import CLUSTER, SECRET, Member, eventually, free_address

KEY = derive_key(b"right", "c1")
A = Identity("a:1", "c1", KEY)
B = Identity("b:1", "c1", KEY)


def shake(dialer: Identity, acceptor: Identity, target: str | None = None, *, tamper=lambda body: body):
    one = Dialer(dialer, target or acceptor.address, "voter", os.urandom(32))
    other = Acceptor(acceptor, os.urandom(32))
    challenge, nothing = other.receive(tamper(one.hello))
    assert nothing is None
    proof, near = one.receive(tamper(challenge))
    reply, far = other.receive(tamper(proof))
    assert reply is None
    return near, far


def refusals(dialer: Identity, acceptor: Identity, target: str | None = None) -> tuple[str, str]:
    """What both operators read."""
    one = Dialer(dialer, target or acceptor.address, "voter", os.urandom(32))
    other = Acceptor(acceptor, os.urandom(32))
    try:
        challenge, _ = other.receive(one.hello)
    except HandshakeRefused as far:
        with pytest.raises(HandshakeRefused) as near:
            one.receive(far.reply)
        return near.value.sentence, far.sentence
    with pytest.raises(HandshakeRefused) as near:
        one.receive(challenge)
    with pytest.raises(HandshakeRefused) as told:
        other.receive(near.value.reply)
    return near.value.sentence, told.value.sentence


def test_both_sides_get_the_same_keys_crosswise():
    near, far = shake(A, B)
    assert (near.peer, far.peer) == ("b:1", "a:1")
    assert (near.send_key, near.receive_key) == (far.receive_key, far.send_key)
    assert near.send_key != near.receive_key
    again, _ = shake(A, B)
    assert again.send_key != near.send_key


def test_a_wrong_secret_is_told_on_both_sides_without_giving_anything_away():
    wrong = Identity("a:1", "c1", derive_key(b"wrong", "c1"))
    for sentence in refusals(wrong, B):
        assert "different cluster secrets" in sentence
        assert "a:1" in sentence
        assert "b:1" in sentence
        assert "wrong" not in sentence
        assert "right" not in sentence


def test_another_cluster_is_told_with_both_ids():
    stranger = Identity("a:1", "c2", derive_key(b"right", "c2"))
    for sentence in refusals(stranger, B):
        assert "'c1'" in sentence
        assert "'c2'" in sentence


def test_the_wrong_node_is_told_with_both_addresses():
    near, far = refusals(A, B, "x:1")
    assert "x:1 was dialed by a:1" in near
    assert "b:1" in near
    assert "a:1 dialed x:1" in far
    assert "b:1" in far


def test_a_copy_of_this_node_is_refused():
    near, far = refusals(A, Identity("a:1", "c1", KEY))
    assert "same identity" in near
    assert "same identity" in far


@settings(max_examples=examples(200), deadline=None)
@given(position=st.integers(0, 400), bit=st.integers(0, 7), which=st.integers(0, 2))
def test_no_changed_bit_gets_through(position, bit, which):
    bodies = 0

    def tamper(body: bytes) -> bytes:
        nonlocal bodies
        bodies += 1
        if bodies - 1 != which:
            return body
        changed = bytearray(body)
        changed[position % len(body)] ^= 1 << bit
        return bytes(changed)

    with pytest.raises((HandshakeRefused, ValueError)):
        shake(A, B, tamper=tamper)


@settings(max_examples=examples(200), deadline=None)
@given(body=st.binary(max_size=300))
def test_junk_is_no_handshake(body):
    for side in (Acceptor(A, bytes(32)), Dialer(A, "b:1", "voter", bytes(32))):
        with pytest.raises((HandshakeRefused, ValueError)):
            side.receive(body)


def test_frames_are_refused_when_repeated_reordered_or_changed():
    for order in ([0, 0], [1, 0], [1]):
        out, back = Seal(b"k" * 32), Seal(b"k" * 32)
        bodies = [out.wrap(b"one"), out.wrap(b"two")]
        with pytest.raises(ValueError, match="changed, repeated or lost"):
            for number in order:
                back.unwrap(bodies[number])
    with pytest.raises(ValueError, match="changed"):
        Seal(b"k" * 32).unwrap(b"")


@given(bodies=st.lists(st.binary(max_size=50), max_size=8), step=st.integers(1, 20))
def test_frames_come_out_as_they_went_in(bodies, step):
    stream = b"".join(frame(body) for body in bodies)
    reader = FrameReader(100)
    got = [body for at in range(0, len(stream), step) for body in reader.feed(stream[at : at + step])]
    assert got == bodies


def test_an_oversized_frame_is_refused_by_its_prefix_alone():
    with pytest.raises(ValueError, match="over the limit"):
        list(FrameReader(4096).feed(struct.pack("<I", 2**31 - 1)))


async def closed_after(address: str, payload: bytes, timeout_s: float = 12.0) -> float:
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(payload)
    started_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeout_s):
            while await reader.read(4096):
                pass
    except ConnectionError:
        pass
    finally:
        writer.close()
        with_errors = await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        del with_errors
    return asyncio.get_running_loop().time() - started_s


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/dsdb-raft-exploit"),))


async def body_strangers(tmp_path: Path) -> None:
    address = free_address()
    member = await Member(address, tmp_path / "a", [address]).start()
    try:
        exploit = pickle.dumps(Exploit())
        hello = Dialer(Identity("127.0.0.9:1", CLUSTER, bytes(32)), address, "voter", bytes(32)).hello
        for payload in (
            PREAMBLE + struct.pack("<I", len(exploit)) + exploit,
            PREAMBLE + b"\xff\xff\xff\x7f" + b"x" * 100,
            PREAMBLE + os.urandom(500),
            PREAMBLE + frame(hello) + frame(hello),
            PREAMBLE + frame(hello) + frame(bytes(80)),
        ):
            assert await closed_after(address, payload) < 3
        assert not Path("/tmp/dsdb-raft-exploit").exists()
        assert member.node.status().role == "leader"
        assert member.node._connections.unproved == set()
    finally:
        await member.stop()


def test_strangers_are_closed_and_change_nothing(tmp_path):
    asyncio.run(body_strangers(tmp_path))


async def body_silence(tmp_path: Path) -> None:
    address = free_address()
    member = await Member(address, tmp_path / "a", [address]).start()
    try:
        host, port = address.rsplit(":", 1)
        streams = []
        for _ in range(70):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(PREAMBLE)
            streams.append((reader, writer))
        await eventually(lambda: len(member.node._connections.unproved) == 64)
        closed = await asyncio.gather(
            *(asyncio.wait_for(reader.read(), 12) for reader, _ in streams[-6:]), return_exceptions=True
        )
        assert len(closed) == 6
        assert not any(isinstance(end, TimeoutError) for end in closed), "the excess is closed at once"
        # The silent ones are closed by the deadline of the handshake.
        await eventually(lambda: not member.node._connections.unproved, timeout_s=13)
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)
    finally:
        await member.stop()


@pytest.mark.slow
def test_silent_strangers_are_bounded_in_number_and_time(tmp_path):
    asyncio.run(body_silence(tmp_path))


async def body_replay(tmp_path: Path) -> None:
    a, b, middle = free_address("127.0.0.1"), free_address("127.0.0.2"), free_address("127.0.0.3")
    recorded = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = a.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, keep: bool) -> None:
            try:
                while data := await source.read(65536):
                    if keep:
                        recorded.append(data)
                    sink.write(data)
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, far_writer, True), pump(far_reader, writer, False))

    # The joiner believes that the leader's address is the relay's; the leader calls itself so.
    founder = Member(middle, tmp_path / "a", [middle], listen=a)
    await founder.start()
    host, port = middle.rsplit(":", 1)
    server = await asyncio.start_server(relay, host, int(port))
    joiner = await Member(b, tmp_path / "b", [middle]).start()
    try:
        await founder.node.add_voter(b, 10)
        await eventually(lambda: joiner.node.status().is_voter)
        await joiner.stop()
        applied = founder.node.status().last_index
        assert await closed_after(a, b"".join(recorded)) < 12
        assert founder.node.status().last_index == applied
        assert all(not peer.connected for peer in founder.node.status().peers)
    finally:
        server.close()
        await server.wait_closed()
        await joiner.stop()
        await founder.stop()


@pytest.mark.slow
def test_a_recorded_session_cannot_be_replayed(tmp_path):
    asyncio.run(body_replay(tmp_path))


async def body_refused(tmp_path: Path, secret: bytes, cluster_id: str, expected: str) -> None:
    a, b = free_address("127.0.0.1"), free_address("127.0.0.2")
    founder = await Member(a, tmp_path / "a", [a]).start()
    other = await Member(b, tmp_path / "b", [a], secret=secret, cluster_id=cluster_id).start()
    try:
        await eventually(lambda: founder.refused and other.refused)
        assert founder.refused[0][0] == b
        assert other.refused[0][0] == a
        for _, sentence in (*founder.refused, *other.refused):
            assert expected in sentence
            assert a in sentence
            assert b in sentence
        assert founder.node.learner_lag(b) is None
        await asyncio.sleep(0)
        assert len(founder.refused) == len(set(founder.refused)), "a repeated refusal is told once a minute"
    finally:
        await other.stop()
        await founder.stop()


def test_a_node_with_another_secret_is_told_apart(tmp_path):
    asyncio.run(body_refused(tmp_path, b"another secret", CLUSTER, "different cluster secrets"))


def test_a_node_of_another_cluster_is_told_apart(tmp_path):
    asyncio.run(body_refused(tmp_path, SECRET, "cluster-2", "cluster 'cluster-"))


async def body_wrong_address(tmp_path: Path) -> None:
    a, b, wrong = free_address("127.0.0.1"), free_address("127.0.0.2"), free_address("127.0.0.4")
    founder = await Member(a, tmp_path / "a", [a], listen=wrong).start()
    other = await Member(b, tmp_path / "b", [wrong]).start()
    try:
        await eventually(lambda: founder.refused and other.refused)
        assert f"the node there calls itself {a}" in other.refused[0][1]
        assert f"{b} dialed {wrong}" in founder.refused[0][1]
    finally:
        await other.stop()
        await founder.stop()


def test_the_wrong_node_at_an_address_is_told_apart(tmp_path):
    asyncio.run(body_wrong_address(tmp_path))
