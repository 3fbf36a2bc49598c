"""Under which host other nodes are told to reach an address of this node. Pure.

A node that told others "localhost" would make each of them talk to itself, so the default name is never used
without a warning.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dsdbd.config.schema import Config
from dsdbd.config.values import check_host, join_address, split_address

LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class AdvertisedHost:
    """The host, where it came from, and a sentence for the log if other machines cannot use it."""

    host: str
    source: str
    warning: str | None = None


def advertised_host(config: Config, bind_address: str, os_hostname: str, resolves_non_loopback: bool) -> AdvertisedHost:
    """The host to advertise for ``bind_address``; IPv6 without brackets.

    In order: a host in ``bind_address`` itself, ``-hostname`` or the top level hostname, ``[meta] hostname`` unless it
    is localhost, the operating system's host name if it resolves to an address that is not loopback, localhost.
    """
    bound, _ = split_address(bind_address)
    if bound and not _is_wildcard(bound):
        return AdvertisedHost(bound, "bind-address")
    if config.hostname:
        given_by_flag = config.origins.get("hostname", "").startswith("flag ")
        return AdvertisedHost(config.hostname, "-hostname" if given_by_flag else "hostname")
    if config.meta.hostname not in ("", LOCALHOST):
        return AdvertisedHost(config.meta.hostname, "[meta] hostname")
    if resolves_non_loopback and _usable(os_hostname):
        return AdvertisedHost(os_hostname, "operating system")
    return AdvertisedHost(
        LOCALHOST,
        "default",
        f"other machines cannot reach this node as {LOCALHOST}: its own name {os_hostname!r} is not one that resolves "
        "to an address other machines can use; set -hostname, or hostname in the configuration, before others join",
    )


def advertised_address(host: str, bind_address: str) -> str:
    """``host`` with the port of ``bind_address``."""
    return join_address(host, split_address(bind_address)[1])


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _usable(os_hostname: str) -> bool:
    if os_hostname in ("", LOCALHOST) or os_hostname.startswith("localhost."):
        return False
    try:
        return check_host(os_hostname) == os_hostname
    except ValueError:
        return False
