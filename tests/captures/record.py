#!/usr/bin/env python3
"""Records real TCP transfers over an impaired wire, with the truth about what the applications sent.

Two network namespaces hold a TUN device each; this program is the wire between them. It drops, reorders, duplicates
and delays packets from a seeded generator, and writes what it hands to the receivers as a pcap of raw IP packets
(link type 101). Every packet a receiving kernel saw is in the capture unless `capture_loss` says otherwise, so what
the applications read must follow from the capture alone.

    python3 record.py DIRECTORY [NAME ...]      needs root, Linux, /dev/net/tun and the `ip` command

writes NAME.pcap and NAME.truth.json for each of the SAMPLES. The payloads come from `payload`, so that a reader of
the truth can make the bytes again and compare captures with holes offset by offset.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
LINKTYPE_RAW = 101
SERVER_PORT = 8080
ADDRESSES = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd00:9::1", "fd00:9::2")}
PREFIX_LENGTH = {4: 24, 6: 64}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class Settings(NamedTuple):
    """One recording. Probabilities are per packet, times in seconds, `transfers` pairs of (bytes up, bytes down)."""

    transfers: Tuple[Tuple[int, int], ...]
    version: int = 4
    timestamps: bool = True
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.001
    reorder_delay: float = 0.004
    capture_loss: float = 0.0
    mtu: int = 1500
    receive_buffer: int = 0  # bytes, as SO_RCVBUF; 0: the system's choice
    pause: float = 0.0  # after each read of at most a receive buffer
    seed: int = 1


SAMPLES: Dict[str, Settings] = {
    "clean": Settings(((40000, 60000), (0, 20000), (20000, 0), (1, 1))),
    "lossy-v4": Settings(((50000, 70000), (12, 40000), (40000, 5), (3, 9)), loss=0.04, duplicate=0.02, reorder=0.05),
    "lossy-v6": Settings(
        ((50000, 70000), (12, 40000), (40000, 5), (3, 9)),
        version=6, timestamps=False, loss=0.04, duplicate=0.02, reorder=0.05, seed=2,
    ),
    "reorder-heavy": Settings(
        ((60000, 60000), (30000, 30000), (100, 40000)), loss=0.01, duplicate=0.1, reorder=0.4, mtu=600, seed=3
    ),
    "caploss": Settings(
        ((60000, 60000), (40000, 30000), (10, 40000)), loss=0.02, reorder=0.05, capture_loss=0.04, seed=4
    ),
}  # fmt: skip


def payload(seed: int, connection: int, direction: str, length: int) -> bytes:
    """What the application of connection number `connection` sends in `direction` ("up" is client to server)."""
    return random.Random(f"{seed}/{connection}/{direction}").randbytes(length)


class Namespace:
    """A network namespace of this process, reachable only through a file descriptor: it goes when we go."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        home = self._home()
        try:
            if self._libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
            self._fd = self._home()
        finally:
            self._enter(home)
            os.close(home)

    @staticmethod
    def _home() -> int:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _enter(self, fd: int) -> None:
        if self._libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the namespace; sockets and devices made there stay there."""
        home = self._home()
        self._enter(self._fd)
        try:
            yield
        finally:
            self._enter(home)
            os.close(home)

    def run(self, *command: str) -> None:
        with self.inside():
            subprocess.run(command, check=True)

    def set(self, name: str, value: str) -> None:
        """Set `net.<name>` of this namespace (names with slashes, as below /proc/sys/net)."""
        with self.inside(), open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)

    def socket(self, version: int) -> socket.socket:
        with self.inside():
            return socket.socket(FAMILY[version], socket.SOCK_STREAM)

    def tun(self, addresses: Dict[int, str], mtu: int = 1500) -> int:
        """A TUN device that is up and has these addresses; returns its descriptor: whole IP packets, one a call."""
        import fcntl  # what reads samples runs where there is none

        with self.inside():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        self.run("ip", "link", "set", "wire", "addrgenmode", "none", "txqueuelen", "10000")
        self.run("ip", "link", "set", "wire", "mtu", str(mtu), "up")
        for version, address in addresses.items():
            if version == 4 or mtu >= 1280:  # IPv6 needs no less (RFC 8200 5)
                nodad = ["nodad"] if version == 6 else []
                self.run("ip", "address", "add", f"{address}/{PREFIX_LENGTH[version]}", "dev", "wire", *nodad)
        return fd

    def close(self) -> None:
        os.close(self._fd)


def is_tcp(packet: bytes) -> bool:
    return packet[9 if packet[0] >> 4 == 4 else 6] == socket.IPPROTO_TCP


class Wire:
    """Carries packets between two TUN devices in a thread of its own and keeps those that it handed over."""

    def __init__(self, settings: Settings, tuns: Tuple[int, int]) -> None:
        self.packets: List[Tuple[float, bytes]] = []
        self.counts = {"sent": 0, "dropped": 0, "duplicated": 0, "reordered": 0, "not_captured": 0}
        self._settings = settings
        self._tuns = tuns
        self._random = random.Random(settings.seed)
        self._capture_random = random.Random(settings.seed + 1)
        self._queue: List[Tuple[float, int, int, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _take(self, fd: int, other: int) -> None:
        settings, draw, counts = self._settings, self._random.random, self.counts
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                return
            counts["sent"] += 1
            if draw() < settings.loss:
                counts["dropped"] += 1
                continue
            due = time.monotonic() + settings.delay
            if draw() < settings.reorder:
                counts["reordered"] += 1
                due += settings.reorder_delay * draw()
            heapq.heappush(self._queue, (due, counts["sent"], other, packet))
            if draw() < settings.duplicate:
                counts["duplicated"] += 1
                again = due + settings.reorder_delay * draw()
                heapq.heappush(self._queue, (again, counts["sent"], other, packet))

    def _hand_over(self, fd: int, packet: bytes) -> None:
        if is_tcp(packet):
            if self._capture_random.random() < self._settings.capture_loss:
                self.counts["not_captured"] += 1
            else:
                self.packets.append((time.time(), packet))
        with contextlib.suppress(OSError):
            os.write(fd, packet)

    def _run(self) -> None:
        first, second = self._tuns
        queue = self._queue
        while not self._stop.is_set():
            wait = min(max(queue[0][0] - time.monotonic(), 0.0), 0.1) if queue else 0.1
            readable, _, _ = select.select([first, second], [], [], wait)
            for fd in readable:
                self._take(fd, second if fd == first else first)
            now = time.monotonic()
            while queue and queue[0][0] <= now:
                _, _, fd, packet = heapq.heappop(queue)
                self._hand_over(fd, packet)


def _transfer(connection: socket.socket, sent: bytes, received: bytearray, settings: Settings) -> None:
    """Send and receive at the same time until both directions have ended."""
    sender = threading.Thread(target=_send, args=(connection, sent), daemon=True)
    sender.start()
    while True:
        data = connection.recv(settings.receive_buffer or 65536)
        if not data:
            break
        received += data
        time.sleep(settings.pause)
    sender.join()
    connection.close()


def _send(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)


class Transfers:
    """The applications: one connection per pair of `settings.transfers`, all at once."""

    def __init__(self, settings: Settings, client: Namespace, server: Namespace) -> None:
        self._settings = settings
        self._listener = server.socket(settings.version)
        self._size_buffer(self._listener)
        self._listener.bind((ADDRESSES[settings.version][1], SERVER_PORT))
        self._listener.listen(64)
        self.ports: List[int] = []
        self._clients = []
        for _ in settings.transfers:
            connecting = client.socket(settings.version)
            self._size_buffer(connecting)
            connecting.bind((ADDRESSES[settings.version][0], 0))
            self.ports.append(connecting.getsockname()[1])
            self._clients.append(connecting)
        self.received: Dict[Tuple[int, str], bytearray] = {
            (number, way): bytearray() for number in range(len(self.ports)) for way in ("up", "down")
        }
        self._sides: List[threading.Thread] = []

    def _size_buffer(self, connection: socket.socket) -> None:
        if self._settings.receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_buffer)

    def run(self, timeout: float = 120.0) -> None:
        """Returns when every transfer has ended; raises `TimeoutError` after `timeout` seconds."""
        end = time.monotonic() + timeout
        accepting = self._start(self._accept)
        starters = [self._start(self._connect, number) for number in range(len(self.ports))]
        for thread in [accepting, *starters]:
            thread.join(max(end - time.monotonic(), 0.0))
        for thread in list(self._sides):
            thread.join(max(end - time.monotonic(), 0.0))
        self._listener.close()
        if any(thread.is_alive() for thread in self._sides):
            raise TimeoutError(f"transfers did not end in {timeout} s: {self._settings}")

    def _start(self, target: Any, *args: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._sides.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        for _ in self.ports:
            connection, peer = self._listener.accept()
            number = self.ports.index(peer[1])
            sent = payload(self._settings.seed, number, "down", self._settings.transfers[number][1])
            self._start(_transfer, connection, sent, self.received[number, "up"], self._settings)

    def _connect(self, number: int) -> None:
        self._clients[number].connect((ADDRESSES[self._settings.version][1], SERVER_PORT))
        sent = payload(self._settings.seed, number, "up", self._settings.transfers[number][0])
        _transfer(self._clients[number], sent, self.received[number, "down"], self._settings)


def _truth(settings: Settings, transfers: Transfers, counts: Dict[str, int]) -> Dict[str, Any]:
    client, server = ADDRESSES[settings.version]
    connections = []
    for number, sizes in enumerate(settings.transfers):
        entry: Dict[str, Any] = {
            "client": [client, transfers.ports[number]],
            "server": [server, SERVER_PORT],
        }
        for way, size in zip(("up", "down"), sizes):
            sent = payload(settings.seed, number, way, size)
            entry[way] = {
                "bytes": size,
                "sha256": hashlib.sha256(sent).hexdigest(),
                "received_intact": bytes(transfers.received[number, way]) == sent,
            }
        connections.append(entry)
    return {"settings": settings._asdict(), "counts": counts, "connections": connections}


class Recording(NamedTuple):
    packets: List[Tuple[float, bytes]]
    truth: Dict[str, Any]


def record(settings: Settings, timeout: float = 120.0) -> Recording:
    """Run the transfers of `settings` over an impaired wire. Needs root; raises `OSError` without."""
    spaces = (Namespace(), Namespace())
    tuns: List[int] = []
    wire: Optional[Wire] = None
    try:
        for side, space in enumerate(spaces):
            tuns.append(space.tun({version: ADDRESSES[version][side] for version in ADDRESSES}, settings.mtu))
            space.set("ipv4/tcp_timestamps", "1" if settings.timestamps else "0")
        wire = Wire(settings, (tuns[0], tuns[1]))
        transfers = Transfers(settings, *spaces)
        transfers.run(timeout)
        time.sleep(0.3 + 4 * settings.delay)  # the last FINs and ACKs
    finally:
        if wire is not None:
            wire.stop()
        for fd in tuns:
            os.close(fd)
        for space in spaces:
            space.close()
    return Recording(wire.packets, _truth(settings, transfers, wire.counts))


def write_pcap(file: BinaryIO, packets: List[Tuple[float, bytes]]) -> None:
    """A pcap file of raw IP packets with times in microseconds."""
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW))
    for timestamp, packet in packets:
        microseconds = round(timestamp * 1_000_000)
        seconds, fraction = divmod(microseconds, 1_000_000)
        file.write(struct.pack("<IIII", seconds, fraction, len(packet), len(packet)) + packet)


def unavailable() -> Optional[str]:
    """Why recording cannot work here, or None."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    try:
        subprocess.run(["ip", "-V"], check=True, stdout=subprocess.DEVNULL)
        Namespace().close()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs network namespaces and the ip command: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIRECTORY", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SAMPLES)} (default: all)")
    options = parser.parse_args()
    unknown = set(options.names) - set(SAMPLES)
    if unknown:
        parser.error(f"no sample is called {', '.join(sorted(unknown))}: there are {', '.join(SAMPLES)}")
    reason = unavailable()
    if reason:
        print(f"record.py: {reason}", file=sys.stderr)
        return 1
    for name in options.names or SAMPLES:
        packets, truth = record(SAMPLES[name])
        with open(options.directory / f"{name}.pcap", "wb") as file:
            write_pcap(file, packets)
        (options.directory / f"{name}.truth.json").write_text(json.dumps(truth, indent=1) + "\n")
        print(f"{name}: {len(packets)} packets, {truth['counts']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
