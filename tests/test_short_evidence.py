"""What a short step leaves behind decides about later packets as what the rules leave would."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.both_ways import SCALED, STAMPED, both, opened, packet
from support.frames import md5_option, tcp_frame, timestamps_option
from support.recorder import S2C, Recorder
from tcpstitch import Assembler, Limits, Timeouts


def evidence(packets: List[Dict[str, Any]], *more: Any) -> Dict[str, int]:
    """The anomalies that the packets raise, by kind; the same both ways."""
    short, rules = both(packets, {}, *more)
    assert short == rules
    return dict(short[-1].anomalies)


def test_an_acknowledgement_that_was_overtaken_takes_nothing_back() -> None:
    """Data whose start was not seen begins at the highest one, whatever path the later ones take."""
    packets = [
        packet("c", "S", -1), packet("c", "A", 0, 200, 100), packet("s", "A", 200, 100, 100),
        packet("c", "A", 100, 101),
    ]  # fmt: skip
    short, rules = both(packets, {})
    assert short == rules
    assert rules[2][2] == []


@pytest.mark.parametrize("options", [b"", SCALED, STAMPED])
@pytest.mark.parametrize("how", ["data", "data behind a hole", "old data", "FIN"])
def test_a_window_that_grows_without_a_new_acknowledgement_counts_at_once(options: bytes, how: str) -> None:
    """What lies within it is in the window, whichever kind of packet announced it."""
    stamps: Dict[str, Any] = {"options": timestamps_option(10, 9)} if options == STAMPED else {}
    unit = 128 if options == SCALED else 1
    small, large = 100, 6000
    packets = opened((small, 65535), options)
    packets.append(packet("c", "PA", 0, 0, 100, window=small, **stamps))
    if how == "data behind a hole":
        packets.append(packet("c", "PA", 300, 0, 100, window=large, **stamps))
    elif how == "old data":
        packets.append(packet("c", "PA", 0, 0, 100, window=large, **stamps))
    elif how == "FIN":
        packets.append(packet("c", "FA", 100, 0, window=large, **stamps))
    else:
        packets.append(packet("c", "PA", 100, 0, 100, window=large, **stamps))
    beyond = [packet("s", "PA", small * unit + 100, 100, 100, **stamps)]
    assert "out_of_window" in evidence([*packets[:4], *beyond])
    assert "out_of_window" not in evidence([*packets, *beyond])


@pytest.mark.parametrize("whole", [False, True])
def test_the_packets_of_a_connection_that_nobody_follows_any_more_are_ignored(whole: bool) -> None:
    """In whatever form they come, and whatever is odd about them; one side's interest keeps all of them counted."""
    packets = [*opened(), packet("c", "PA", 0, 0, 100), packet("s", "PA", 0, 100, 100)]
    packets += [packet("c", "PA", 100 * n, 100, 100) for n in (1, 3, 9, 0)] + [packet("s", "A", 100, 400)]
    packets += [packet("c", "PAU", 400, 100, 1), packet("s", "A", 900, 200, 9, bad_checksum=True)]
    short, rules = both(packets, {}, 0.001, (1, "stop both" if whole else "stop"))
    assert short == rules
    assert short[-1].ignored == (8 if whole else 0)
    assert bool(short[-1].anomalies) != whole


def test_the_acknowledgement_of_a_fin_takes_no_later_one_back() -> None:
    """The client once had 60000 bytes more than were seen; what it says far below that is no acknowledgement of its."""
    packets = [*opened(), *(packet("s", "PA", n, 0, 1000) for n in range(0, 8000, 1000))]
    packets += [packet("c", "A", 0, 68_000), packet("s", "FA", 8000), packet("c", "A", 0, 8001)]
    assert evidence(packets) == {}
    assert evidence([*packets, packet("c", "A", 0, 2400)]) == {"bad_ack": 1}


def test_a_server_that_answers_a_syn_with_a_syn_betrays_itself_by_its_first_acknowledgement() -> None:
    """Also where that comes late, with data in order, on a connection that has long been open; once."""
    packets = [packet("c", "S", -1), packet("s", "S", -1), packet("s", "A", 0, -1), packet("c", "A", 0)]
    packets += [packet("c", "PA", 0, 0, 100), packet("c", "PA", 100, 0, 100), packet("s", "PA", 0, 200, 100)]
    assert evidence(packets[:-1]) == {}
    assert evidence(packets) == {"split_handshake": 1}
    assert evidence([*packets, packet("s", "PA", 100, 200, 100), packet("s", "A", 200, 200)]) == {"split_handshake": 1}
    crossed = [*packets[:2], packet("c", "SA", -1, 0), packet("s", "SA", -1, 0), packet("c", "A", 0), packets[-1]]
    assert "split_handshake" not in evidence([*crossed[:-1], packet("s", "PA", 0, 0, 100)])


