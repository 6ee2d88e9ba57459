"""Packets from a network interface of Linux, through a packet socket of the standard library (packet(7)).

Elsewhere, or without the rights, let another program capture: `tcpdump -B 65536 -U -w - | tcpstitch list -`.
"""

from __future__ import annotations

import array
import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import time
import warnings
from contextlib import suppress
from typing import Any, Generator, Iterator, List, NoReturn, Optional, Sequence, Tuple, Type

from .capture import packet_class
from .capture.stopping import STOP_SIGNALS, can_stop, stop_on
from .errors import CaptureError, CaptureWarning, UsageError

# linux/if_packet.h, linux/if_ether.h, linux/if_arp.h, linux/sockios.h and asm-generic/socket.h; what Python lacks
_ETH_P_ALL = 3
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _STATISTICS, _AUXDATA = 1, 6, 8
_MR_PROMISC = 1
_OUTGOING = 4
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_ATTACH_FILTER, _RCVBUFFORCE, _TIMESTAMPNS = 26, 33, 35
_GET_FLAGS, _GET_HARDWARE, _GET_INDEX = 0x8913, 0x8927, 0x8933
_UP = 1
_AUX = struct.Struct("=IIIHHHH")  # status, length, captured, mac, net, VLAN TCI, VLAN TPID
_TIME = struct.Struct("@ll")
_HARDWARE_LOOPBACK = 772
_VERSIONS = {0x0800: 4, 0x86DD: 6}

ETHERNET, RAW, COOKED = 1, 101, 113
# Hardware type to link type; what is not here comes without its header, under one that the kernel's facts make (SLL).
_LINKTYPES = {1: ETHERNET, _HARDWARE_LOOPBACK: ETHERNET, 519: RAW, 65534: RAW, 768: RAW, 769: RAW, 776: RAW,
              801: 105, 802: 119, 803: 127}  # fmt: skip
_MAX_SNAPLEN = 1 << 20  # more than any frame; Linux lets those of BIG TCP grow to twice what libpcap keeps, 262144
_DRAIN_SECONDS = 2.0
# Classic BPF (linux/filter.h): load a word, or one of the kernel's facts about the packet; jump if equal; end with the
# number of bytes to keep.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_PACKET_TYPE, _HARDWARE_TYPE = 0xFFFFF004, 0xFFFFF01C
_STEP = struct.Struct("=HBBI")
# A loopback device shows each packet as sent and as received: the former take no room, and are no drops.
_NOT_TWICE = b"".join(
    _STEP.pack(*step)
    for step in (
        (_LOAD, 0, 0, _PACKET_TYPE), (_EQUAL, 0, 3, _OUTGOING),
        (_LOAD, 0, 0, _HARDWARE_TYPE), (_EQUAL, 0, 1, _HARDWARE_LOOPBACK), (_RETURN, 0, 0, 0),
    )
)  # fmt: skip


