"""The configuration reference says what the programs read."""

import re
from collections.abc import Iterable

import pytest
from pydantic import BaseModel, SecretStr

from deploy.configuration import REFERENCE, REQUIRED, Undescribed, reference, sections, variables
from listener.settings import PREFIX, ListenerSettings
from trainer.settings import TrainingConfig
from worker.settings import WORKER_PREFIX, WorkerSettings

ROW = re.compile(r"^\| `(MONRO_\w+)` \|", re.MULTILINE)


class Silent(BaseModel):
    """Says nothing of its field."""

    spool: str


class Told(BaseModel):
    """Says it in its docstring.

    Attributes:
        token: of the other side,
            and where it is from.
    """

    token: SecretStr = SecretStr("")


def names(prefix: str, fields: Iterable[str]) -> set[str]:
    return {f"{prefix}{name}".upper() for name in fields}


def test_the_reference_is_that_of_this_version() -> None:
    assert REFERENCE.read_text() == reference(), "write it anew: make configuration"


def test_every_variable_of_listener_and_worker_stands_in_it_once() -> None:
    listed = ROW.findall(REFERENCE.read_text())

    programs = names(PREFIX, ListenerSettings.model_fields) | names(
        WORKER_PREFIX, WorkerSettings.model_fields
    )
    found = [name for name in listed if not name.startswith("MONRO_TRAINER_")]
    assert sorted(found) == sorted(programs)


def test_a_field_without_a_description_is_an_error() -> None:
    with pytest.raises(Undescribed, match=r"Silent\.spool says nothing"):
        variables(Silent, "MONRO_")


def test_a_docstring_describes_as_well_and_secrets_are_marked() -> None:
    (row,) = variables(Told, "MONRO_")

    assert row.meaning == "**Secret.** of the other side, and where it is from"


def test_what_has_no_default_must_be_given() -> None:
    required = {row.name for row in variables(ListenerSettings, PREFIX) if row.default == REQUIRED}

    assert required == {"`MONRO_SPOOL`", "`MONRO_BROKER`", "`MONRO_SITE`"}


def test_tables_of_a_training_configuration_have_the_values_of_the_whole() -> None:
    tables = {each.name: each.settings for each in sections(TrainingConfig)}

    patch = next(row for row in tables["bundle.occlusion"] if row.name.endswith("PATCH`"))
    assert patch.default == "`[12, 13, 13]`"
