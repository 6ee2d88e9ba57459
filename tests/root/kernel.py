"""The running kernel as the receiver: segments go in through a TUN device, an application, server or client, reads."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Callable, Iterable, List, NamedTuple, Optional, Tuple

sys.path.insert(0, str(Path(__file__).parent.parent / "captures"))
import record  # noqa: E402

from tcpstitch import Segment  # noqa: E402

Address = Tuple[str, int]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
SERVER, SERVER_PORT = "10.9.0.2", 8080
_SERVER_BYTES = socket.inet_aton(SERVER)
_SPACING = 0.001  # seconds of capture time between packets


class Crafted(NamedTuple):
    """A segment of the client; `start` is the stream offset (0 = first byte after the SYN), may be negative."""

    start: int
    data: bytes = b""
    flags: int = ACK
    ack_shift: int = 0
    bad_checksum: bool = False
    window: int = 65535


class Outcome(NamedTuple):
    """What the application read, how that ended ("open", "fin", "rst"), and all packets of both sides with times."""

    data: bytes
    end: str
    packets: List[Tuple[float, bytes]]


def ones_complement(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    return ~(int.from_bytes(data, "big") % 0xFFFF) & 0xFFFF


def craft(
    source: bytes,
    port: int,
    seq: int,
    ack: int,
    flags: int,
    data: bytes = b"",
    options: bytes = b"",
    window: int = 65535,
) -> bytes:
    """An IPv4 packet from (source, port) to the listening socket."""
    size = 20 + len(options) + len(data)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + size, 1, 0x4000, 64, 6, 0, source, _SERVER_BYTES)
    ip = ip[:10] + struct.pack("!H", ones_complement(ip)) + ip[12:]
    seq, ack = seq % 2**32, ack % 2**32
    header = [port, SERVER_PORT, seq, ack, (20 + len(options)) << 2, flags, window, 0, 0]
    tcp = struct.pack("!HHIIBBHHH", *header) + options + data
    pseudo = source + _SERVER_BYTES + struct.pack("!HH", 6, size)
    header[7] = ones_complement(pseudo + tcp)
    return ip + struct.pack("!HHIIBBHHH", *header) + options + data


class Peer:
    """What a client has to know of the kernel's side: its latest initial sequence number and TSval."""

    def __init__(self) -> None:
        self.isn = 0
        self.tsval = 0

    def note(self, reply: bytes) -> None:
        segment = Segment.make(("0.0.0.0", 0), ("0.0.0.0", 0), 0, options=reply[40 : 20 + (reply[32] >> 4) * 4])
        if segment.timestamps:
            self.tsval = segment.timestamps[0]
        if reply[33] & SYN:
            (self.isn,) = struct.unpack_from("!I", reply, 24)


class Kernel:
    """A network namespace with one TUN device and one listening socket; thousands of connections a minute."""

    def __init__(self) -> None:
        self._space = record.Namespace()
        self._tun = self._space.tun({4: SERVER})
        self._listener = self._space.socket(4)
        self._listener.bind((SERVER, SERVER_PORT))
        self._listener.listen(4096)
        self._space.set("ipv4/tcp_synack_retries", "1")  # half-open remains go soon
        self._listener.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._tun, select.POLLIN)
        self._count = 0

    def close(self) -> None:
        self._listener.close()
        os.close(self._tun)
        self._space.close()

    def _next_client(self) -> Tuple[bytes, int]:
        """An address and port that no connection before used, so that no list meets the remains of another."""
        number, self._count = self._count, self._count + 1
        return socket.inet_aton(f"10.9.0.{3 + number // 60000 % 250}"), 2000 + number % 60000

    def _replies(self, port: int, wait_ms: int = 0) -> List[bytes]:
        """What the kernel sent to `port`; the rest belongs to earlier connections."""
        found = []
        while True:
            try:
                packet = os.read(self._tun, 65536)
            except BlockingIOError:
                if found or not wait_ms or not self._poll.poll(wait_ms):
                    return found
                continue
            if packet[0] >> 4 == 4 and record.is_tcp(packet) and packet[22:24] == struct.pack("!H", port):
                found.append(packet)

    def receive(self, segments: List[Crafted], isn: int, options: bytes = b"\x02\x04\x05\xb4") -> Outcome:
        """Open a connection with `isn` and these options on the SYN, send the segments, read what the application
        gets. A few hundred microseconds; nothing waits for a timer."""
        source, port = self._next_client()
        packets: List[bytes] = []

        def send(packet: bytes, wait_ms: int = 0) -> None:
            packets.append(packet)
            os.write(self._tun, packet)
            packets.extend(self._replies(port, wait_ms))

        send(craft(source, port, isn, 0, SYN, options=options), 1000)
        (server_isn,) = struct.unpack_from("!I", packets[-1], 24)
        send(craft(source, port, isn + 1, server_isn + 1, ACK))
        connection = self._accept(source, port)
        try:
            connection.setblocking(False)
            for segment in segments:
                ack = server_isn + 1 + segment.ack_shift if segment.flags & ACK else 0
                packet = craft(
                    source, port, isn + 1 + segment.start, ack, segment.flags, segment.data, window=segment.window
                )
                if segment.bad_checksum:
                    packet = packet[:36] + bytes([packet[36] ^ 0x55]) + packet[37:]
                send(packet)
            data, end = self._read(connection)
        finally:
            # Close with a reset: the kernel forgets the connection at once.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        return Outcome(data, end, [(index * _SPACING, packet) for index, packet in enumerate(packets)])

    def replay(
        self, build: Callable[[Address, Address, Peer], Iterable[bytes]]
    ) -> Tuple[List[bytes], List[bytes]]:
        """Send what `build(client, server, peer)` yields, `peer` being up to date at each step. Returns what the
        application read from each accepted connection, and all packets of both sides."""
        source, port = self._next_client()
        packets: List[bytes] = []
        peer = Peer()
        for packet in build((socket.inet_ntoa(source), port), (SERVER, SERVER_PORT), peer):
            packets.append(packet)
            os.write(self._tun, packet)
            for reply in self._replies(port):
                packets.append(reply)
                peer.note(reply)
        read = []
        while True:
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return read, packets
            with connection:
                connection.setblocking(False)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if address[1] == port:
                    read.append(self._read(connection)[0])

    def replay_to_client(
        self, build: Callable[[Address, Address, Peer], Iterable[Optional[bytes]]]
    ) -> Tuple[bytes, List[bytes]]:
        """As `replay`, with the kernel as the client: the packets are a server's, and None is when the application
        connects to it. Returns what that read."""
        host, port = self._next_client()
        packets: List[bytes] = []
        peer = Peer()
        with self._space.socket(4) as client:
            client.setblocking(False)
            client.bind((SERVER, 0))
            server = socket.inet_ntoa(host), port
            for packet in build(client.getsockname(), server, peer):
                if packet is None:
                    client.connect_ex(server)
                else:
                    packets.append(packet)
                    os.write(self._tun, packet)
                for reply in self._replies(port):
                    packets.append(reply)
                    peer.note(reply)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self._read(client)[0], packets

    def _accept(self, source: bytes, port: int) -> socket.socket:
        while True:
            connection, peer = self._listener.accept()
            if peer == (socket.inet_ntoa(source), port):
                return connection
            connection.close()  # a SYN behind an RST of an earlier list

    @staticmethod
    def _read(connection: socket.socket) -> Tuple[bytes, str]:
        data = b""
        while True:
            try:
                piece = connection.recv(65536)
            except BlockingIOError:
                return data, "open"
            except ConnectionResetError:
                return data, "rst"
            if not piece:
                return data, "fin"
            data += piece
