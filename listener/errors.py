"""What can go wrong at the DICOM edge, sorted by what to do about it.

No message here carries a patient's name, ID or date of birth: UIDs and counts only.
"""

import traceback
from collections.abc import Sequence


def where(error: BaseException) -> str:
    """Kind and place of an error, without its message: that may hold patient data."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename}:{frame.lineno})"


class MonroError(Exception):
    """Any fault that monro names itself."""


class BadAttribute(MonroError):
    """An attribute is missing, malformed or contradicts another: the sender must mend it."""


class DoesNotMatch(BadAttribute):
    """An instance is another one than it was announced as."""


class BadSettings(MonroError):
    """A setting is missing, wrong, unsafe or unknown; the program does not start."""


class VersionTaken(MonroError):
    """A bundle calls itself by the name and version of another one."""

    def __init__(self, named: str, found: str, known: str) -> None:
        super().__init__(named, found, known)
        self.named, self.found, self.known = named, found, known

    def __str__(self) -> str:
        return (
            f"bundle {self.named}: found {self.found}, expected {self.known}, which was registered "
            "under this version; publish what differs under another version"
        )


class SpoolFull(MonroError):
    """Writing would leave less room than must stay free; the peer has to try again later."""

    def __init__(self, root: str, free: int, needed: int, keep_free: int) -> None:
        super().__init__(root, free, needed, keep_free)
        self.root, self.free, self.needed, self.keep_free = root, free, needed, keep_free

    def __str__(self) -> str:
        return (
            f"spool {self.root} has {self.free:,} bytes free; {self.needed:,} more would leave "
            f"less than the {self.keep_free:,} that must stay free: make room, or lower "
            "MONRO_KEEP_FREE"
        )


class ServiceFailed(MonroError):
    """A DICOMweb service did not do what it was asked.

    Attributes:
        url: root of the service, which holds no password.
        found: what was the matter.
        status: of HTTP; None without an answer.
        is_temporary: whether the same may succeed later; else settings must be mended, here or
            there, or what was sent.
    """

    def __init__(self, url: str, found: str, status: int | None, is_temporary: bool) -> None:
        super().__init__(url, found, status, is_temporary)
        self.url, self.found = url, found
        self.status, self.is_temporary = status, is_temporary

    def __str__(self) -> str:
        needed = (
            "see that it runs, and try again later"
            if self.is_temporary
            else "correct its url, token_file or certificate, or who may do that there"
        )
        return f"{self.url}: {self.found}; {needed}"


class SourceFailed(MonroError):
    """A source did not tell or hand over what it has of a study."""

    def __init__(self, source: str, found: str) -> None:
        super().__init__(source, found)
        self.source, self.found = source, found

    def __str__(self) -> str:
        return (
            f"source {self.source} {self.found}: see that it runs and knows us, or correct it in "
            "MONRO_SOURCES"
        )


class SelfTestFailed(MonroError):
    """A self-test did not come to its end."""

    def __init__(self, found: str, next_step: str) -> None:
        super().__init__(found, next_step)
        self.found, self.next_step = found, next_step

    def __str__(self) -> str:
        return f"{self.found}: {self.next_step}"


class CannotListen(MonroError):
    """The address to listen on is not to be had; the program does not start."""

    def __init__(self, address: str, port: int, why: str, setting: str = "MONRO_BIND") -> None:
        super().__init__(address, port, why, setting)
        self.address, self.port, self.why, self.setting = address, port, why, setting

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.address}:{self.port} ({self.why}): stop what uses the port, "
            f"or set {self.setting}, or another port"
        )


class CannotStoreQuickly(MonroError):
    """The pynetdicom that is installed is not one that instances can be read from directly."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(missing)
        self.missing = tuple(missing)

    def __str__(self) -> str:
        return (
            f"this version of pynetdicom has no {', '.join(self.missing)}: install the one that "
            "constraints.txt names, or set MONRO_QUICK_STORE=false, which is slower"
        )


class UnknownPynetdicom(MonroError):
    """The pynetdicom that is installed lacks something that keeps peers within bounds."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(missing)
        self.missing = tuple(missing)

    def __str__(self) -> str:
        return (
            f"this version of pynetdicom has no {', '.join(self.missing)}: install the one that "
            "constraints.txt names"
        )


class WrongLedger(MonroError):
    """The ledger was written by another version of monro; the program does not start."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected

    def __str__(self) -> str:
        return (
            f"the ledger has schema {self.found}, this version of monro works with "
            f"{self.expected}: start the version that wrote it, or move the ledger aside and let "
            "`reconcile` rebuild it from the spool"
        )


class LeaseLost(MonroError):
    """A job was cancelled or lent to somebody else; whatever was found for it is dropped."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"job {self.job_id} is no longer ours: it was cancelled, or its lease ran out and "
            "another worker has it"
        )


class IllegalTransition(MonroError):
    """Something was to become what TRANSITIONS does not allow."""

    def __init__(self, what: str, name: str, to: str) -> None:
        super().__init__(what, name, to)
        self.what, self.name, self.to = what, name, to

    def __str__(self) -> str:
        return f"{self.what} {self.name} cannot become {self.to} from the state it is in"