@pytest.mark.parametrize("ack", [0, 30_000])
def test_what_is_no_acknowledgement_is_none_as_often_as_it_comes(ack: int) -> None:
    """The client has 120000 bytes, as it says: it cannot have less than that without a window of 65535 before."""
    packets = [*opened(), packet("s", "PA", 60_000, 0, 100), packet("c", "A", 0, 120_000)]
    assert evidence(packets) == {}
    assert evidence([*packets, *(packet("c", "A", 0, ack) for _ in range(4))]) == {"bad_ack": 4}


def test_a_late_syn_with_a_smaller_window_lets_acknowledgements_be_judged_anew() -> None:
    """Without a SYN the largest window is assumed, and almost anything may be an acknowledgement."""
    packets = [*(packet("s", "A", 700 * n, 0, 700) for n in range(4)), packet("c", "A", 0, 72_800)]
    packets += [packet("c", "PA", 0, 2800, 64), packet("c", "SA", -1, 2800, 65), packet("c", "PA", 600, 2800, 1460)]
    assert evidence(packets)["bad_ack"] == 1


def test_a_syn_with_a_lower_number_makes_nothing_up_that_could_be_acknowledged() -> None:
    """The second SYN is the one that counts; behind it nothing was sent, whatever lies between the two."""
    packets = [packet("c", "S", -1), packet("c", "S", -5001), packet("s", "SA", -1, -1000)]
    assert evidence(packets) == {"syn_isn_change": 1, "bad_ack": 1}


def test_acknowledgements_of_a_direction_that_nobody_follows_are_not_counted() -> None:
    """Ten bytes and one behind what was acknowledged last are honest where nothing was acknowledged since the stop."""
    packets = [*opened(), packet("s", "PA", 0, 0, 100), packet("c", "A", 0, 100)]
    packets += [packet("s", "PA", 100, 0, 10), packet("s", "PA", 110, 0, 1)]
    assert evidence(packets) == {"small_segments": 1}
    assert evidence(packets, 0.001, (1, "stop")) == {}


def test_an_acknowledgement_that_was_taken_on_trust_counts_once_the_data_is_there() -> None:
    """The server acknowledged 300 bytes before any of them was seen: the hole among them is late, or lost."""
    packets = [packet("s", "A", 700 * n, 300, 700) for n in range(5)]
    packets += [packet("c", "A", 0, 3500, 66), packet("s", "A", 3500, 300, 700)]
    packets += [packet("c", "A", place, 4200, 30) for place in (100, 130, 160, 190, 220)]
    packets += [packet("s", "A", 4200 + 700 * n, 300, 700) for n in range(4)]
    short, rules = both(packets, {}, 0.06)
    assert short == rules
    assert short[-1].gaps_by_reason == {"acknowledged": 1}


def test_data_exactly_half_the_sequence_space_away_came_before() -> None:
    """RFC 9293 3.4 leaves it open; `unwrap` does not."""
    packets = [packet("c", "PA", 700 * n, 0, 700) for n in range(4)]
    packets += [packet("c", "PA", 2800 + 2**30 - 40_000, 0, 700), packet("s", "A", 0, 2800 + 2**31 - 60_000)]
    packets += [packet("c", "PA", 2800 + 2**31, 0, 700)]
    assert evidence(packets) == {"midstream": 1, "retransmission": 1}


def test_acknowledgements_are_judged_anew_when_the_start_of_a_stream_turns_out_to_be_elsewhere() -> None:
    """A segment from far below comes while the start is held: offsets count from there, and so do acknowledgements."""
    far = 2**31 - 200
    packets = [packet("c", "A", 0, 0, 65), packet("s", "A", 0, 65, 20), packet("c", "A", -far, 0, 1460)]
    packets += [packet("s", "A", 3000 + 400 * n, 1500, 400) for n in range(3)]
    packets += [packet("c", "A", place, 4200, 64) for place in (2925, 2989, 3053, 3117)]
    packets += [packet("s", "A", 4200, 3054), packet("s", "A", 4200, 3100), packet("s", "A", 4200, 3054)]
    short, rules = both(packets, {})
    assert short == rules


def test_the_callback_hears_at_once_that_the_pressure_is_gone() -> None:
    """Whoever let the pages go: a handler that stops, a flush, the end of a connection."""
    pages, places = Limits(max_buffered_pages_total=8), Limits(max_connections=2)
    waiting = [packet("s", "PA", 1000 * n, 0, 1000) for n in range(1, 10)]
    stopped = [*opened(), *waiting, packet("c", "PA", 0, 0, 100)]
    ended = [*opened(), packet("c", "FA", 0), packet("s", "FA", 0, 1), packet("c", "A", 1, 1)]
    for packets, limits, unruly in ((stopped, pages, (1, "stop both")), (ended, places, (0, ""))):
        short, rules = both(packets, {"limits": limits, "on_pressure": None}, 0.001, unruly)
        assert short == rules
        assert [heard for heard in short[0] if isinstance(heard, int)][-1] == 0
    levels: List[int] = []
    assembler = Assembler(Recorder(), limits=pages, on_pressure=levels.append)
    for each in [*opened(), *waiting]:
        assembler.assemble(tcp_frame(**each), 1.0)
    assert levels[-1] > 0
    assembler.flush_older_than(2.0)
    assert levels[-1] == 0


