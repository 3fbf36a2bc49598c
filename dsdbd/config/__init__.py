"""The daemon's configuration: one table of settings, read from file, environment and flags into frozen objects."""

from dsdbd.config.load import Flags, load_config
from dsdbd.config.schema import Config

__all__ = ["Config", "Flags", "load_config"]
