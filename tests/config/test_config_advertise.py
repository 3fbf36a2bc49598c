from __future__ import annotations

import pytest

from dsdbd.config import Flags, advertised_address, advertised_host, load_config

FLAG, TOP, META = "flag.example", "top.example", "meta.example"


@pytest.mark.parametrize(
    ("bind", "flag", "top", "meta", "os_name", "resolves", "host", "source"),
    [
        # An explicit host in the address wins over everything, wildcards are none.
        ("dsdb1:8088", FLAG, TOP, META, "box", True, "dsdb1", "bind-address"),
        ("127.0.1.1:8088", "", "", "", "box", True, "127.0.1.1", "bind-address"),
        ("localhost:8088", "", "", "", "box", True, "localhost", "bind-address"),
        ("[2001:db8::5]:8088", "", "", "", "box", True, "2001:db8::5", "bind-address"),
        ("0.0.0.0:8088", "", "", "", "box", True, "box", "operating system"),
        ("[::]:8088", "", "", "", "box", True, "box", "operating system"),
        # Then the flag, the top level, [meta] unless it is localhost.
        (":8088", FLAG, TOP, META, "box", True, FLAG, "-hostname"),
        ("0.0.0.0:8088", FLAG, "", "", "box", True, FLAG, "-hostname"),
        (":8088", "", TOP, META, "box", True, TOP, "hostname"),
        (":8088", "", "localhost", META, "box", True, "localhost", "hostname"),
        (":8088", "", "", META, "box", True, META, "[meta] hostname"),
        (":8088", "", "", "localhost", "box", True, "box", "operating system"),
        # Then the operating system's name, if others can use it.
        (":8088", "", "", "", "box", True, "box", "operating system"),
        (":8088", "", "", "", "box", False, "localhost", "default"),
        (":8088", "", "", "", "", True, "localhost", "default"),
        (":8088", "", "", "", "localhost", True, "localhost", "default"),
        (":8088", "", "", "", "localhost.localdomain", True, "localhost", "default"),
        (":8088", "", "", "", "not a name", True, "localhost", "default"),
        (":8088", "", "", "", "b[ad", True, "localhost", "default"),
    ],
)
def test_precedence(
    bind: str, flag: str, top: str, meta: str, os_name: str, resolves: bool, host: str, source: str
) -> None:
    environ = {"HOME": "/h", "DSDB_HOSTNAME": top, "DSDB_META_HOSTNAME": meta}
    config = load_config(None, environ, Flags(hostname=flag))
    found = advertised_host(config, bind, os_name, resolves)
    assert (found.host, found.source) == (host, source)
    assert (found.warning is not None) == (source == "default")


def test_the_warning_names_the_host_and_what_to_do() -> None:
    warning = advertised_host(load_config(None, {"HOME": "/h"}), ":8088", "box", False).warning
    assert warning is not None
    assert "'box'" in warning and "set -hostname" in warning


def test_the_address_takes_the_port_of_the_listener() -> None:
    assert advertised_address("dsdb1", ":8091") == "dsdb1:8091"
    assert advertised_address("::1", "[::]:8091") == "[::1]:8091"
