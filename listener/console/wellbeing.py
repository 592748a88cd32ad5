"""How the listener is: what monitoring tries, and what its settings leave open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from listener.cautions import cautions
from listener.settings import ListenerSettings


class Check(Protocol):
    """Something that was tried (listener/monitoring)."""

    @property
    def name(self) -> str:
        """Of what was tried."""

    @property
    def ok(self) -> bool:
        """Whether it is well."""

    @property
    def detail(self) -> str:
        """What was seen."""


Look = Callable[[], Sequence[Check]]


@dataclass(frozen=True)
class Checked:
    """One check, as it came out."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Wellbeing:
    """All checks, and cautions about settings."""

    checks: tuple[Checked, ...]
    cautions: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is amiss."""
        return all(each.ok for each in self.checks)


def read_wellbeing(settings: ListenerSettings, look: Look) -> Wellbeing:
    """How the listener is now."""
    checks = (Checked(each.name, each.ok, each.detail) for each in look())
    return Wellbeing(tuple(checks), tuple(cautions(settings)))
