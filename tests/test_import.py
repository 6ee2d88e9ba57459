"""What `import tcpstitch` costs: counted in modules, since a time says more about the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Set

import pytest

import tcpstitch

CAPTURE = Path(__file__).parent / "captures" / "lossy-v4.pcap"
USUAL = "from tcpstitch import Assembler, Limits, Stream, StreamFactory, open_capture"
# Each costs about as much to import as all of this library.
HEAVY = {"dpkt", "sortedcontainers", "logging", "socket", "ipaddress", "bz2", "lzma", "argparse", "json", "asyncio"}
HEAVY |= {"concurrent.futures", "multiprocessing", "distributed", "threading"}
RARE = {"tcpstitch.kernel_queue", "tcpstitch.capture.pcapng", "tcpstitch.capture.snoop"}


def modules_after(code: str) -> Set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().split())


def test_importing_the_package_imports_nothing_else_until_a_name_is_used() -> None:
    loaded = modules_after("import tcpstitch") - modules_after("pass")
    assert {name for name in loaded if name.partition(".")[0] != "__future__"} == {"tcpstitch"}


def test_the_usual_names_come_without_the_heavy_modules() -> None:
    loaded = modules_after(USUAL) - modules_after("pass")
    assert "tcpstitch.assembler" in loaded
    assert loaded & (HEAVY | RARE) == set()


def test_assembling_a_capture_of_bytes_never_imports_dpkt() -> None:
    code = f"from tcpstitch import connections\nassert any(c.client_data for c in connections({str(CAPTURE)!r}))"
    assert not {name for name in modules_after(code) if name.partition(".")[0] == "dpkt"}


@pytest.mark.parametrize("name", tcpstitch.__all__)
def test_every_public_name_resolves_to_the_one_in_its_module(name: str) -> None:
    value = getattr(tcpstitch, name)
    assert getattr(sys.modules[value.__module__], name) is value
    assert name in dir(tcpstitch)


@pytest.mark.parametrize("name", ["live.sniff", "parallel.run", "segment.SYN", "state_machine.OptionCheck"])
def test_the_modules_that_the_package_names_need_no_import_of_their_own(name: str) -> None:
    module, member = name.split(".")
    code = f"import tcpstitch\nassert {module!r} in dir(tcpstitch) and hasattr(tcpstitch.{module}, {member!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_star_import_gives_all_public_names() -> None:
    code = "from tcpstitch import *\nimport json, tcpstitch\n"
    code += "print(json.dumps([name in globals() for name in tcpstitch.__all__]))"
    answer = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert set(json.loads(answer)) == {True}


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Assembley'"):
        tcpstitch.Assembley  # noqa: B018
