"""What a setting may be, in words: the same in the configuration reference and in complaints.

Types and limits are those of pydantic's JSON schemas.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

UNITS: Final[Mapping[str, str]] = {
    "_seconds": "seconds",
    "_minutes": "minutes",
    "_hours": "hours",
    "_days": "days",
    "_gib": "GiB",
    "_mm": "millimetres",
    "_degrees": "degrees",
}
"""Units ride on names."""

WORDS: Final[Mapping[str, str]] = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "object",
}

LIMITS: Final[Mapping[str, str]] = {
    "exclusiveMinimum": "more than {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "at most {}",
}

PATTERNS: Final[Mapping[str, str]] = {
    r"^rediss?://": "beginning with redis:// or rediss://",
    r"^[A-Za-z0-9_.-]{1,32}$": "1 to 32 of letters without accents, digits, underscores, dots and "
    "hyphens",
    r"^([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])$": "a host name or an address, without https:// "
    "and port; an IPv6 address in brackets",
    r"^https?://[^\s?#@]+$": "beginning with http:// or https://, without a password, ? and #",
}

SEVERAL: Final[Mapping[str, str]] = {"text": "texts", "path": "paths"}


def in_words(field: Schema, name: str = "") -> str:
    """A type in words, with its limits and unit, as Markdown.

    >>> in_words({"type": "number", "exclusiveMinimum": 0}, "quiet_seconds")
    'seconds, more than 0'
    >>> in_words({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]})
    'whole number, 1 to 9'
    """
    if "$ref" in field:
        target = field["$ref"].rpartition("/")[2]
        return f"[{target}](#{target.lower()})"
    if "anyOf" in field:
        kinds = [each for each in field["anyOf"] if each.get("type") != "null"]
        if {each.get("type") for each in kinds} == {"string", "integer"}:
            return "size, such as `5GiB`"
        return " or ".join(in_words(each, name) for each in kinds)
    if "enum" in field:
        return "one of " + ", ".join(f"`{each}`" for each in field["enum"])
    if field["type"] == "array":
        return _list(field, name)
    return ", ".join([_simple(field, name), *_limits(field)])


def attributes(schema: Schema) -> dict[str, str]:
    """What a class says of each of its attributes in its docstring."""
    _, _, listed = inspect.cleandoc(schema.get("description", "")).partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _list(field: Schema, name: str) -> str:
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])} {_unit(name) or 'numbers'}"
    first, comma, rest = in_words(field["items"], name).partition(",")
    plural = first.replace("one of", "any of").replace("number", "numbers")
    return f"list of {SEVERAL.get(first, plural)}{comma}{rest}"


def _simple(field: Schema, name: str) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("format") == "path":
        return "path"
    word = WORDS[field["type"]]
    return _unit(name) or word if field["type"] in ("number", "integer") else word


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if f"_{name}".endswith(ending)), "")


def _limits(field: Schema) -> list[str]:
    if "minimum" in field and "maximum" in field:
        return [f"{field['minimum']} to {field['maximum']}"]
    found = [text.format(field[key]) for key, text in LIMITS.items() if key in field]
    return found if "pattern" not in field else [*found, PATTERNS[field["pattern"]]]
