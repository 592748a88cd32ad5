"""Instances counted until their transfer is over: one message for each study says how many."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Party:
    """The other side of an exchange.

    Attributes:
        name: its AE title, or what the settings call a web service.
        address: host name or IP address; empty: unknown.
        is_ae: whether it is an application entity.
        calls: whether it began the exchange, where we receive.
    """

    name: str
    address: str
    is_ae: bool = True
    calls: bool = True


UNKNOWN_PARTY: Final = Party("unknown", "", is_ae=False)


@dataclass
class Share:
    """What one transfer brought of one study.

    Attributes:
        party: other side of the transfer.
        study_uid: of the study.
        path: one of its files.
        arrived: whether it did; what failed has a share of its own.
        is_new: whether the receiver lacked some of it before.
        classes: SOP class UID to number of instances.
    """

    party: Party
    study_uid: str
    path: Path
    arrived: bool
    is_new: bool = False
    classes: Counter[str] = field(default_factory=Counter)


class Tally:
    """Counts, transfer by transfer.

    Args:
        tell: is told of each study of a transfer that is over.
    """

    def __init__(self, tell: Callable[[Share], None]) -> None:
        self._tell = tell
        self._open: dict[str, dict[tuple[str, bool], Share]] = {}

    def count(
        self,
        transfer: str,
        party: Party,
        study_uid: str,
        sop_class: str,
        path: Path,
        *,
        arrived: bool = True,
        is_new: bool = False,
    ) -> None:
        """Count one instance of a transfer: an association, a job on its way."""
        shares = self._open.get(transfer)
        if shares is None:
            shares = self._open[transfer] = {}
        share = shares.get((study_uid, arrived))
        if share is None:
            share = shares[study_uid, arrived] = Share(party, study_uid, path, arrived)
        share.is_new |= is_new
        share.classes[sop_class] += 1

    def over(self, transfer: str) -> None:
        """Tell of a transfer that ended, however it did; may be called again."""
        for share in self._open.pop(transfer, {}).values():
            self._tell(share)

    def all_over(self) -> None:
        """Tell of every transfer: nothing more will come."""
        for transfer in tuple(self._open):
            self.over(transfer)
