"""Live capture over a pair of virtual Ethernet devices: real transfers come out as the bytes that were sent."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from support.recorder import Hashing, HashingFactory
from tcpstitch import Assembler, CaptureError, CaptureWarning, UsageError
from tcpstitch.live import sniff

sys.path.insert(0, str(Path(__file__).parent.parent / "captures"))
import record  # noqa: E402

_REASON = record.unavailable()
pytestmark = [pytest.mark.root, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]

SENT = random.Random(7).randbytes(3_000_000)
ANSWER = random.Random(8).randbytes(1_000_000)
HOSTS = {"IPv4": "10.77.0.2", "IPv6": "fd77::2"}
TAGS = {
    "VLAN": (b"\x81\x00\x00\x07", (7,)),
    "VLAN with priority": (b"\x81\x00\xe0\x07", (7,)),
    "QinQ": (b"\x88\xa8\x00\x08\x81\x00\x00\x07", (8, 7)),
}


class Link:
    """Two namespaces and the wire between them, a virtual Ethernet device named `eth` on each side."""

    def __init__(self) -> None:
        self.client, self.server = record.Namespace(), record.Namespace()
        with self.server.inside():
            self._inhabitant = subprocess.Popen(["sleep", "600"])  # ip(8) names a namespace by who lives in it
        peer = str(self._inhabitant.pid)
        self.client.run("ip", "link", "add", "eth", "type", "veth", "peer", "name", "eth", "netns", peer)
        for namespace, last in ((self.client, 1), (self.server, 2)):
            namespace.run("ip", "address", "add", f"10.77.0.{last}/24", "dev", "eth")
            namespace.run("ip", "address", "add", f"fd77::{last}/64", "dev", "eth", "nodad")
            namespace.run("ip", "link", "set", "eth", "up")

    def close(self) -> None:
        self._inhabitant.kill()
        self._inhabitant.wait()
        self.client.close()
        self.server.close()


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    made = Link()
    yield made
    made.close()


def transfer(link: Link, host: str, port: int, sent: bytes = SENT, answer: bytes = ANSWER) -> None:
    """The client sends, then the server does, then both close."""
    version = 6 if ":" in host else 4
    with link.server.socket(version) as listener, link.client.socket(version) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        client.settimeout(20)
        client.connect((host, port))
        server, _ = listener.accept()
        reader = threading.Thread(target=_serve, args=(server, answer))
        reader.start()
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass
        reader.join()


def _serve(server: socket.socket, answer: bytes) -> None:
    with server:
        while server.recv(1 << 16):
            pass
        server.sendall(answer)


def captured(
    link: Link, traffic: Callable[[], None], interface: str = "eth", **options: Any
) -> Tuple[HashingFactory, Any]:
    """What an assembler made of the client's interface while `traffic` went on."""
    factory = HashingFactory()
    with link.client.inside():
        live = sniff(interface, **options)
    with live, Assembler(factory, flow_key="vlan") as assembler:
        def work() -> None:
            try:
                traffic()
            finally:
                live.stop()

        worker = threading.Thread(target=work)
        worker.start()
        assembler.run(live)
        worker.join()
    return factory, assembler.statistics()


def check_whole(stream: Hashing) -> None:
    assert stream.gaps == []
    assert [each.hexdigest() for each in stream.hashes] == [hashlib.sha256(data).hexdigest() for data in (SENT, ANSWER)]
    assert stream.reason == "fin"


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def recording(request: pytest.FixtureRequest) -> Any:
    """Packets of transfers between two kernels, to be sent again behind other headers."""
    settings = record.Settings(((300_000, 200_000), (5, 100_000)), version=request.param, mtu=1400, loss=0.01)
    return record.record(settings)


def check_recording(streams: List[Hashing], truth: Dict[str, Any]) -> None:
    found = {stream.flow.client.port: [each.hexdigest() for each in stream.hashes] for stream in streams}
    assert found == {
        connection["client"][1]: [connection["up"]["sha256"], connection["down"]["sha256"]]
        for connection in truth["connections"]
    }


@pytest.mark.parametrize("interface", ["eth", "any"])
@pytest.mark.parametrize("case", HOSTS)
def test_a_transfer_over_a_live_interface_is_whole(link: Link, interface: str, case: str) -> None:
    """Both directions by hash, on one interface and on all of them."""
    factory, statistics = captured(link, lambda: transfer(link, HOSTS[case], 5001), interface)
    (stream,) = factory.streams
    check_whole(stream)
    assert (stream.flow.server.address, stream.flow.server.port) == (HOSTS[case], 5001)
    assert statistics.dropped == 0