@pytest.mark.parametrize("back", [0.0, 0.5, 20.0])
def test_what_is_given_up_at_the_end_bears_the_time_of_the_last_packet_wherever_the_clock_went(back: float) -> None:
    packets = [*opened(), packet("s", "PA", 500, 0, 100), packet("c", "A", 0, 0)]
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for number, each in enumerate(packets):
            assembler.assemble(tcp_frame(**each), 100.0 - back * (number == len(packets) - 1))
    assert [(gap.direction, gap.timestamp) for gap in recorder.only.gaps] == [(S2C, 100.0 - back)]


# Conversations that go wrong: for each packet who sends it and what, how far from its place in the stream, how far from
# the truth it acknowledges, how much data it has, what window it shows, and what else is odd about it.
FAR = [0, 0, 0, 0, 0, 0, 1, -1, 100, -100, 1460, 8000, -65536, -65537, 60_000, 65_536, 70_000, 2**31]
packets_that_go_wrong = st.lists(
    st.tuples(
        st.sampled_from("cs"),
        st.sampled_from(["PA", "PA", "PA", "PA", "A", "A", "FA", "S", "SA", "RA", "PAU", "P"]),
        st.sampled_from(FAR),
        st.sampled_from(FAR),
        st.sampled_from([0, 1, 2, 64, 65, 100, 1460, 3000]),
        st.sampled_from([65535, 65535, 65535, 1000, 100, 1, 0]),
        st.sampled_from(["", "", "", "", "", "ttl", "checksum", "stamp", "md5", "twice"]),
    ),
    min_size=1,
    max_size=25,
)


def conversation(how: str, options: bytes, talk: Any) -> List[Dict[str, Any]]:
    begun = {
        "shaken": ["cS", "sSA", "cA"], "crossed": ["cS", "sS", "cSA", "sSA"], "split": ["cS", "sS", "cA"],
        "answered": ["sSA"], "asked": ["cS"], "midstream": [],
    }[how]  # fmt: skip
    packets = [packet(who[0], who[1:], -("S" in who), options=options * ("S" in who)) for who in begun]
    said = {"c": 0, "s": 0}
    for who, flags, away, wrong, size, window, odd in talk:
        size = 0 if "S" in flags or "R" in flags else size
        at = -1 if flags in ("S", "SA") else said[who]
        made = packet(who, flags, at + away, said["s" if who == "c" else "c"] + wrong, size, window=window)
        if options == STAMPED and "S" not in flags:
            made["options"] = timestamps_option(9 + len(packets), 5)
        if odd == "stamp":
            made["options"] = timestamps_option(3, 5)
        elif odd == "md5":
            made["options"] = md5_option()
        elif odd == "ttl":
            made["ttl"] = 60
        elif odd == "checksum":
            made["bad_checksum"] = True
        packets += [made] * (1 + (odd == "twice"))
        if away >= 0 and not flags.startswith(("S", "R")):
            said[who] = at + min(away, 1460) + size + ("F" in flags)
    return packets


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["shaken", "shaken", "crossed", "split", "answered", "asked", "midstream"]),
    st.sampled_from([b"", SCALED, STAMPED, md5_option()]),
    packets_that_go_wrong,
    st.sampled_from([0.0, 0.001, 0.03, 0.4, -0.01]),
    st.one_of(st.just((0, "")), st.tuples(st.integers(1, 9), st.sampled_from(["fail", "keep", "stop", "stop both"]))),
    st.sampled_from(
        [
            {},
            {},
            {"timeouts": Timeouts(idle=2.0, embryonic=1.0, closed=1.0, gap=1.5, acknowledged=0.05)},
            {"limits": Limits(max_buffered_pages_total=12), "on_pressure": None},
            {"limits": Limits(max_connections=1), "on_pressure": None},
            {"limits": Limits(max_buffered_pages_per_connection=5), "on_limit": "drop"},
            {"start": "syn", "urgent": "oob"},
            {"checks": "strict"},
            {"checks": "strict", "overlap": "linux-kernel", "limits": Limits(max_connections=1)},
            {"checks": "strict", "overlap": "solaris", "timeouts": Timeouts(idle=2.0, embryonic=1.0, closed=1.0)},
        ]
    ),
)
def test_a_conversation_that_goes_wrong_leads_to_the_same(
    how: str, options: bytes, talk: Any, step: float, unruly: Tuple[int, str], settings_of_assembler: Dict[str, Any]
) -> None:
    """Whatever the packets claim and the handlers do: the same calls, counters, holders and levels of pressure."""
    short, rules = both(conversation(how, options, talk), settings_of_assembler, step, unruly)
    assert short == rules
