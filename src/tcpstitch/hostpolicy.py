"""Which overlap policy a connection has: one for all, or chosen by a function or by the receiver's network.

The bytes of a direction are put together by the stack of the host that receives them, so a table is asked for the
receiver's address of each direction (as Suricata's `host-os-policy` is for the destination).
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from .errors import UsageError
from .overlap import FIRST, Policy, policy_named
from .segment import Flow

Table = Union[Mapping[str, str], Iterable[Tuple[str, str]]]
Overlap = Union[str, Callable[[Flow], str], Table]
_Pair = Tuple[Policy, Policy]  # by Direction


class NetworkTable:
    """Networks to policies; the most specific network that holds an address wins. O(prefix lengths in use) per look."""

    def __init__(self, table: Table) -> None:
        from ipaddress import ip_network  # here, as below: most programs have no such table

        self.default = FIRST
        self._networks: Dict[Tuple[int, int], Dict[int, Policy]] = {}
        rows = table.items() if isinstance(table, Mapping) else table
        for row in rows:
            network, name = _row(row)
            if network == "default":
                self.default = policy_named(name)
                continue
            try:
                parsed = ip_network(str(network), strict=False)
            except ValueError:
                raise UsageError(
                    f"overlap: {network!r} is no network: write 10.0.0.0/8, 2001:db8::/32, an address or 'default'"
                ) from None
            size = parsed.max_prefixlen
            prefixes = self._networks.setdefault((size, size - parsed.prefixlen), {})
            prefixes[int(parsed.network_address) >> size - parsed.prefixlen] = policy_named(name)
        self._shifts: List[Tuple[int, int]] = sorted(self._networks)  # the most specific come first

    def of(self, address: str) -> Policy:
        """The policy of the host at `address`."""
        from socket import AF_INET, AF_INET6, inet_pton

        family, size = (AF_INET6, 128) if ":" in address else (AF_INET, 32)
        number = int.from_bytes(inet_pton(family, address), "big")
        for key in self._shifts:
            if key[0] == size:
                policy = self._networks[key].get(number >> key[1])
                if policy is not None:
                    return policy
        return self.default

    def pair(self, flow: Flow) -> _Pair:
        """The policies of a connection: of what its client sends, and of what its server sends."""
        return self.of(flow.server.address), self.of(flow.client.address)


def _row(row: Any) -> Tuple[Any, Any]:
    try:
        network, name = row
    except (TypeError, ValueError):
        raise UsageError(f"overlap: {row!r} is no row of a table: give (network, policy)") from None
    return network, name


class Policies:
    """The policy of every connection. Takes memory only for connections whose policies are not the default."""

    def __init__(self, overlap: Overlap) -> None:
        self._own: Dict[Any, _Pair] = {}
        self._pairs: Dict[_Pair, _Pair] = {}  # one object for each of the few that there are
        self._choose: Optional[Callable[[Flow], _Pair]] = None
        if isinstance(overlap, str):
            self.default = policy_named(overlap)
        elif callable(overlap):
            self.default = FIRST
            function = overlap

            def both(flow: Flow) -> _Pair:
                policy = policy_named(function(flow))
                return policy, policy

            self._choose = both
        elif isinstance(overlap, Iterable):
            table = NetworkTable(overlap)
            self.default = table.default
            self._choose = table.pair
        else:
            raise UsageError(
                f"overlap={overlap!r}: give a policy's name, a function from Flow to a name, or a table of networks"
            )
        self.chosen = self._choose is not None  # whether each connection may have policies of its own

    def choose(self, state: Any) -> None:
        """Choose for a new connection; raises what the caller's function raises, `UsageError` if it gives no policy."""
        if self._choose is not None:
            pair = self._choose(state.flow)
            if pair != (self.default, self.default):
                self._own[state] = self._pairs.setdefault(pair, pair)

    def of(self, half: Any) -> Policy:
        """The policy for the bytes of one direction. O(1)."""
        if self._own:
            pair = self._own.get(half.state)
            if pair is not None:
                return pair[half.direction]
        return self.default

    def forget(self, state: Any) -> None:
        """Let go of a connection that is over. O(1)."""
        if self._own:
            self._own.pop(state, None)
            if not self._own:
                self._own.clear()  # or the empty table keeps the room of its largest size