class Live:
    """Packets of an interface as they come, to be iterated once; a context manager that closes the socket.

    Yields `(timestamp, packet)` as `open_capture` does, VLAN tags back in their place; `linktype` is theirs.
    The iteration ends after `stop`, which a signal handler or another thread may call, with the packets that had come
    until then, as far as two seconds are enough to read them; or with a `CaptureWarning` when the interface goes down.
    A loop that an exception left goes on in the next one.
    Costs some microseconds per packet. `sniff` makes it.
    """

    def __init__(self, name: str, sock: socket.socket, linktype: int, snaplen: int, signals: Sequence[int]) -> None:
        self.name = name
        self.linktype = linktype
        self.warnings: List[str] = []
        self._socket = sock
        self._snaplen = snaplen
        self._signals = signals
        self._received = self._dropped = 0
        self._begun = self._over = self._failed = False
        self._stopped: Optional[float] = None  # on the monotonic clock
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._packets: Generator[Tuple[float, bytes], None, None] = self._read()

    def __iter__(self) -> Iterator[Tuple[float, bytes]]:
        if self._socket.fileno() < 0 and not self._begun:
            raise UsageError(f"{self.name}: the capture is closed, nothing was read of it: call sniff() again")
        self._begun = True
        if getattr(self._packets, "gi_frame", None) is None and not self._over and self._socket.fileno() >= 0:
            self._packets = self._read()  # an exception had ended the wait for more
        return self._packets

    @property
    def received(self) -> int:
        """Packets that the kernel saw for this capture, dropped ones included, filtered ones not."""
        self._count()
        return self._received

    @property
    def dropped(self) -> int:
        """Packets that were lost because this program did not read fast enough: the kernel dropped them, or two seconds
        after `stop` they were not read yet."""
        self._count()
        return self._dropped

    def _count(self) -> None:
        with suppress(OSError):  # it is closed, perhaps in this moment and by another thread
            # The kernel's counters start anew each time they are read; `received` includes what was dropped.
            received, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
            self._received += received
            self._dropped += dropped

    def stop(self) -> None:
        """End the iteration after the packets that have come until now. May be called again, from anywhere."""
        if self._stopped is None:
            self._stopped = time.monotonic()
            try:
                self._wake_writer.send(b"x")
            except OSError:
                pass  # closed meanwhile

    def close(self) -> None:
        """Leave the interface; `received` and `dropped` stay readable. Ends the iteration; one that begins only then
        raises `UsageError`. May be called again. From another thread call `stop` instead."""
        self.stop()
        self._count()
        try:
            self._packets.close()  # a loop that was left early gives the signals back here
        except ValueError:
            pass  # it is running, and ends when it looks at the socket
        for each in (self._socket, self._wake_reader, self._wake_writer):
            each.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Any, trace: Any) -> None:
        self.close()

    def _read(self) -> Generator[Tuple[float, bytes], None, None]:
        make = packet_class(self.linktype)
        with stop_on(self._signals, self.stop):
            for timestamp, packet in self._receive():
                # Not by timestamps: the kernel makes them when packets are read until its own are switched on.
                if self._stopped is not None and time.monotonic() > self._stopped + _DRAIN_SECONDS:
                    self._dropped += 1
                    with suppress(OSError):  # another thread has closed it
                        self._dropped += _empty(self._socket)
                    break
                yield timestamp, packet if make is bytes else make(packet)
        self._over = True

    def _receive(self) -> Iterator[Tuple[float, bytes]]:
        buffer = bytearray(self._snaplen)
        view, into = memoryview(buffer), [buffer]
        room = socket.CMSG_SPACE(_AUX.size) + socket.CMSG_SPACE(_TIME.size)
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        while self._socket.fileno() >= 0:
            try:
                size, extras, _, address = self._socket.recvmsg_into(into, room)
            except BlockingIOError:
                if self._stopped is not None:
                    return
                poll.poll()
                with suppress(OSError):  # nothing, or closed; the stop of a forked child comes here, too
                    self._wake_reader.recv(1)
                continue
            except OSError as error:
                if not self._went_wrong(error):
                    return
                continue
            yield self._restored(bytes(view[:size]), extras, address)

    def _went_wrong(self, error: OSError) -> bool:
        """Report an error of the socket; True if there may be more to read. The kernel tells an error once, and before
        the packets that had come until then: these are still there."""
        if error.errno == errno.ENETDOWN and self.name == "any":
            return True
        first, self._failed = not self._failed, True
        if self._stopped is None:
            self.stop()
            message = f"{self.name}: {error.strerror}: the capture ends"
            self.warnings.append(message)
            warnings.warn(message, CaptureWarning, stacklevel=4)
        return first

    def _restored(self, data: bytes, extras: Any, address: Any) -> Tuple[float, bytes]:
        """Time and frame, with what the kernel or the network card took out of it."""
        timestamp, tag = -1.0, b""
        for level, kind, value in extras:
            if level == _SOL_PACKET and kind == _AUXDATA:
                status, _, _, _, _, tci, tpid = _AUX.unpack(value[: _AUX.size])
                if status & _VLAN_VALID or tci:
                    tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci)
            elif level == socket.SOL_SOCKET and kind == _TIMESTAMPNS:
                seconds, nanoseconds = _TIME.unpack(value[: _TIME.size])
                timestamp = seconds + nanoseconds * 1e-9
        if timestamp < 0:
            timestamp = time.time()
        if self.linktype == COOKED:
            _, protocol, kind, hardware, source = address
            if tag and data and _VERSIONS.get(protocol, data[0] >> 4) != data[0] >> 4:
                protocol = 0x8100  # newer kernels name what lies behind all tags, though only one was taken out
            head = struct.pack("!HHH8s", kind, hardware, len(source), source[:8])
            return timestamp, head + tag + struct.pack("!H", protocol) + data
        if tag and self.linktype == ETHERNET:
            data = data[:12] + tag + data[12:]
        return timestamp, data


