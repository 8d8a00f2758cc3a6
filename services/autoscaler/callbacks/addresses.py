"""Which addresses may be called. Pure.

Whoever submits a task says what is called, and the autoscaler stands inside the operator's network.
So only public addresses are called, and what the operator allows.
"""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks such as `10.1.0.0/16, fd00::/8`, separated by commas.

    Raises:
        ValueError: if one is none; the message says which.
    """
    words = [word.strip() for word in text.split(",")]
    found: list[Network] = []
    for word in filter(None, words):
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError as error:
            raise ValueError(
                f"{word!r} is no network: {error}; write it as 10.1.0.0/16 or fd00::/8, several "
                "separated by commas"
            ) from None
    return tuple(found)


def refusal(text: str, allowed: Sequence[Network] = ()) -> str:
    """Why an address may not be called; empty if it may.

    Args:
        text: an IP address, as a name was resolved to it.
        allowed: networks that may be called though they are not public.
    """
    try:
        address = _reached(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return f"{text[:80]!r} is no IP address"
    if any(address in network for network in allowed):
        return ""
    kind = _kind(address)
    if not kind:
        return ""
    return f"{address} is {kind}; callback_allowed_networks does not allow it"


def _reached(address: Address) -> Address:
    """The address that is reached in the end, where an IPv6 address stands for an IPv4 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _kind(address: Address) -> str:
    """What an address is that is not public; empty if it is."""
    kinds = {
        "unspecified": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "a site-local address": isinstance(address, ipaddress.IPv6Address)
        and address.is_site_local,
        "a private address": address.is_private,
        "a reserved address": address.is_reserved,
        "no public address": not address.is_global,
    }
    return next((kind for kind, is_it in kinds.items() if is_it), "")
