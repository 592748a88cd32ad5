"""Where an instance lies on disk, and how it gets there without ever being lost.

    incoming/                                   being written, not yet acknowledged
    studies/<study>/<series>/<instance>.dcm     acknowledged, exactly as received
    studies/<study>/<series>/<instance>.<sha256>.<attempt>.part
                                                the same for a moment, whole if it has that digest
    quarantine/<study>/<series>/<instance>.<sha256 prefix>.dcm
                                                same instance UID, other bytes
    quarantine/<study>/<series>/<instance>.<sha256 prefix>.<attempt>.rotten
                                                torn or rotten, and sent again since
    results/<study>/<job>/<lease>/...           what a worker found, before it is sent
    selftest/<destination>.json                 how the last self-test ended

The spool is the truth: the ledger can be rebuilt from it. Names are UIDs and hashes only.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from secrets import token_hex
from typing import NoReturn

from pydicom.filereader import read_file_meta_info

from listener.durability import brings_its_name
from listener.errors import BadAttribute, SpoolFull, where
from listener.series import BROKEN, InstanceKey
from listener.wholeness import ends_within_an_element

log = logging.getLogger(__name__)

PREAMBLE_BYTES = 132
"""PS3.10 7.1: 128 bytes of preamble and 'DICM' stand before the file meta information."""

GROUP_LENGTH_BYTES = 12
"""Encoded size of (0002,0000), whose value counts the bytes of meta information after it."""

ABANDONED_AFTER_SECONDS = 3600.0
"""A file in incoming/ this old belongs to a process that died: no association lasts as long."""

CHUNK_BYTES = 1 << 20

FOLDERS_REMEMBERED = 4096
"""As durable: many times what comes in at once."""


SHA256 = re.compile(r"[0-9a-f]{64}")
"""In hexadecimal digits, as in names of files."""


class Arrival(Enum):
    """What an acknowledged instance turned out to be."""

    NEW = "new"
    SAME = "same bytes as an instance held already"
    CONFLICT = "same UID as an instance held already, but other bytes"


@dataclass(frozen=True)
class Held:
    """One instance on stable storage."""

    key: InstanceKey
    path: Path
    sha256: str
    """Of the encoded dataset, without preamble and meta information: those name the sender."""
    size: int
    """Bytes of the encoded dataset."""
    arrival: Arrival
    written_at: float
    """When the file was written, in seconds since the epoch: the same when found again."""


class Incoming:
    """An instance that is coming in: on disk as far as it came, and not acknowledged.

    Attributes:
        path: its name at present.
        size: bytes of the encoded dataset so far.
    """

    def __init__(self, path: str, head: bytes) -> None:
        self.path, self.size = path, 0
        self._digest = hashlib.sha256()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._head = head  # is written with the first piece

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next piece of the dataset."""
        view = memoryview(piece).cast("B")
        head, self._head = self._head, b""
        _write_all(self._descriptor, memoryview(head), view)
        self._digest.update(view)
        self.size += view.nbytes

    def rename(self, path: str) -> None:
        """Give it another name."""
        os.rename(self.path, path)
        self.path = path

    def sync(self) -> None:
        """Wait until what was written is on stable storage."""
        os.fsync(self._descriptor)

    @property
    def sha256(self) -> str:
        """Of the encoded dataset so far."""
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Close, and remove the name that it was written under; may be called again."""
        self.close()
        if self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self.path = ""

    def close(self) -> None:
        """Write no more; may be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """A folder that holds what was acknowledged.

    Args:
        root: the folder; made if absent. Every part of it must be on one file system.
        keep_free: bytes that must stay free on that file system.
    """

    def __init__(self, root: Path, keep_free: int = 0) -> None:
        self.root = root.absolute()
        self.keep_free = keep_free
        self._durable: dict[str, int] = {}
        """Folders whose names survive a power cut, each with its inode: others may remove it, and
        make one of the same name."""
        self.sha256_at: Callable[[InstanceKey, Path], str | None] = _nobody_knows
        """What an acknowledged instance must hold, where that is known beside the spool: what has
        rotten is told from another instance by that."""
        self._incoming = self.root / "incoming"
        self._make_folder(self._incoming)
        self._brings_names = brings_its_name(self._incoming)

    def begin(self, head: bytes) -> "Incoming":
        """Begin to write one instance.

        Args:
            head: preamble and file meta information.

        Raises:
            SpoolFull: less than `keep_free` is left.
        """
        self._require_space(0)
        try:
            return Incoming(f"{self._incoming}/{token_hex(16)}.part", head)
        except OSError as error:
            self._complain(error, len(head))

    def add(self, incoming: "Incoming", piece: bytes | memoryview) -> None:
        """Write the next piece of an instance.

        Raises:
            SpoolFull: less than `keep_free` would be left: what was begun may be large.
        """
        try:
            self._require_space(memoryview(piece).nbytes)
            incoming.write(piece)
        except OSError as error:
            self._complain(error, memoryview(piece).nbytes)

    def keep(self, key: InstanceKey, incoming: "Incoming") -> Held:
        """Put an instance on stable storage; when this returns it survives a power cut.

        Args:
            key: of the instance; its UIDs are safe as file names.
            incoming: all of it.

        Raises:
            SpoolFull: less than `keep_free` is left. Nothing is kept.
        """
        try:
            self._require_space(0)
            sha256 = incoming.sha256
            folder = f"{self.root}/studies/{key.study_uid}/{key.series_uid}"
            self._claim(incoming, folder, f"{key.sop_uid}.{sha256}")
            path, arrival = self._settle(key, incoming.path, sha256)
            written_at = os.stat(path).st_mtime
            return Held(key, Path(path), sha256, incoming.size, arrival, written_at)
        except OSError as error:
            self._complain(error, incoming.size)
        finally:
            incoming.drop()

    def write(self, key: InstanceKey, head: bytes, dataset: bytes | memoryview) -> Held:
        """Put one instance on stable storage; see `begin` and `keep`."""
        self._require_space(memoryview(dataset).nbytes)
        incoming = self.begin(head)
        try:
            self.add(incoming, dataset)
            return self.keep(key, incoming)
        finally:
            incoming.drop()

    def received(self) -> Iterator[tuple[InstanceKey, Path]]:
        """Walk over every instance that was acknowledged and is not in quarantine."""
        for path in sorted((self.root / "studies").glob("*/*/*.dcm")):
            if key := _key(path, path.stem):
                yield key, path

    def quarantined(self) -> Iterator[tuple[InstanceKey, Path]]:
        """Walk over every instance that was acknowledged and put into quarantine."""
        for path in sorted((self.root / "quarantine").glob("*/*/*.dcm")):
            if key := _key(path, path.stem.rpartition(".")[0]):
                yield key, path

    def unsettled(self) -> Iterator[tuple[InstanceKey, Path]]:
        """Walk over what a kill or a power cut left half way to its name; see `recover`."""
        for path in sorted((self.root / "studies").glob("*/*/*.part")):
            if claim := _claimed(path):
                yield claim[0], path

    def is_whole(self, claim: Path) -> bool:
        """Whether something `unsettled` holds what its name says.

        Raises:
            OSError: it could not be read, or is settled meanwhile.
        """
        told = _claimed(claim)
        return told is not None and _holds(claim, told[1])

    def is_torn(self, path: Path) -> bool:
        """Whether an instance's file is no instance, or ends within an element; see wholeness.py.

        Raises:
            OSError: it could not be read.
        """
        return not _is_readable(path) or ends_within_an_element(path, _dataset_offset(path))

    def set_aside(self) -> Iterator[Path]:
        """Walk over what was torn or rotten, and was sent again."""
        yield from sorted((self.root / "quarantine").glob("*/*/*.rotten"))

    def strangers(self) -> Iterator[Path]:
        """Walk over files that no listener put there: their names are not those of instances."""
        ours = {path for _, path in (*self.received(), *self.quarantined(), *self.unsettled())}
        ours.update(self.set_aside())
        for part in ("studies", "quarantine"):
            for path in sorted((self.root / part).rglob("*")):
                if path not in ours and path.is_file():
                    yield path

    def held(self, key: InstanceKey, path: Path) -> Held:
        """Describe an instance found on disk, reading it once."""
        arrival = Arrival.CONFLICT if self._is_quarantine(path) else Arrival.NEW
        found = path.stat()
        size = found.st_size - _dataset_offset(path)
        return Held(key, path, _dataset_sha256(path), size, arrival, found.st_mtime)

    def find(self, sop_uids: Collection[str]) -> dict[str, Path]:
        """Where acknowledged instances lie, by one walk over the whole spool."""
        if not sop_uids:
            return {}
        return {key.sop_uid: path for key, path in self.received() if key.sop_uid in sop_uids}

    def identity(self, path: Path) -> tuple[str, str]:
        """SOP class UID of an instance found on disk, and SHA-256 of its dataset."""
        meta = read_file_meta_info(path)
        return str(meta.get("MediaStorageSOPClassUID", "")), _dataset_sha256(path)

    def keep_result(self, study_uid: str, job_id: str, lease: str, name: str, data: bytes) -> Path:
        """Put one result file on stable storage.

        Each lease writes into a folder of its own, so that a worker that lost its
        lease cannot change what another one kept.
        """
        path = self.root / "results" / study_uid / job_id / lease / name
        self._require_space(len(data))
        part = self._write_aside(data)
        self._make_folder(path.parent)
        part.replace(path)
        _sync(path.parent)
        return path

    def leases_with_results(self, study_uid: str, job_id: str) -> set[str]:
        """The leases that wrote results of a job, kept ones and others."""
        return {folder.name for folder in (self.root / "results" / study_uid / job_id).glob("*")}

    def drop_results(self, study_uid: str, job_id: str, lease: str) -> None:
        """Remove what a lease wrote that was never kept."""
        shutil.rmtree(self.root / "results" / study_uid / job_id / lease, ignore_errors=True)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove instances for good, and the folders that they leave empty."""
        paths = tuple(paths)
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in sorted({level for path in paths for level in path.parents[:2]}, reverse=True):
            with contextlib.suppress(OSError):  # not empty: something came late
                folder.rmdir()

    def drop_study_results(self, study_uid: str) -> None:
        """Remove all results of a study, and what was set aside of it."""
        for path in (self.root / "quarantine" / study_uid).glob("*/*.rotten"):
            self.remove([path])
        shutil.rmtree(self.root / "results" / study_uid, ignore_errors=True)

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes more would leave what must stay free."""
        return self.free_bytes() - size >= self.keep_free

    def recover(self, alone: bool = True) -> int:
        """Finish what a power cut or a kill interrupted; to be called before anything is received.

        Args:
            alone: whether nobody else writes: what is torn is removed only then, or once it is
                abandoned, for another host's last bytes may not be seen here yet.

        Returns:
            How many instances got the name that they are known by. What cannot be read or named
            now stays, and is logged.
        """
        found = 0
        for claim in (self.root / "studies").glob("*/*/*.part"):
            told = _claimed(claim)
            if told is None:
                log.warning("%s is not a name that a listener gives", self.named(claim))
                continue
            key, sha256 = told
            try:
                if _holds(claim, sha256):
                    self._make_durable(claim)  # it may be in the page cache only
                    self._settle(key, str(claim), sha256)
                    found += 1
                elif not alone and not _is_abandoned(claim):
                    continue
                claim.unlink()
            except FileNotFoundError:
                pass  # its writer lives and has settled it
            except OSError as error:  # the disk's trouble: the claim may be all there is of it
                log.error("%s stays for another time: %s", self.named(claim), where(error))
        return found

    def sweep(self) -> int:
        """Remove what dead processes left in incoming/: none of it was acknowledged."""
        abandoned = []
        for part in self._incoming.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if _is_abandoned(part):
                    abandoned.append(part)
        for part in abandoned:
            part.unlink(missing_ok=True)
        return len(abandoned)

    def check(self, room: int = 0) -> None:
        """Try whether something could be taken now, by writing a file and removing it.

        Args:
            room: bytes that must be left above `keep_free`.

        Raises:
            SpoolFull: less than that is left.
            OSError: nothing can be written.
        """
        self._require_space(room)
        self._write_aside(b"\0").unlink()

    def named(self, path: Path) -> str:
        """A file of the spool, as logs name it."""
        return str(path.relative_to(self.root))

    def total_bytes(self) -> int:
        """Size of the spool's file system."""
        disk = os.statvfs(self.root)
        return disk.f_blocks * disk.f_frsize

    def free_bytes(self) -> int:
        """Space left on the spool's file system for an unprivileged process."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize

    def _require_space(self, size: int) -> None:
        free = self.free_bytes()
        if free - size < self.keep_free:
            raise SpoolFull(str(self.root), free, size, self.keep_free)

    def _write_aside(self, data: bytes) -> Path:
        part = self._incoming / f"{token_hex(16)}.part"
        try:
            with part.open("xb", buffering=0) as file:
                _write_all(file.fileno(), memoryview(data))
                os.fsync(file.fileno())
        except OSError as error:
            part.unlink(missing_ok=True)
            self._complain(error, len(data))
        return part

    def _complain(self, error: OSError, size: int) -> NoReturn:
        """Say of a disk that turns out to be full that it is."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull(str(self.root), self.free_bytes(), size, self.keep_free) from error
        raise error

    def _claim(self, incoming: "Incoming", folder: str, name: str) -> None:
        """Make an instance durable under a name that says what it must hold.

        File and name become durable together (see durability.py). Should the power fail before,
        the name may be there and the content not: then they do not agree, and `recover` drops what
        was never acknowledged.
        """
        while True:
            try:
                incoming.rename(f"{folder}/{name}.{token_hex(4)}.part")
                break
            except FileNotFoundError:  # the first of its series, or `remove` took the folder away
                if not os.path.exists(incoming.path):
                    raise
                self._durable.pop(folder, None)
                self._make_folder(Path(folder))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if self._durable.get(folder) != os.fstat(descriptor).st_ino:
                self._make_folder(Path(folder))
            incoming.sync()
            if not self._brings_names:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _settle(self, key: InstanceKey, claim: str, sha256: str) -> tuple[str, Arrival]:
        """Give a durable instance the name that it is known by.

        A hard link, unlike a rename, never replaces what is there: two associations that bring the
        same instance at the same time cannot overwrite each other. If the power fails, `recover`
        does this again; that of another listener may even do it first.
        """
        path = f"{self.root}/studies/{key.study_uid}/{key.series_uid}/{key.sop_uid}.dcm"
        try:
            os.link(claim, path)
            return path, Arrival.NEW
        except FileNotFoundError:
            return self._settled(key, path, sha256)
        except FileExistsError:
            if _holds(Path(path), sha256):
                self._make_durable(Path(path))  # whoever wrote it may have died before
                return path, Arrival.SAME
        if self._set_aside(key, Path(path), sha256):
            return self._settle(key, claim, sha256)
        return self._settle_apart(key, claim, sha256)

    def _settle_apart(self, key: InstanceKey, claim: str, sha256: str) -> tuple[str, Arrival]:
        """Give a durable instance a name in quarantine: another one has its own."""
        apart = self._quarantine_path(key, sha256)
        self._make_folder(apart.parent)
        try:
            os.link(claim, apart)
        except FileExistsError:
            if not _holds(apart, sha256) and self._set_aside(key, apart, sha256):
                return self._settle_apart(key, claim, sha256)
            self._make_durable(apart)
        except FileNotFoundError:
            path = f"{self.root}/studies/{key.study_uid}/{key.series_uid}/{key.sop_uid}.dcm"
            return self._settled(key, path, sha256)
        return str(apart), Arrival.CONFLICT

    def _set_aside(self, key: InstanceKey, path: Path, sha256: str) -> bool:
        """Make room for an instance whose name is that of a file that is torn or rotten.

        Args:
            key: of the instance.
            path: of what has its name.
            sha256: of the instance.

        Returns:
            Whether it is worth trying again; otherwise what has the name is another instance.
        """
        expected = self.sha256_at(key, path)
        if expected not in (None, sha256):
            return False
        # Of two that bring the same at once, the later must not set aside what the first brought.
        with _locked(path.parent):
            if _holds(path, sha256):
                return True
            if expected is None and not self._is_quarantine(path) and _is_readable(path):
                return False
            aside = self._quarantine_path(key, sha256).with_suffix(f".{token_hex(4)}.rotten")
            self._make_folder(aside.parent)
            os.rename(path, aside)
        log.error(
            "%s did not hold any more what was received; it was sent again, and what was there is "
            "now %s",
            self.named(path),
            self.named(aside),
        )
        return True

    def _settled(self, key: InstanceKey, path: str, sha256: str) -> tuple[str, Arrival]:
        """What another listener made of an instance whose claim is gone."""
        apart = self._quarantine_path(key, sha256)
        if apart.exists():
            return str(apart), Arrival.CONFLICT
        if _dataset_sha256(Path(path)) != sha256:
            raise FileNotFoundError(errno.ENOENT, "what was written is gone", path)
        return path, Arrival.SAME

    def _make_durable(self, path: Path) -> None:
        """Wait until a file that another process may have written survives a power cut."""
        _sync(path)
        self._make_folder(path.parent)
        _sync(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder whose own name survives a power cut, up to the root."""
        folder.mkdir(parents=True, exist_ok=True)
        inode = folder.stat().st_ino
        if self._durable.get(str(folder)) == inode:
            return
        for level in (folder, *folder.parents):
            _sync(level)
            if level == self.root.parent:
                break
        if len(self._durable) >= FOLDERS_REMEMBERED:
            self._durable.clear()
        self._durable[str(folder)] = inode

    def _quarantine_path(self, key: InstanceKey, sha256: str) -> Path:
        folder = self.root / "quarantine" / key.study_uid / key.series_uid
        return folder / f"{key.sop_uid}.{sha256[:16]}.dcm"

    def _is_quarantine(self, path: Path) -> bool:
        return path.is_relative_to(self.root / "quarantine")


def for_us_and_our_group() -> None:
    """Let what this program writes from now on be for nobody but its user and that user's group."""
    os.umask(os.umask(0o077) | 0o007)


def _write_all(descriptor: int, *parts: memoryview) -> None:
    written = os.writev(descriptor, parts)
    for part in parts:
        rest = part[written:]
        written = max(0, written - len(part))
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dataset_offset(path: Path) -> int:
    meta = read_file_meta_info(path)
    length = meta.get("FileMetaInformationGroupLength")
    if length is None:
        raise BadAttribute(
            f"{path.name} in the spool has no file meta group length, so it was not written by "
            "this listener; move it out of the spool and send it by C-STORE"
        )
    return PREAMBLE_BYTES + GROUP_LENGTH_BYTES + int(length)


def _key(path: Path, sop_uid: str) -> InstanceKey | None:
    """The instance that a file is named after; None: no listener gave it that name."""
    try:
        return InstanceKey(path.parts[-3], path.parts[-2], sop_uid)
    except BadAttribute:
        return None


def _claimed(path: Path) -> tuple[InstanceKey, str] | None:
    """The instance that a claim is named after, and the digest that it must have."""
    sop_uid, _, sha256 = path.stem.rpartition(".")[0].rpartition(".")
    key = _key(path, sop_uid)
    return (key, sha256) if key and SHA256.fullmatch(sha256) else None


def _is_abandoned(part: Path) -> bool:
    return part.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS


def _nobody_knows(_key: InstanceKey, _path: Path) -> str | None:
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else sets aside what lies in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_readable(path: Path) -> bool:
    """Whether a file has the header of an instance.

    Raises:
        OSError: it could not be read, which says nothing about what it holds.
    """
    try:
        return _dataset_offset(path) <= path.stat().st_size
    except OSError:
        raise
    except (BadAttribute, *BROKEN):
        return False


def _holds(path: Path, sha256: str) -> bool:
    """Whether a file that may be torn is whole.

    Raises:
        OSError: it could not be read, which says nothing about what it holds.
    """
    try:
        return _dataset_sha256(path) == sha256
    except OSError:
        raise
    except (BadAttribute, *BROKEN):
        return False


def _dataset_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(_dataset_offset(path))
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