def sniff(
    interface: str,
    *,
    filter: Optional[str] = None,
    snaplen: int = _MAX_SNAPLEN,
    promiscuous: bool = True,
    buffer_bytes: int = 16 << 20,
    signals: Sequence[int] = STOP_SIGNALS,
) -> Live:
    """Capture on an interface of Linux, or on all of them: "any". Starts at once; needs CAP_NET_RAW.

    `filter` is a pcap-filter(7) expression, run by the kernel; tcpdump compiles it. `tcp` and `port` do not look behind
    extension headers of IPv6, which the large packets of BIG TCP have, nor into tunnels: "tcp port 80 or ip6 proto 0"
    takes the former. At most `snaplen` bytes of each packet are kept. With `promiscuous`, an interface is asked for
    packets for other hosts too; without, they come where another program has asked, and from virtual devices. "any"
    asks no interface, and of several VLAN tags of a packet that this host sends it has the outermost only.
    `buffer_bytes` is what the kernel may hold until they are read. While the main thread iterates, the first of
    `signals` ends the iteration as an end of file would, so that what follows can flush; pass `()` to leave signals
    alone. Raises `UsageError` for an argument or filter that cannot work, `CaptureError` where capturing is impossible:
    another system, no such interface, an interface that is down, no rights.
    """
    if not hasattr(socket, "AF_PACKET"):
        raise CaptureError("live capture needs Linux; elsewhere use: tcpdump -B 65536 -U -w - | tcpstitch list -")
    if not isinstance(interface, str) or not interface:
        raise UsageError(f"interface {interface!r}: give the name of a network interface, or 'any'")
    if snaplen.__class__ is not int or not 64 <= snaplen <= _MAX_SNAPLEN:
        raise UsageError(f"snaplen {snaplen!r}: give 64 to {_MAX_SNAPLEN} bytes")
    if filter is not None and not isinstance(filter, str):
        raise UsageError(f"filter {filter!r}: give a pcap-filter(7) expression, or None")
    if buffer_bytes.__class__ is not int or not 0 < buffer_bytes < 1 << 31:
        raise UsageError(f"buffer_bytes {buffer_bytes!r}: give 1 to {(1 << 31) - 1} bytes")
    if not isinstance(signals, (list, tuple)) or not all(map(can_stop, signals)):
        raise UsageError(f"signals {signals!r}: give a tuple of the numbers of signals that can be caught, or ()")
    try:
        return _start(interface, filter, snaplen, promiscuous, buffer_bytes, signals)
    except OSError as error:
        raise CaptureError(f"{interface}: cannot be captured: {error.strerror}") from error


def _start(
    interface: str, expression: Optional[str], snaplen: int, promiscuous: bool, room: int, signals: Sequence[int]
) -> Live:
    hardware, index = (-1, 0) if interface == "any" else _look_up(interface)
    linktype = _LINKTYPES.get(hardware, COOKED)
    program = _compile(interface, linktype, expression, snaplen)
    sock = _open(interface, linktype == COOKED)
    try:
        _prepare(sock, room)  # nothing unfiltered is left when the true filter takes over
        if interface != "any":
            sock.bind((interface, _ETH_P_ALL))
            if promiscuous:
                wanted = struct.pack("@IHH8s", index, _MR_PROMISC, 0, b"")
                sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, wanted)
        try:
            _attach(sock, _NOT_TWICE + program)
        except (OSError, struct.error):  # the latter of a length that fits into no field
            _refuse(str(expression), "tcpdump: the kernel refuses its program: too long, or with a loop (protochain)")
        return Live(interface, sock, linktype, snaplen, signals)
    except BaseException:
        sock.close()
        raise


