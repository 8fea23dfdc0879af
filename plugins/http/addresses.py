"""Which addresses a URL of the caller's may lead to: public ones, and networks that the operator
allows.

An address that carries an IPv4 address inside (mapped, NAT64, 6to4, Teredo) can lead to what that
one names, past any check of the outer one: mapped ones are read as what they carry, the others are
refused.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Beyond what ``is_global`` says, which differs between versions of Python.
_NEVER_V4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carriers' own (RFC 6598); cloud metadata lives there too
        "169.254.0.0/16",  # link-local: cloud metadata
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "224.0.0.0/3",  # multicast and reserved
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NEVER_V6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # Teredo and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)


def read_address(text: str) -> IP:
    """An address, a mapped one as what it carries. Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: IP) -> bool:
    """Whether it is a host's own address on the Internet."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NEVER_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NEVER_V6)


def is_allowed(address: IP, allowed: Sequence[Network]) -> bool:
    """Whether the operator has named a network that it is in."""
    return any(address in network for network in allowed)
