"""Writes docs/configuration.md: everything that the programs can be told, from their own classes.

`make configuration` writes it; a test holds it equal to the code. Types, limits and defaults are
those of pydantic's JSON schemas; meanings are the fields' descriptions, or the attributes that the
docstring of a class lists.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from listener.in_words import Schema, attributes, in_words
from listener.secret_files import SECRETS
from listener.settings import PREFIX, Commons, ListenerSettings
from trainer.gathering.dicomweb import PREFIX as DICOMWEB_PREFIX
from trainer.gathering.dicomweb import DicomWebSettings
from trainer.regional.settings import RegionalConfig
from trainer.settings import PREFIX as TRAINER_PREFIX
from trainer.settings import TrainingConfig
from worker.settings import WORKER_PREFIX, WorkerSettings

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "configuration.md"
TEMPLATE: Final = "configuration.md.j2"

EXAMPLES: Final = re.compile(r'\[?\{[^{}]*\}\]?|\["[^\]]*"\]')

REQUIRED: Final = "**must be given**"


class Undescribed(Exception):
    """A setting has no description in the code."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return (
            f"{self.kind}.{self.name} says nothing of what it means: give it "
            "Field(description=...), or a line under `Attributes:` of its class"
        )


class Setting(NamedTuple):
    """One row: what it is called, what it may be, what it is unless told, and what it means."""

    name: str
    kind: str
    default: str
    meaning: str


class Section(NamedTuple):
    """A table of a training configuration; `name` is empty for what stands in none."""

    name: str
    meaning: str
    settings: tuple[Setting, ...]


def reference() -> str:
    """The configuration reference as Markdown.

    Raises:
        Undescribed: a setting has no description.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shared = set(Commons.model_fields)
    listener = variables(ListenerSettings, PREFIX)
    return environment.get_template(TEMPLATE).render(
        secrets=SECRETS,
        shared=[each for each in listener if _field(each, PREFIX) in shared],
        listener=[each for each in listener if _field(each, PREFIX) not in shared],
        worker=variables(WorkerSettings, WORKER_PREFIX),
        objects=objects(ListenerSettings),
        trainings={
            "fistula": list(sections(TrainingConfig)),
            "infection": list(sections(RegionalConfig)),
        },
        dicomweb=variables(DicomWebSettings, DICOMWEB_PREFIX),
    )


def _field(setting: Setting, prefix: str) -> str:
    return setting.name.strip("`").removeprefix(prefix).lower()


def variables(kind: type[BaseModel], prefix: str) -> list[Setting]:
    """Rows of a class whose fields are variables by themselves."""
    return list(_rows(kind.model_json_schema(), lambda name: f"{prefix}{name}".upper()))


def objects(kind: type[BaseModel]) -> dict[str, tuple[str, list[Setting]]]:
    """What is written as JSON objects: by name, what it is and its keys."""
    definitions: dict[str, Schema] = kind.model_json_schema().get("$defs", {})
    return {
        name: (_summary(schema), list(_rows(schema, str, name)))
        for name, schema in definitions.items()
    }


def sections(kind: type[BaseModel]) -> Iterator[Section]:
    """Tables of a TOML file, in the order of the class."""
    schema = kind.model_json_schema()
    plain = {
        name: field
        for name, field in schema["properties"].items()
        if _table(field, schema) is None and not _named(field)
    }
    yield Section("", "", tuple(_rows({**schema, "properties": plain}, _trainer_name)))
    for name, field in schema["properties"].items():
        if _named(field):
            yield _by_name(schema, name, field)
    yield from _tables(schema, schema, "")


def _named(field: Schema) -> bool:
    """Whether a field holds tables whose names are for the file to choose."""
    return isinstance(field.get("additionalProperties"), Mapping)


def _by_name(root: Schema, name: str, field: Schema) -> Section:
    table = _table(field["additionalProperties"], root)
    assert table is not None, f"{name} holds no tables"
    usual = ", ".join(f"`{each}`" for each in field["default"])
    meaning = (
        f"{attributes(root)[name]} Only in the file, with keys as below; unless the file names "
        f"any, they are {usual}."
    )
    return Section(f'{name}."NAME"', meaning, tuple(_rows(table, str)))


def _tables(schema: Schema, root: Schema, path: str) -> Iterator[Section]:
    """Tables below a schema, each with those within it after it."""
    told = attributes(schema)
    for name, field in schema["properties"].items():
        table = _table(field, root)
        if table is None:
            continue
        inside = {
            key: {**value, "default": field["default"].get(key)} if "default" in field else value
            for key, value in table["properties"].items()
        }
        rows = {key: value for key, value in inside.items() if _table(value, root) is None}
        here = f"{path}{name}"
        named = {**table, "properties": rows, "required": ()}
        meaning = told.get(name) or field.get("description")
        if not meaning:
            raise Undescribed(schema["title"], name)
        yield Section(
            here, meaning, tuple(_rows(named, lambda key, here=here: _trainer_name(here, key)))
        )
        yield from _tables({**table, "properties": inside}, root, f"{here}.")


def _trainer_name(*path: str) -> str:
    return TRAINER_PREFIX + "__".join(".".join(path).split(".")).upper()


def _table(field: Schema, root: Schema) -> Schema | None:
    """The definition that a field is one of, where it is a table."""
    target = str(field.get("$ref", "")).rpartition("/")[2]
    found: Schema | None = root.get("$defs", {}).get(target)
    return found


def _rows(schema: Schema, called: Any, kind: str = "") -> Iterator[Setting]:
    told = attributes(schema)
    for name, field in schema["properties"].items():
        meaning = field.get("description") or told.get(name)
        if not meaning:
            raise Undescribed(kind or schema["title"], name)
        secret = "**Secret.** " if _is_secret(field) else ""
        default = REQUIRED if name in schema.get("required", ()) else _value(field, name)
        told_of_it = _cell(secret + _prose(meaning))
        yield Setting(f"`{called(name)}`", _cell(in_words(field, name)), default, told_of_it)


def _prose(meaning: str) -> str:
    """A description with its examples of JSON set apart, and without the stop at its end."""
    return EXAMPLES.sub(r"`\g<0>`", meaning).removesuffix(".")


def _is_secret(field: Schema) -> bool:
    return bool(field.get("writeOnly"))


def _summary(schema: Schema) -> str:
    return str(schema["description"]).partition("\n\n")[0].replace("\n", " ")


def _value(field: Schema, name: str) -> str:
    """A default as it would be written.

    >>> _value({"default": 5 * 2**30, "anyOf": [{"type": "string"}, {"type": "integer"}]}, "room")
    '`5GiB`'
    """
    value = field.get("default")
    if value is None or value in ("", [], {}):
        return "empty"
    if isinstance(value, int) and in_words(field, name).startswith("size"):
        return f"`{_size(value)}`"
    text = value if isinstance(value, str) else json.dumps(value)
    return _cell(f"`{text}`")


def _size(value: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value % 2**power == 0:
            return f"{value >> power}{unit}"
    return f"{value}B"


def _cell(text: str) -> str:
    """Text as a table's cell bears it."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(reference())
