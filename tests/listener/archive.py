"""A PACS on loopback that says what it kept: by commitment, C-FIND, both, or neither."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from listener.caller import call
from listener.confirmation import (
    NO_SUCH_INSTANCE,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
)
from listener.remote import Entity


@dataclass
class Archive:
    """A PACS that takes everything unless `status` says otherwise, and keeps what `keeps` says."""

    port: int
    ways: tuple[str, ...]
    takes: tuple[str, ...] = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34")
    status: int = 0x0000
    keeps: Callable[[str], bool] = lambda _uid: True
    commits: bool = True
    action_status: int = 0x0000
    answers: bool = True
    answer_to: tuple[str, int] | None = None
    reason: int = NO_SUCH_INSTANCE
    held: dict[str, Dataset] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator["Archive"]:
        entity = AE(ae_title="PACS")
        for sop_class in self.takes:
            entity.add_supported_context(sop_class)
        for way in self.ways:
            entity.add_supported_context(way)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_C_FIND, self._on_find),
        ]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield self
        finally:
            server.shutdown()

    def _on_store(self, event: evt.Event) -> int:
        if self.status:
            return self.status
        dataset = event.dataset
        self.stored.append(str(dataset.SOPInstanceUID))
        if self.keeps(dataset.SOPInstanceUID):
            self.held[str(dataset.SOPInstanceUID)] = dataset
        return 0x0000

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.answers and self.action_status == 0x0000:
            association = None if self.answer_to else event.assoc
            arguments = (event.action_information, association)
            threading.Thread(target=self._report, args=arguments).start()
        return self.action_status, None

    def _report(self, asked: Dataset, association: Any) -> None:
        time.sleep(0.1)  # once the request is answered
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.ReferencedSOPSequence, report.FailedSOPSequence = [], []
        for item in asked.ReferencedSOPSequence:
            if self.commits and item.ReferencedSOPInstanceUID in self.held:
                report.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = self.reason
                report.FailedSOPSequence.append(item)
        if self.answer_to is None:
            association.send_n_event_report(
                report, 2, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
            return
        entity = AE(ae_title="PACS")
        entity.add_requested_context(STORAGE_COMMITMENT)
        title, port = self.answer_to
        back = call(
            entity, Entity(ae_title=title, host="127.0.0.1", port=port), None,
            ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
        )  # fmt: skip
        status, _ = back.send_n_event_report(
            report, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        assert status.Status == 0x0000
        back.release()

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        for uid, dataset in self.held.items():
            if dataset.StudyInstanceUID == wanted.StudyInstanceUID:
                match = Dataset()
                match.SOPInstanceUID = uid
                yield 0xFF00, match
