"""The settings in force, as people may see them: without passwords."""

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from pydantic import BaseModel

from listener.settings import PREFIX

SECRET: Final = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
"""Within the name of a URL's parameter."""

HIDDEN: Final = "***"


@dataclass(frozen=True)
class InForce:
    """One setting: its name, its value without passwords, and what it is for."""

    name: str
    value: str
    meaning: str


def in_force(settings: BaseModel, prefix: str = PREFIX) -> list[InForce]:
    """All settings of a class, in its order."""
    return [
        InForce(f"{prefix}{name.upper()}", _shown(getattr(settings, name)), field.description or "")
        for name, field in type(settings).model_fields.items()
    ]


def without_passwords(url: str) -> str:
    """A URL as people may see it; what is none stays as it is.

    Drivers take passwords that no standard allows, with signs and spaces: whatever stands between
    the first colon and the last @ may be one.

    >>> without_passwords("postgresql://monro:p@ss w/rd@db/monro?sslmode=require&sslpassword=x")
    'postgresql://monro:***@db/monro?sslmode=require&sslpassword=***'
    >>> without_passwords("redis://:secret@broker:6379/0")
    'redis://:***@broker:6379/0'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    person, at, place = rest.rpartition("@")
    user, colon, _password = person.partition(":")
    place, mark, query = place.partition("?")
    parameters = "&".join(map(_parameter, query.split("&")))
    return f"{scheme}://{user}{colon}{HIDDEN if colon else ''}{at}{place}{mark}{parameters}"


def _parameter(written: str) -> str:
    name, equals, value = written.partition("=")
    return f"{name}={HIDDEN}" if equals and value and SECRET.search(unquote(name)) else written


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple | frozenset):
        return "\n".join(map(_shown, value))
    if isinstance(value, BaseModel):
        return " ".join(f"{name}={_part(each)}" for name, each in value)
    return without_passwords(str(value))


def _part(value: Any) -> str:
    return repr(without_passwords(value)) if isinstance(value, str) else repr(value)
