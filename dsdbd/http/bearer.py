"""Bearer tokens: JSON Web Tokens signed with ``[http] shared-secret``, checked as InfluxDB 1.x does. Pure."""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
from jwt import InvalidTokenError, PyJWS
from jwt.utils import base64url_decode
from jwt.warnings import InsecureKeyLengthWarning

from dsdbd.errors import Unauthenticated

_HMAC = ("HS256", "HS384", "HS512")
_OTHERS = frozenset(("none", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"))
"""Methods that are known and never accepted: whoever could choose one could sign as anybody."""
_MAX_TOKEN_CHARS = 8_192
"""Longer tokens are refused unread; HTTP servers take no longer header lines either."""
_jws = PyJWS(algorithms=_HMAC)
# The length of the secret is the operator's choice, and named once when the daemon starts.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


def user_of_token(token: str, secret: str, now_s: float) -> str:
    """The user whom a valid token names at ``now_s`` (seconds since the epoch).

    The signature must be HMAC with SHA-2 over ``secret``, ``exp`` must be there and not over, ``iat`` and ``nbf`` not
    in the future. Raises Unauthenticated in the words of InfluxDB 1.x.
    """
    segments = token.split(".")
    if len(segments) != 3 or len(token) > _MAX_TOKEN_CHARS:
        raise Unauthenticated("token contains an invalid number of segments")
    header, claims = (_object(segment) for segment in segments[:2])
    method = header.get("alg")
    if not isinstance(method, str):
        raise Unauthenticated("signing method (alg) is unspecified.")
    if method in _OTHERS:
        raise Unauthenticated(f"unexpected signing method: {method}")
    if method not in _HMAC:
        raise Unauthenticated("signing method (alg) is unavailable.")
    try:
        _jws.decode_complete(token, secret, algorithms=_HMAC)
    except InvalidTokenError as error:
        raise Unauthenticated("signature is invalid") from error
    return _claimed_user(claims, now_s)


def _claimed_user(claims: dict[str, Any], now_s: float) -> str:
    expires, issued, begins = (_number(claims.get(key)) for key in ("exp", "iat", "nbf"))
    # Where several are wrong the last one is told, as by the library of InfluxDB 1.x.
    if begins and now_s < begins:
        raise Unauthenticated("Token is not valid yet")
    if issued and now_s < issued:
        raise Unauthenticated("Token used before issued")
    if expires and now_s > expires:
        raise Unauthenticated("Token is expired")
    if not expires:
        raise Unauthenticated("token expiration required")
    user = claims.get("username")
    if not isinstance(user, str):
        raise Unauthenticated("username in token must be a string")
    if not user:
        raise Unauthenticated("token must contain a username")
    return user


def _number(value: object) -> float:
    """A time of the claims; 0 where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _object(segment: str) -> dict[str, Any]:
    """A segment's JSON object; null is an empty one."""
    try:
        found: object = msgspec.json.decode(base64url_decode(segment))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unauthenticated(f"the token is no base64 of JSON: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Unauthenticated("the token is no base64 of JSON objects")
    return found
