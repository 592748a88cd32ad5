"""The settings in force, as people may see them: without passwords."""

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from listener.settings import PREFIX

PASSWORDS: Final = (
    re.compile(r"(://[^:/?#@\s]*:)\S*(?=@)"),
    re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token|key)[^=&\s]*=)[^&#\s]*", re.IGNORECASE),
)
"""Passwords within a URL: before its host, up to the last @, and among its parameters."""


@dataclass(frozen=True)
class InForce:
    """One setting: its name, its value without passwords, and what it is for."""

    name: str
    value: str
    meaning: str


def in_force(settings: BaseModel, prefix: str = PREFIX) -> list[InForce]:
    """All settings of a class, in its order."""
    return [
        InForce(
            f"{prefix}{name.upper()}",
            _without_passwords(_shown(getattr(settings, name))),
            field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return "\n".join(map(str, value)) if isinstance(value, tuple | frozenset) else str(value)


def _without_passwords(text: str) -> str:
    for password in PASSWORDS:
        text = password.sub(r"\1***", text)
    return text
