"""Prometheus metrics of an assembler, read from `Assembler.statistics()` when they are asked for.

Needs the extra `metrics` (prometheus_client).

    from prometheus_client import start_http_server
    from tcpstitch.metrics import register

    register(assembler)
    start_http_server(9100)
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Tuple, Union

try:
    from prometheus_client.core import REGISTRY, CounterMetricFamily, GaugeMetricFamily
except ImportError as error:
    raise ImportError("tcpstitch.metrics needs prometheus_client: pip install 'tcpstitch[metrics]'") from error

from .assembler import Assembler
from .errors import UsageError, shown
from .statistics import Statistics

_Sample = Tuple[Tuple[str, ...], Statistics]  # label values
# What goes down as well as up; every other number only grows.
_GAUGES = {
    "connections", "connections_embryonic", "connections_lingering", "connections_peak", "pages_used", "pages_free",
    "pages_allocated", "pages_peak", "fragments", "fragment_bytes", "memory_bytes", "memory_bound", "pressure",
}  # fmt: skip
# Counts by kind: the metric's name and its label. One with the name of a total takes that total's place.
_MAPPINGS = {
    "anomalies": ("anomalies", "kind"),
    "decode_errors": ("decode_errors", "reason"),
    "gaps_by_reason": ("gaps", "reason"),
    "completions_by_reason": ("connections_completed", "reason"),
    "evictions_by_kind": ("evictions", "kind"),
}
_IN_MAPPINGS = {name for name, _ in _MAPPINGS.values()} - set(_MAPPINGS)


class AssemblerCollector:
    """A collector for a registry of prometheus_client: the fields of `Statistics`, named `tcpstitch_...`.

    Given a mapping from names to assemblers, each sample carries the name as label `assembler`. A scrape costs one
    `statistics()` per assembler.
    """

    def __init__(self, assemblers: Union[Assembler, Mapping[str, Assembler]]) -> None:
        every = assemblers.values() if isinstance(assemblers, Mapping) else [assemblers]
        if not all(isinstance(assembler, Assembler) for assembler in every):
            raise UsageError(f"assemblers={shown(assemblers)}: give an Assembler, or a mapping from names to them")
        names = assemblers if isinstance(assemblers, Mapping) else ()
        if not all(isinstance(name, str) for name in names):
            raise UsageError(f"assemblers={shown(assemblers)}: give names as text, they become labels")
        self._assemblers = assemblers

    def describe(self) -> Iterator[Any]:
        """The same, for a registry to see that no other collector has these metrics."""
        return self.collect()

    def collect(self) -> Iterator[Any]:
        """One metric family per field."""
        if isinstance(self._assemblers, Assembler):
            names: List[str] = []
            samples: List[_Sample] = [((), self._assemblers.statistics())]
        else:
            names = ["assembler"]
            samples = [((name,), assembler.statistics()) for name, assembler in self._assemblers.items()]
        for field in Statistics._fields:
            if field not in _IN_MAPPINGS:
                yield _family(field, names, samples)


def _family(field: str, names: List[str], samples: List[_Sample]) -> Any:
    text = f"Statistics.{field} of the assembler"
    if field in _MAPPINGS:
        name, label = _MAPPINGS[field]
        family: Any = CounterMetricFamily(f"tcpstitch_{name}", text, labels=[*names, label])
        for values, statistics in samples:
            for kind, count in getattr(statistics, field).items():
                family.add_metric([*values, kind], count)
        return family
    family = (GaugeMetricFamily if field in _GAUGES else CounterMetricFamily)(f"tcpstitch_{field}", text, labels=names)
    for values, statistics in samples:
        family.add_metric(values, getattr(statistics, field))
    return family


def register(
    assemblers: Union[Assembler, Mapping[str, Assembler]], registry: Any = REGISTRY
) -> AssemblerCollector:
    """Add the metrics of `assemblers` (one, or a mapping from names) to `registry`; `registry.unregister` takes what is
    returned. Raises ValueError when the registry has such metrics already: name several in one mapping."""
    collector = AssemblerCollector(assemblers)
    registry.register(collector)
    return collector