@pytest.mark.parametrize("interface", ["eth", "any"])
@pytest.mark.parametrize("case", TAGS)
def test_vlan_tags_that_the_kernel_took_out_are_back(link: Link, recording: Any, interface: str, case: str) -> None:
    """A mirrored transfer in tagged frames: the same bytes, and the VLAN ids in the flow's key."""
    tags, context = TAGS[case]
    head = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + tags

    def mirror() -> None:
        with link.server.inside():
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with port:
            port.bind(("eth", 0))
            for _, packet in recording.packets:
                port.send(head + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet)

    factory, _ = captured(link, mirror, interface)
    check_recording(factory.streams, recording.truth)
    assert {stream.flow.context for stream in factory.streams} == {context}


@pytest.mark.parametrize("expression", [None, "tcp"])
def test_a_device_without_link_layer_is_captured_as_raw_ip(link: Link, recording: Any, expression: str) -> None:
    """What a TUN device passes on is IP from the first byte; filters know that."""
    tun = link.client.tun({})

    def pass_on() -> None:
        for _, packet in recording.packets:
            os.write(tun, packet)

    try:
        factory, statistics = captured(link, pass_on, "wire", filter=expression)
    finally:
        os.close(tun)
    check_recording(factory.streams, recording.truth)


def test_a_filter_is_run_by_the_kernel(link: Link) -> None:
    """Only what the expression names is seen, on one interface and on all of them; nonsense is refused."""
    def both() -> None:
        transfer(link, HOSTS["IPv4"], 5005)
        transfer(link, HOSTS["IPv6"], 5006)

    for interface in ("eth", "any"):
        factory, statistics = captured(link, both, interface, filter="tcp port 5006")
        assert [stream.flow.server.port for stream in factory.streams] == [5006]
        check_whole(factory.streams[0])
        assert statistics.packets == statistics.segments
    with link.client.inside(), pytest.raises(UsageError, match="syntax error"):
        sniff("eth", filter="tcp prt 80")


def test_a_filter_finds_tags_that_are_not_in_the_frame(link: Link, recording: Any) -> None:
    """The kernel keeps a VLAN tag beside the frame; the compiled expression looks there."""
    def mixed() -> None:
        with link.server.inside():
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with port:
            port.bind(("eth", 0))
            for _, packet in recording.packets:
                kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
                for vlan in (7, 9):
                    port.send(bytes(12) + b"\x81\x00" + vlan.to_bytes(2, "big") + kind + packet)

    factory, _ = captured(link, mixed, filter="vlan 9 and tcp")
    check_recording(factory.streams, recording.truth)
    assert {stream.flow.context for stream in factory.streams} == {(9,)}


def test_a_snap_length_leaves_gaps_that_say_so(link: Link) -> None:
    """Bytes beyond it were never captured: truncated, with the stream's offsets kept."""
    factory, _ = captured(link, lambda: transfer(link, HOSTS["IPv4"], 5007), snaplen=100)
    (stream,) = factory.streams
    assert {gap.reason for gap in stream.gaps} == {"truncated"}
    assert stream.reason == "fin"


def test_the_interfaces_that_there_are_are_those_of_the_threads_namespace(link: Link) -> None:
    said: List[str] = []

    def ask() -> None:
        with link.client.inside(), pytest.raises(CaptureError) as caught:
            sniff("nope")
        said.append(str(caught.value))

    worker = threading.Thread(target=ask)
    worker.start()
    worker.join()
    assert "there are: lo, eth, any" in said[0] or "there are: eth, lo, any" in said[0]


@pytest.mark.parametrize("expression", [None, "tcp or ip6 proto 0"])
def test_the_largest_packets_of_segmentation_offload_are_whole(expression: Any) -> None:
    """BIG TCP: Linux lets them grow to half a MiB, twice what libpcap keeps."""
    link = Link()
    try:
        for namespace in (link.client, link.server):
            try:
                namespace.run("ip", "link", "set", "eth", "gso_max_size", "524280", "gro_max_size", "524280")
            except subprocess.CalledProcessError:
                pytest.skip("this kernel has no BIG TCP")
        factory, _ = captured(link, lambda: transfer(link, HOSTS["IPv6"], 5011), filter=expression)
    finally:
        link.close()
    check_whole(factory.streams[0])


