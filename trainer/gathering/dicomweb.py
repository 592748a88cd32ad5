"""Studies behind a DICOMweb server (PS3.18): found by QIDO-RS, retrieved by WADO-RS.

An Orthanc is such a server through its DICOMweb plugin. What is retrieved lies in a private folder
for as long as it is read, and is removed then.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util import Retry

from listener.complaint import explain_invalid
from listener.errors import BadAttribute
from listener.series import BROKEN, UID, Header, InstanceKey
from trainer.gathering.sources import UIDS, Series, SourceFailed, Study, read_series, read_study
from trainer.gathering.table import LabelRow

# As stored, whatever the compression: the service, too, gets what the scanner sent.
AS_STORED: Final = (("application/dicom", "*"),)
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# Servers that are busy, or restarting, are asked again after 0, 2, 4 and 8 seconds.
PATIENCE: Final = Retry(
    total=4, backoff_factor=1, status_forcelist=(429, 503, 504), raise_on_status=False
)


PREFIX: Final = "MONRO_TRAINER_DICOMWEB_"


class DicomWebSettings(BaseSettings):
    """How to reach a DICOMweb server; an Orthanc is one through its DICOMweb plugin.

    Attributes:
        url: root of its services, such as https://pacs.example/dicom-web.
        username: for basic authentication.
        password: for basic authentication.
        token: bearer token, instead of user and password.
        plain_http: whether a password or token may travel unencrypted to another machine.
        timeout_seconds: without any answer.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    url: str
    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    plain_http: bool = False
    timeout_seconds: float = 60.0

    @model_validator(mode="after")
    def _be_safe(self) -> "DicomWebSettings":
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("url must begin with https:// or http:// and name a host")
        if address.username or address.password:
            raise ValueError("url must not hold a password: it is shown; set username and password")
        secret = self.password.get_secret_value() or self.token.get_secret_value()
        in_the_clear = address.scheme == "http" and address.hostname not in LOOPBACK
        if secret and in_the_clear and not self.plain_http:
            raise ValueError("a password or token over http:// can be read on the way: use https")
        if self.username and self.token.get_secret_value():
            raise ValueError("give username and password or a token, not both")
        return self


def read_settings(**given: Any) -> DicomWebSettings:
    """Settings from the environment (MONRO_TRAINER_DICOMWEB_URL), those given taking their place.

    Raises:
        BadSettings: a setting is missing, wrong or unsafe; no secret is quoted.
    """
    try:
        return DicomWebSettings(**given)
    except ValidationError as error:
        raise explain_invalid(error, DicomWebSettings, PREFIX) from None


