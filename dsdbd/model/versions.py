"""What a version of a value tells: it grows with time, and its lowest bits are the number of the node that gave it."""

from __future__ import annotations

NODE_BITS = 10
NODES = 1 << NODE_BITS
"""Versions of one node are this far apart; in between are those of others."""
