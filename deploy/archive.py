"""A small archive that plays the PACS: keeps what it is sent, one file per instance."""

from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import FileMetaDataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dsutils import encode_file_meta

TRANSFER_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


class Archive:
    """A Storage SCP on loopback, for demonstrations: it promises nothing about power cuts."""

    def __init__(self, folder: Path, port: int, ae_title: str = "ARCHIVE") -> None:
        self.folder = folder
        self._port = port
        self._entity = AE(ae_title=ae_title)
        self._entity.add_supported_context("1.2.840.10008.1.1")
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), TRANSFER_SYNTAXES)

    def __enter__(self) -> Self:
        """Start answering."""
        self._server = self._entity.start_server(
            ("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()

    def files(self, study_uid: str) -> list[Path]:
        """What is kept of a study."""
        return sorted((self.folder / study_uid).glob("*/*.dcm"))

    def _store(self, event: evt.Event) -> int:
        dataset, meta = event.dataset, FileMetaDataset(event.file_meta)
        folder = self.folder / dataset.StudyInstanceUID / dataset.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        whole = folder / f"{dataset.SOPInstanceUID}.dcm"
        part = whole.with_suffix(".part")
        part.write_bytes(b"\x00" * 128 + b"DICM" + encode_file_meta(meta) + _sent(event))
        part.replace(whole)
        return 0x0000


def _sent(event: evt.Event) -> bytes:
    return event.encoded_dataset(include_meta=False)