class _Bearer(AuthBase):
    """Sends a token (RFC 6750); as an auth object, no entry of ~/.netrc takes its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class DicomWebSource:
    """Studies behind a DICOMweb server: found by QIDO-RS, retrieved by WADO-RS (PS3.18).

    Series are looked into by retrieving their first instance: then the very functions that read a
    file for the service read it here.
    """

    def __init__(self, settings: DicomWebSettings) -> None:
        self._settings = settings
        self._client = _client(settings)

    def find(self, row: LabelRow) -> list[Study]:
        """See Source."""
        for filters in _queries(row):
            found = self._search(filters)
            if found:
                return sorted(found, key=lambda study: study.study_uid)
        return []

    def series(self, study: Study) -> list[Series]:
        """See Source; MR series only."""
        search = partial(
            self._client.search_for_series, study.study_uid, search_filters={"Modality": "MR"}
        )
        found = self._all("SeriesInstanceUID", search)
        # Checked again: some servers pass over filters that they do not know.
        uids = [uid for uid, header in found.items() if header.code("Modality") == "MR"]
        every = (self._read_series(study.study_uid, uid) for uid in sorted(uids))
        return [series for series in every if series is not None]

    def deliver(self, series: Series) -> "Retrieval":
        """See Source."""
        facts = series.facts
        return Retrieval(self._settings, facts.study_uid, facts.series_uid, series.sop_uids)

    def _search(self, filters: Mapping[str, str]) -> list[Study]:
        search = partial(
            self._client.search_for_studies,
            fields=["PatientID", "AccessionNumber", "StudyDate"],
            search_filters=dict(filters),
        )
        found = self._all("StudyInstanceUID", search)
        # Checked again: a * in an accession number would match anything.
        return [read_study(each) for each in found.values() if _fits(each, filters)]

    def _read_series(self, study_uid: str, series_uid: str) -> Series | None:
        search = partial(self._client.search_for_instances, study_uid, series_uid)
        uids = sorted(self._all("SOPInstanceUID", search))
        with private_folder() as folder:
            for uid in uids:
                with _asking(self._settings):
                    instance = self._client.retrieve_instance(
                        study_uid, series_uid, uid, media_types=AS_STORED
                    )
                    path = _save(instance, folder)
                if read := read_series({uid: path}, len(uids)):
                    return Series(tuple(uids), read.facts)
        return None

    def _all(self, keyword: str, search: Callable[..., list[dict[str, Any]]]) -> dict[str, Header]:
        """Everything that a search finds, page by page, by UID.

        Until a page brings nothing new: servers limit pages as they like, and Orthanc (1.10, when
        ModalitiesInStudy is asked for) answers every offset with the first page, for ever.
        """
        found: dict[str, Header] = {}
        while True:
            with _asking(self._settings):
                page = [Header(_from_json(each)) for each in search(offset=len(found))]
            before = len(found)
            found |= {header.text(keyword): header for header in page}
            if len(found) == before:
                return found


@dataclass(frozen=True)
class Retrieval:
    """One series behind a DICOMweb server."""

    settings: DicomWebSettings
    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        """The files, in a private folder that is removed afterwards.

        Raises:
            SourceFailed: the server does not answer, or sends other instances than it has named.
        """
        client = _client(self.settings)
        with private_folder() as folder:
            with _asking(self.settings):
                stream = client.iter_series(self.study_uid, self.series_uid, media_types=AS_STORED)
                saved = {path.stem: path for path in (_save(each, folder) for each in stream)}
            if sorted(saved) != list(self.sop_uids):
                raise SourceFailed(
                    self.settings.url,
                    f"{len(saved)} instances of a series of {len(self.sop_uids)}",
                    "run again when the study is complete there",
                )
            yield [saved[uid] for uid in self.sop_uids]


def _queries(row: LabelRow) -> Iterator[Mapping[str, str]]:
    if not row.study:
        yield {"PatientID": row.patient, "ModalitiesInStudy": "MR"}
        return
    if UID.fullmatch(row.study):
        yield {"StudyInstanceUID": row.study}
    yield {"AccessionNumber": row.study}


def _fits(header: Header, filters: Mapping[str, str]) -> bool:
    return all(value in (header.texts(keyword) or ("",)) for keyword, value in filters.items())


def _client(settings: DicomWebSettings) -> DICOMwebClient:
    session = requests.Session()
    if settings.username:
        session.auth = HTTPBasicAuth(settings.username, settings.password.get_secret_value())
    elif settings.token.get_secret_value():
        session.auth = _Bearer(settings.token.get_secret_value())
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=PATIENCE))
    # UIDs are checked by ours: theirs refuses those with leading zeros, which scanners write.
    client = DICOMwebClient(
        settings.url.rstrip("/"), session, timeout=settings.timeout_seconds, permissive_uid=True
    )
    client.set_http_retry_params(retry=False)  # the session does, lost connections included
    return client


@contextmanager
def _asking(settings: DicomWebSettings) -> Iterator[None]:
    """Turn whatever goes wrong in asking a server into SourceFailed.

    Causes are cut off: their messages quote addresses, and those hold UIDs and patient IDs.
    """
    try:
        yield
    except requests.HTTPError as error:
        status = "an error" if error.response is None else f"HTTP {error.response.status_code}"
        needed = "check address, user and rights, and run again"
        raise SourceFailed(settings.url, status, needed) from None
    except requests.RequestException as error:
        found = f"no answer ({type(error).__name__})"
        needed = "see that it runs, check the address, and run again"
        raise SourceFailed(settings.url, found, needed) from None
    except OSError as error:
        found = f"what it sends cannot be kept for reading ({error.strerror})"
        raise SourceFailed(settings.url, found, "make room where TMPDIR points to") from None
    except BROKEN as error:
        found = f"an answer that cannot be understood ({type(error).__name__})"
        needed = "check that the address is the root of DICOMweb services"
        raise SourceFailed(settings.url, found, needed) from None
    except BadAttribute as error:
        raise SourceFailed(settings.url, str(error), "correct the study there") from None


def _from_json(found: Mapping[str, Any]) -> Dataset:
    return Dataset.from_json(dict(found), lambda *_reference: b"")  # bulk data is left out


def _save(instance: Dataset, folder: Path) -> Path:
    """Write one instance under its UID; its elements are kept as they came."""
    header = Header(instance)
    key = InstanceKey(*(header.text(keyword) for keyword in UIDS))  # refuses '../../etc'
    path = folder / f"{key.sop_uid}.dcm"
    instance.save_as(path)
    return path


# --- a private folder ---

UNLOCKED, LOCKED = "monro-unlocked-", "monro-retrieved-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder for this user alone that is removed afterwards.

    A process that is killed leaves its folder behind, but not the lock on it: the next one that
    needs a folder removes those that nobody holds.
    """
    _remove_abandoned()
    made = Path(tempfile.mkdtemp(prefix=UNLOCKED))
    folder = made.with_name(made.name.replace(UNLOCKED, LOCKED))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield folder
    finally:
        for each in (made, folder):
            shutil.rmtree(each, ignore_errors=True)
        os.close(lock)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{LOCKED}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # removed meanwhile, or another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(lock)
