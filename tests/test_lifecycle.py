"""How long a connection is followed once one side has closed."""

from __future__ import annotations

from support.recorder import Recorder
from tcpstitch import Assembler, Segment

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 443)


def test_the_other_side_of_a_half_closed_connection_may_be_silent_for_minutes() -> None:
    """A FIN from one side ends that direction alone; what the other sends four minutes later is the same connection."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="S"), 1000.0)
    assembler.assemble(Segment.make(SERVER, CLIENT, 500, flags="SA", ack=101), 1000.1)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"request", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="FA", ack=501), 1000.3)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"late", flags="FPA", ack=109), 1240.0)
    assert len(recorder.connections) == 1
    assert recorder.connections[0].completions == ["fin"]
    assert assembler.statistics().bytes == len(b"request") + len(b"late")
