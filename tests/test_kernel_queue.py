"""A FIN in the queue of `overlap="linux-kernel"` keeps its place when what lies around it moves or goes."""

from __future__ import annotations

from support.recorder import C2S, Recorder
from tcpstitch import Assembler, Gap, Limits, Segment

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
OPTIONS = {"overlap": "linux-kernel", "checks": "strict"}


def test_a_queued_fin_moves_with_the_start_of_the_stream() -> None:
    """The FIN was queued while the later of two SYNs stood for the start; then the server confirms the other one."""
    recorder = Recorder()
    with Assembler(recorder, **OPTIONS) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(CLIENT, SERVER, 1010, flags="S"),
            Segment.make(CLIENT, SERVER, 1018, b"xyz", flags="FA"),
            Segment.make(SERVER, CLIENT, 5000, flags="SA", ack=1001),
            Segment.make(CLIENT, SERVER, 1001, b"seventeen letters", ack=5001),
        ):
            assembler.assemble(segment, 1000.0)
            assembler.check()
        assert C2S in recorder.only.ended
    assert recorder.only.text() == "seventeen lettersxyz"


def test_a_queued_fin_goes_with_the_page_that_held_it() -> None:
    """Data was appended behind the FIN; once the FIN's page is dropped, no byte of the rest is taken for it."""
    recorder = Recorder()
    limits = Limits(max_buffered_pages_per_connection=2, page_size=64)
    with Assembler(recorder, limits=limits, on_limit="drop", **OPTIONS) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(CLIENT, SERVER, 1011, b"a" * 30, flags="FA"),
            Segment.make(CLIENT, SERVER, 1042, bytes(range(60))),
            Segment.make(CLIENT, SERVER, 1001, b"0123456789"),
        ):
            assembler.assemble(segment, 1000.0)
            assembler.check()
    first, gap, rest = recorder.only.events[C2S]
    assert first == b"0123456789"
    assert isinstance(gap, Gap) and (gap.offset, gap.length) == (10, 64)
    assert rest == bytes(range(33, 60))
