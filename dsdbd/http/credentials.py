"""What a request says of who sends it: user and password, or a bearer token. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsdbd.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNREADABLE = "unable to parse authentication credentials"


@dataclass(frozen=True, slots=True)
class UserPassword:
    """A user's name and password, from parameters, ``Basic`` or ``Token``."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A JSON Web Token; nothing of it is checked yet."""

    text: str = field(repr=False)


Credentials = UserPassword | BearerToken


def credentials_of(params: Mapping[str, str], authorization: str) -> Credentials:
    """Who a request with these parameters and this Authorization header says it is.

    ``u`` and ``p`` count where both are given, else the header: Basic in any spelling, Bearer and Token in this one, as
    InfluxDB 1.x reads them. Raises Unauthenticated in its words.
    """
    name, password = params.get("u", ""), params.get("p", "")
    if name and password:
        return UserPassword(name, password)
    scheme, _, rest = authorization.partition(" ")
    if scheme == "Bearer" and rest and " " not in rest:
        return BearerToken(rest)
    if scheme.lower() == "basic":
        try:
            rest = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Unauthenticated(_UNREADABLE) from error
    elif scheme != "Token":
        raise Unauthenticated(_UNREADABLE)
    name, colon, password = rest.partition(":")
    if not colon:
        raise Unauthenticated(_UNREADABLE)
    if not name:
        raise Unauthenticated("username required")
    return UserPassword(name, password)
