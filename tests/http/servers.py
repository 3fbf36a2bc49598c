"""Settings of the dsdbd for the dialogues, with authentication off or on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def dsdbd_settings(*, auth: bool) -> Mapping[str, Sequence[str]]:
    return {"http": [f"auth-enabled = {str(auth).lower()}", "log-enabled = false"]}
