"""What makes a connection besides addresses and ports: the same ones in two VLANs or tunnels, end to end."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from decode_frames import LINK_FRAMES
from small_captures import capture
from support.frames import CLIENT, CLIENT6, SERVER, SERVER6, ethernet, ip_packet, tcp_segment
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Flow, PacketDecoder, UsageError
from tcpstitch.cli import main

# Each wraps an IP packet for tenant 0 or 1; `back` says that it travels from server to client.
Wrap = Callable[[bytes, int, bool], bytes]


def tagged(packet: bytes, *tags: Tuple[int, int]) -> bytes:
    frame = ethernet(packet)
    return frame[:12] + b"".join(struct.pack("!HH", *tag) for tag in tags) + frame[12:]


def outer(body: bytes, protocol: int, back: bool, tenant: int = 0) -> bytes:
    ends = ("192.0.2.1", f"192.0.2.{2 + tenant}")
    return ethernet(ip_packet(*(ends[::-1] if back else ends), body, protocol=protocol))


def over_udp(body: bytes, port: int, back: bool) -> bytes:
    return outer(struct.pack("!HHHH", 50000 + back, port, 8 + len(body), 0) + body, 17, back)


def gre(packet: bytes, key: int, back: bool) -> bytes:
    return outer(struct.pack("!HHI", 0x2000, 0x6558, key) + ethernet(packet), 47, back)


VLANS: Dict[str, Wrap] = {
    "two VLANs": lambda packet, tenant, back: tagged(packet, (0x8100, 5 + tenant)),
    "a VLAN and none": lambda packet, tenant, back: tagged(packet, *[(0x8100, 5)] * tenant),
    "two outer tags": lambda packet, tenant, back: tagged(packet, (0x88A8, 5 + tenant), (0x8100, 9)),
    "two inner tags": lambda packet, tenant, back: tagged(packet, (0x88A8, 9), (0x8100, 5 + tenant)),
    "swapped tags": lambda packet, tenant, back: tagged(packet, (0x8100, 5 + tenant), (0x8100, 6 - tenant)),
}
TUNNELS: Dict[str, Wrap] = {
    "two VXLAN networks": lambda packet, tenant, back: over_udp(
        struct.pack("!II", 8 << 24, 70 + tenant << 8) + ethernet(packet), 4789, back
    ),
    "two Geneve networks": lambda packet, tenant, back: over_udp(
        struct.pack("!BBHI", 0, 0, 0x6558, 70 + tenant << 8) + ethernet(packet), 6081, back
    ),
    "GRE between other ends": lambda packet, tenant, back: outer(
        struct.pack("!HH", 0, 0x0800 if packet[0] >> 4 == 4 else 0x86DD) + packet, 47, back, tenant
    ),
    "GRE with two keys": lambda packet, tenant, back: gre(packet, 1 + tenant, back),
    "NVGRE, flow ids differ by direction": lambda packet, tenant, back: gre(
        packet, (5000 + tenant) << 8 | 7 + back, back
    ),
    "IP in IP between other ends": lambda packet, tenant, back: outer(
        packet, 4 if packet[0] >> 4 == 4 else 41, back, tenant
    ),
    "two PPPoE sessions": lambda packet, tenant, back: ethernet(packet)[:12] + struct.pack(
        "!HBBHHH", 0x8864, 0x11, 0, 9 + tenant, 2 + len(packet), 0x21 if packet[0] >> 4 == 4 else 0x57
    ) + packet,
}  # fmt: skip
SENT = [(b"request of tenant %d" % tenant, b"answer to tenant %d" % tenant) for tenant in (0, 1)]


def frames(wrap: Wrap, client: Any, server: Any) -> List[bytes]:
    """Two whole connections with the same addresses, ports and sequence numbers, packet by packet in turn."""
    def packet(tenant: int, back: bool, seq: int, payload: bytes, flags: str, ack: int) -> bytes:
        source, target = (server, client) if back else (client, server)
        segment = tcp_segment(source, target, seq, payload, flags, ack)
        return wrap(ip_packet(source[0], target[0], segment), tenant, back)

    made = []
    for step in range(6):
        for tenant, (up, down) in enumerate(SENT):
            made.append(packet(tenant, *[
                (False, 99, b"", "S", 0),
                (True, 499, b"", "SA", 100),
                (False, 100, up, "A", 500),
                (True, 500, down, "A", 100 + len(up)),
                (False, 100 + len(up), b"", "FA", 500 + len(down)),
                (True, 500 + len(down), b"", "FA", 101 + len(up)),
            ][step]))  # fmt: skip
    return made


def assembled(flow_key: str, packets: List[bytes]) -> Recorder:
    recorder = Recorder()
    assembler = Assembler(recorder, flow_key=flow_key)
    for number, packet in enumerate(packets):
        assembler.assemble(packet, 1.0 + number / 1000)
    assembler.flush_all()
    return recorder


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("case", [*VLANS, *TUNNELS])
def test_tenants_with_the_same_addresses_do_not_mix_when_asked(case: str, ends: Any) -> None:
    """Two connections, each whole in both directions; with the plain key they are taken for one."""
    packets = frames({**VLANS, **TUNNELS}[case], *ends)
    recorder = assembled("vlan" if case in VLANS else "tunnel", packets)
    assert [(each.data(C2S), each.data(S2C)) for each in recorder.connections] == SENT
    assert [each.completions for each in recorder.connections] == [["fin"], ["fin"]]
    assert len({each.flow for each in recorder.connections}) == 2
    assert len(assembled("plain", packets).connections) == 1


@pytest.mark.parametrize(
    "case, text",
    [
        ("two outer tags", "vlan 5 vlan 9"),
        ("two VXLAN networks", "vxlan 70"),
        ("GRE with two keys", "gre 192.0.2.1 192.0.2.2 1"),
        ("IP in IP between other ends", "ip 192.0.2.1 192.0.2.2"),
    ],
)
def test_a_flow_as_text_names_its_vlans_and_tunnels(case: str, text: str) -> None:
    (one, _) = assembled("tunnel", frames({**VLANS, **TUNNELS}[case], CLIENT, SERVER)).connections
    assert str(one.flow).endswith(f":{SERVER[1]} {text}")


@pytest.mark.parametrize("case", VLANS)
def test_the_tunnel_key_holds_the_vlans_too(case: str) -> None:
    assert len(assembled("tunnel", frames(VLANS[case], CLIENT, SERVER)).connections) == 2


@pytest.mark.parametrize("name", ["marvell tagged", "marvell with type"])
def test_a_switch_tag_in_the_place_of_a_vlan_tag_counts_as_one(name: str) -> None:
    """A Marvell switch writes its own tag over the 802.1Q tag of a tagged frame, with the same VLAN id."""
    linktype, packet = LINK_FRAMES[name]
    (segment,) = PacketDecoder(linktype, flow_key="vlan").decode(packet)
    assert Flow(segment.key).context == (5,)


def test_the_vlan_key_leaves_tunnels_out() -> None:
    packets = frames(TUNNELS["two VXLAN networks"], CLIENT, SERVER)
    assert len(assembled("vlan", packets).connections) == 1


def test_no_two_of_all_vlan_pairs_share_a_connection() -> None:
    """The key is the tuple of ids itself: as many connections as pairs, none lost to an equal digest."""
    packet = ip_packet(CLIENT[0], SERVER[0], tcp_segment(CLIENT, SERVER, 99, flags="S"))
    ids = range(1, 4095, 61)
    packets = [tagged(packet, (0x88A8, one), (0x8100, two)) for one in ids for two in ids]
    recorder = assembled("vlan", packets)
    assert sorted(each.flow.context for each in recorder.connections) == [(one, two) for one in ids for two in ids]


def test_the_command_tells_tenants_apart_with_flow_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vlans.pcap"
    path.write_bytes(capture(*frames(VLANS["two VLANs"], CLIENT, SERVER)).getvalue())
    assert main(["list", "--flow-key", "vlan", str(path)]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "10.0.0.1:40000 > 10.0.0.2:80 vlan 5", "10.0.0.1:40000 > 10.0.0.2:80 vlan 6",
    ]  # fmt: skip
    assert main(["list", "--flow-key", "color", str(path)]) == 2
    assert "use one of plain, vlan, tunnel" in capsys.readouterr().err


def test_an_unknown_flow_key_is_refused() -> None:
    with pytest.raises(UsageError, match="use one of plain, vlan, tunnel"):
        Assembler(Recorder(), flow_key="mac")