def _look_up(interface: str) -> Tuple[int, int]:
    """Hardware type (ARPHRD_*) and index of an interface that exists and is up."""
    import fcntl  # not on Windows, which never comes here

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            raw = os.fsencode(interface)
            if len(raw) > 15 or b"\0" in raw:
                raise ValueError("no interface can have that name")
            name = struct.pack("16s16x", raw)
            flags: int = struct.unpack_from("@H", fcntl.ioctl(sock, _GET_FLAGS, name), 16)[0]
            kind: int = struct.unpack_from("@H", fcntl.ioctl(sock, _GET_HARDWARE, name), 16)[0]
            index: int = struct.unpack_from("@i", fcntl.ioctl(sock, _GET_INDEX, name), 16)[0]
        except (OSError, ValueError) as error:
            there = ", ".join(_interfaces())
            raise CaptureError(f"{interface}: no such interface; there are: {there}, any") from error
    if not flags & _UP:
        raise CaptureError(f"{interface}: the interface is down")
    return kind, index


def _interfaces() -> List[str]:
    """Names of the interfaces in this thread's namespace; from proc(5), for PyPy has no `socket.if_nameindex`."""
    with open("/proc/thread-self/net/dev", encoding="utf-8") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


def _open(interface: str, cooked: bool) -> socket.socket:
    kind = socket.SOCK_DGRAM if cooked else socket.SOCK_RAW
    try:
        return socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
    except PermissionError:
        raise CaptureError(f"{interface}: capturing needs root, or the capability CAP_NET_RAW") from None


def _prepare(sock: socket.socket, buffer_bytes: int) -> None:
    """A filter that lets nothing in, an empty queue, buffer and ancillary data."""
    sock.setblocking(False)
    _empty(sock)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, buffer_bytes)
    except OSError:  # needs CAP_NET_ADMIN; without it the system's bound holds
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    sock.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)


def _empty(sock: socket.socket) -> int:
    """Let nothing in any more, and throw away what came before that; returns how many packets it was."""
    _attach(sock, _STEP.pack(_RETURN, 0, 0, 0))
    count = 0
    while True:
        try:
            sock.recv(1)
            count += 1
        except BlockingIOError:
            return count
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # of an interface that is not ours
                raise


def _attach(sock: socket.socket, program: bytes) -> None:
    """Classic BPF, struct sock_filter after struct sock_filter."""
    kept = array.array("B", program)
    address, size = kept.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", size // 8, address))


def _compile(interface: str, linktype: int, expression: Optional[str], snaplen: int) -> bytes:
    """The filter's program, or the one that takes everything."""
    if expression is None or not expression.strip():
        return _STEP.pack(_RETURN, 0, 0, snaplen)
    tcpdump = shutil.which("tcpdump") or shutil.which("tcpdump", path="/usr/sbin:/sbin:/usr/local/sbin")
    if tcpdump is None:
        raise UsageError("a filter needs tcpdump to compile it: install tcpdump, or leave the filter out")
    # A cooked socket shows the filter what lies behind the link layer, which is what a raw IP packet is.
    which = ["-y", "RAW"] if linktype in (RAW, COOKED) else ["-i", interface]
    command = [tcpdump, *which, "-ddd", "--", expression]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:  # too long, or with a null byte
        _refuse(expression, f"tcpdump: {error}")
    if run.returncode:
        _refuse(expression, run.stderr)
    try:
        rows = [[int(number) for number in line.split()] for line in run.stdout.splitlines()]
        if [len(rows) - 1] != rows[0]:
            raise ValueError
        for row in rows[1:]:
            if row[0] == _RETURN and row[3]:
                row[3] = snaplen  # which may be more than tcpdump would take
        return b"".join(_STEP.pack(*row) for row in rows[1:])
    except (ValueError, IndexError, struct.error):
        _refuse(expression, "tcpdump: its answer was not understood")


def _refuse(expression: str, said: str) -> NoReturn:
    lines = [line for line in said.splitlines() if line.startswith("tcpdump: ")] or ["tcpdump: it was refused"]
    raise UsageError(f"filter {expression!r:.500}: {lines[-1][9:]}")
