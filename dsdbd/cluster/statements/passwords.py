"""Password hashes: scrypt with a random salt, as text that says its own cost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

_N, _R, _P = 1 << 14, 8, 1
_SALT_BYTES = 16


def hash_password(password: str) -> str:
    """``scrypt$n$r$p$salt$key``, base64 parts; takes about 50 ms on purpose, so call it in a thread."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return "$".join(("scrypt", str(_N), str(_R), str(_P), _text(salt), _text(_derive(password, salt, _N, _R, _P))))


def verify_password(password: str, stored: str) -> bool:
    """Whether a password is the one that was hashed; False for a hash of an unknown form."""
    parts = stored.split("$")
    if len(parts) != 6 or parts[0] != "scrypt":
        return False
    try:
        n, r, p = (int(part) for part in parts[1:4])
        salt, key = base64.b64decode(parts[4]), base64.b64decode(parts[5])
    except ValueError:
        return False
    return hmac.compare_digest(_derive(password, salt, n, r, p), key)


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode(errors="surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=128 * n * r + (1 << 20)
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