def test_packets_that_the_kernel_dropped_are_counted(link: Link) -> None:
    """With hardly any buffer and nobody reading, the kernel's drop counter reaches the statistics."""
    with link.client.inside():
        live = sniff("eth", buffer_bytes=4096)
    factory = HashingFactory()
    with live, Assembler(factory) as assembler:
        transfer(link, HOSTS["IPv4"], 5008)
        live.stop()
        assembler.run(live)
        assert assembler.statistics().dropped == live.dropped > 0
        assert live.received >= live.dropped + assembler.statistics().packets
    assert assembler.statistics().dropped > 0, "it is still known after the capture was closed"


def test_what_is_not_read_in_time_after_a_stop_counts_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a slow handler with much that had come: the statistics say that it is missing."""
    monkeypatch.setattr("tcpstitch.live._DRAIN_SECONDS", -1.0)
    alone = record.Namespace()
    alone.run("ip", "link", "set", "lo", "up")
    with alone.inside():
        live = sniff("lo")
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with live, sender, Assembler(HashingFactory()) as assembler:
        sender.bind(("127.0.0.1", 0))
        for _ in range(10):
            sender.sendto(b"late", sender.getsockname())
        live.stop()
        assembler.run(live)
        assert (assembler.statistics().packets, assembler.statistics().dropped, live.received) == (0, 10, 10)
    alone.close()


@pytest.mark.parametrize("interface", ["lo", "any"])
@pytest.mark.parametrize("expression", [None, "udp"])
def test_the_copy_that_a_loopback_device_shows_twice_is_no_drop(interface: str, expression: Any) -> None:
    """Nor does it take up room that a packet could have had."""
    alone = record.Namespace()
    alone.run("ip", "link", "set", "lo", "up")
    with alone.inside():
        live = sniff(interface, filter=expression, buffer_bytes=4096)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with live, sender:
        sender.bind(("127.0.0.1", 0))
        for _ in range(100):
            sender.sendto(b"again", sender.getsockname())
        live.stop()
        got = len(list(live))
        assert 0 < got < 100 and (live.received, live.dropped) == (100, 100 - got)
    alone.close()


def test_what_came_before_an_interface_went_away_is_read(link: Link) -> None:
    """The kernel tells of the end first, and has the packets before it all the same."""
    link.client.run("ip", "link", "add", "brief", "type", "veth", "peer", "name", "other")
    for name in ("brief", "other"):
        link.client.run("ip", "link", "set", name, "up")
    frames = [bytes(12) + b"\x08\x00" + number.to_bytes(50, "big") for number in range(500)]
    with link.client.inside():
        live = sniff("brief")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("brief", 0))
            for frame in frames:
                sender.send(frame)
    link.client.run("ip", "link", "delete", "brief")
    with live, pytest.warns(CaptureWarning, match="^brief: Network is down: the capture ends$"):
        got = [packet for _, packet in live]
        assert [packet for packet in got if packet in frames] == frames
        assert live.received == len(got)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_everything_written(link: Link, tmp_path: Path, number: int) -> None:
    """extract -i: an open connection is flushed, files and index are whole, and the exit status is 0."""
    with link.client.inside():
        command = subprocess.Popen(
            [sys.executable, "-m", "tcpstitch", "extract", "-i", "eth", "-f", "tcp port 5009",
             "-o", str(tmp_path / "x")],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (tmp_path / "x" / "index.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    transfer(link, HOSTS["IPv4"], 5009)
    with link.server.socket(4) as listener, link.client.socket(4) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOSTS["IPv4"], 5009))
        listener.listen()
        client.connect((HOSTS["IPv4"], 5009))
        client.sendall(b"still open")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"still open"
            os.kill(command.pid, number)
            assert command.stderr is not None
            said = command.stderr.read()
            assert (command.wait(20), "2 connections" in said) == (0, True), said
    command.stderr.close()
    entries = [json.loads(line) for line in (tmp_path / "x" / "index.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == ["fin", "flushed"]
    sent: Dict[str, bytes] = {"client_to_server": SENT, "server_to_client": ANSWER}
    for side, data in sent.items():
        assert (tmp_path / "x" / entries[0][side]["file"]).read_bytes() == data
    assert (tmp_path / "x" / entries[1]["client_to_server"]["file"]).read_bytes() == b"still open"


def test_signals_are_given_back_after_the_iteration(link: Link) -> None:
    """The handlers of the program are in place again, also when the loop was left early."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with link.client.inside():
        live = sniff("eth")
    with live:
        worker = threading.Thread(target=transfer, args=(link, HOSTS["IPv4"], 5010))
        worker.start()
        for _ in live:
            assert signal.getsignal(signal.SIGINT) is not before[0]
            break
        worker.join()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
