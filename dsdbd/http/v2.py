"""The write API of InfluxDB 2.x as 1.8 offers it, in terms of the one of 1.x. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.errors import NotFound, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

FLUX_REFUSAL = "Flux query service disabled. Verify flux-enabled=true in the [http] section of the InfluxDB config.\n"
"""What InfluxDB 1.8 answers with 403 where Flux is off, which client libraries tell their users."""
_PRECISIONS = ("", "ns", "us", "ms", "s")


def write_params(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters of ``/write`` for those of ``/api/v2/write``: ``bucket`` is ``database`` or ``database/policy``.

    ``org`` and ``orgID`` mean nothing here. Raises RequestError for another precision than ns, us, ms, s, and NotFound
    for a bucket without a database, in the words of InfluxDB 1.8.
    """
    precision, bucket = params.get("precision", ""), params.get("bucket", "")
    if precision not in _PRECISIONS:
        raise RequestError(f'invalid precision "{precision}" (use ns, us, ms or s)')
    database, slash, policy = bucket.partition("/")
    if not database and slash:
        raise NotFound(f'bucket name "{bucket}" is in db/rp form but has an empty database')
    if not database:
        raise NotFound('bucket name "" is missing a slash; not in "database/retention-policy" format')
    return {
        "db": database,
        "rp": policy,
        "precision": precision,
        "consistency": params.get("consistency", ""),
    }
