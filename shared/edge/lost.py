"""Why a gateway on premises ends: whoever runs it is to start it anew."""

from __future__ import annotations


class EdgeLostError(Exception):
    """A part has ended by a fault of its own. args: its name."""


class SpoolInUseError(EdgeLostError):
    """Another process moves this spool already: two gateways were given one folder."""
