"""The daemon's configuration: one table of settings, read from file, environment and flags into frozen objects."""

from dsdbd.config.advertise import AdvertisedHost, advertised_address, advertised_host
from dsdbd.config.load import PACKAGED_BASE, Flags, config_path, load_config
from dsdbd.config.render import render_config
from dsdbd.config.schema import Config
from dsdbd.config.values import join_address, split_address

__all__ = [
    "PACKAGED_BASE",
    "AdvertisedHost",
    "Config",
    "Flags",
    "advertised_address",
    "advertised_host",
    "config_path",
    "join_address",
    "load_config",
    "render_config",
    "split_address",
]
