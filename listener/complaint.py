"""What is wrong with settings, for people: each by its name, what was found, what was expected.

What may hold a password is never shown: the value of a secret setting, of a key that we do not
know, and an address with a user or with parameters.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from listener.errors import BadSettings
from listener.in_words import Schema, attributes, in_words

NEXT: Final = "Correct this and try again; docs/configuration.md describes every setting."

HIDDEN: Final = "a value that is not shown (it may hold a password)"
LONGEST: Final = 80
"""Characters of a value that are shown."""

MARKDOWN: Final = ((re.compile(r"\[(\w+)\]\(#\w+\)"), r"\1"), (re.compile("`"), ""))

UNKNOWN: Final = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's words for a key that is not known: of its own classes, and of dataclasses."""

Path = tuple[int | str, ...]


def explain_invalid(error: ValidationError, kind: type[BaseModel], prefix: str) -> BadSettings:
    """One line for each setting of a class that is not as it must be, and what to do.

    Args:
        error: that the class raised.
        kind: the class.
        prefix: of its variables.
    """
    return explain_named(error, kind, partial(_variable, prefix))


def explain_named(
    error: ValidationError, kind: type[BaseModel], called: Callable[[Path], str]
) -> BadSettings:
    """The same for settings that people know by other names than those of variables.

    Args:
        error: that the class raised.
        kind: the class.
        called: what people call the value at a place.
    """
    schema = kind.model_json_schema()
    found = _likeliest(error.errors(include_url=False))
    return BadSettings("\n".join([*(_line(each, schema, called) for each in found), NEXT]))


def explain_no_json(error: SettingsError, kind: type[BaseModel], prefix: str) -> BadSettings:
    """The same for a setting that had to be JSON and is not."""
    (name,) = re.findall(r'field "(\w+)"', str(error))
    place = getattr(error.__cause__, "pos", None)
    where = "" if place is None else f": it cannot be read from character {place + 1} on"
    expected = _expected(kind.model_json_schema(), (name,))
    return BadSettings(
        f"{prefix}{name}".upper()
        + f": found text that is not JSON{where}; expected {expected}\n{NEXT}"
    )


def _likeliest(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Errors of the form that was likely meant, where a value may have one of several forms.

    pydantic tells those of all of them, each under the name of its class.
    """
    forms: dict[Path, dict[str, list[ErrorDetails]]] = {}
    for each in errors:
        place, form = _form(each["loc"])
        forms.setdefault(place, {}).setdefault(form, []).append(each)
    return [each for of_place in forms.values() for each in min(of_place.values(), key=_distance)]


def _form(place: Path) -> tuple[Path, str]:
    """Where the value is that may have several forms, and the class that a place speaks of."""
    for number, step in enumerate(place):
        if number and isinstance(step, str) and step[:1].isupper():
            return place[:number], step
    return place, ""


def _distance(errors: Sequence[ErrorDetails]) -> tuple[int, int]:
    """How far a value is from a form: by keys that it does not have, then by all errors."""
    return sum(each["type"] in UNKNOWN for each in errors), len(errors)


def _variable(prefix: str, place: Path) -> str:
    """The variable of a setting, and where in it."""
    steps = [_step(each) for each in place[1:] if not _form(("", each))[1]]
    return ", ".join([f"{prefix}{place[0]}".upper(), *steps])


def _line(error: ErrorDetails, root: Schema, called: Callable[[Path], str]) -> str:
    """One complaint."""
    place = error["loc"]
    if not place:
        return _message(error)
    name = called(place)
    if error["type"] == "value_error":
        return f"{name}: {_message(error)}"
    if error["type"] in UNKNOWN:
        known = ", ".join(_at(root, place[:-1])["properties"])
        return f"{name}: found a key that is not known; expected one of {known}"
    found = "nothing" if error["type"] == "missing" else _found(error["input"], root, place)
    return f"{name}: found {found}; expected {_expected(root, place)}"


def _step(step: int | str) -> str:
    return f"entry {step + 1}" if isinstance(step, int) else step


def _message(error: ErrorDetails) -> str:
    """What a check of ours says by itself."""
    message, value = error["msg"].removeprefix("Value error, "), error["input"]
    if isinstance(value, str) and _may_hold_a_password(value):
        return message.replace(repr(value), HIDDEN)
    return message


def _found(value: Any, root: Schema, place: Path) -> str:
    """A value, as far as it may be shown."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    if isinstance(value, str) and _at(root, place).get("type") in ("object", "array"):
        return "text that is no JSON object or list"
    if root["properties"][place[0]].get("writeOnly") or _may_hold_a_password(str(value)):
        return HIDDEN
    shown = repr(value)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _may_hold_a_password(value: str) -> bool:
    return "@" in value or ("://" in value and "?" in value)


def _expected(root: Schema, place: Path) -> str:
    """What may be at a place, in words, and what it is for."""
    field = _at(root, place)
    meaning = (
        attributes(_at(root, place[:-1])).get(str(place[-1]))
        or root["properties"][place[0]].get("description")
        or ""
    )
    words = in_words(field, str(place[-1]))
    for markdown, plain in MARKDOWN:
        words = markdown.sub(plain, words)
    least = f", at least {field['minItems']}" if "minItems" in field else ""
    return f"{words}{least}" + (f" ({meaning.removesuffix('.')})" if meaning else "")


def _at(root: Schema, place: Path) -> Schema:
    """The schema of what is at a place; of a class, with its own keys."""
    found = root
    for step in place:
        if isinstance(step, int):
            each = found.get("prefixItems", ())
            found = each[step] if step < len(each) else found["items"]
        elif step in found.get("properties", {}):
            found = found["properties"][step]
        elif isinstance(found.get("additionalProperties"), dict):
            found = found["additionalProperties"]
        if "type" not in found:
            found = _resolved(found, root, place)
    return found


def _resolved(schema: Schema, root: Schema, place: Path) -> Schema:
    """A definition instead of a reference to it; of several, the one that the place names."""
    references = [each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each]
    names = [each.rpartition("/")[2] for each in references]
    if not names:
        return schema
    definition: Schema = root["$defs"][next((name for name in names if name in place), names[0])]
    return definition
