"""What a hostile or broken sender says to STOW-RS: one family of requests after the other.

HTTP/1.1 by hand (RFC 9112), so that anything in it may be wrong. Everything is drawn from one
`random.Random`, so a seed names a run.
"""

import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tests.fuzz import wire
from tests.fuzz.datasets import (
    HOSTILE_UIDS,
    Instance,
    bomb,
    malformed,
    sound_instance,
    with_hostile_uids,
    with_odd_charset,
)
from tests.fuzz.mutate import mutated

TOKEN: Final = "A-token-of-the-fuzz"
EDGE: Final = b"edge"
RELATED: Final = b'multipart/related; type="application/dicom"; boundary=' + EDGE
DICOM: Final = b"Content-Type: application/dicom\r\n"

HOSTILE_BOUNDARIES: Final = (
    b"",
    b'""',
    b"-",
    b"--",
    b"\xff\xfe",
    b"a" * 256,
    b"a" * 70_000,
    b'"unclosed',
    b'"a\\"b"',
    b"edge; boundary=other",
    b"\t",
    b"edge--",
    b"e" * 60_000,
    b"%s%n",
    b"../../etc",
)
HOSTILE_LINES: Final = (
    b"Content-Type: " + b"a" * 5000,
    b"Content-Type: application/dicom; " + b"x=y;" * 1000,
    b'Content-Type: application/dicom; name="' + b";" * 3000,
    b"Content-Type: application/dicom; transfer-syntax=1.2.3",
    b"Content-Type: multipart/related; boundary=edge",
    b"Content-Type: text/html",
    b"Content-Type:",
    b"Content-Location: ../../../etc/passwd",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -1",
    b"Content-Transfer-Encoding: base64",
    b"Content-Encoding: gzip",
    b": nothing",
    b"no colon",
    b"\0: \0",
    b" folded: line",
    b"X: \xff\xfe\x00",
    b"x: y\r\n" * 9,
    b"x: y\n",
    b"x" * 5000 + b": y",
)


@dataclass(frozen=True)
class Request:
    """One input.

    Attributes:
        family: which kind of attempt it is.
        parts: what is sent, each by itself.
        answers: to wait for before the connection is ended.
        pause_seconds: before each part but the first.
        waits: whether the connection stays open until the listener has enough of it.
    """

    family: str
    parts: tuple[bytes, ...]
    answers: int = 1
    pause_seconds: float = 0.0
    waits: bool = False


def one(dice: random.Random) -> Request:
    """Draw an input of any family."""
    families = tuple(FAMILIES)
    name = dice.choices(families, [FAMILIES[each][0] for each in families])[0]
    return FAMILIES[name][1](dice, name)


def post(
    body: bytes,
    *,
    line: bytes = b"POST /studies HTTP/1.1",
    content_type: bytes | None = RELATED,
    token: bytes | None = b"Bearer " + TOKEN.encode(),
    length: bytes | None = b"",
    more: Iterable[bytes] = (),
) -> bytes:
    """A request; `length` where it lies about its own, None where it tells none."""
    lines = [line, b"Host: monro", *more]
    if content_type is not None:
        lines.append(b"Content-Type: " + content_type)
    if token is not None:
        lines.append(b"Authorization: " + token)
    if length is not None:
        lines.append(b"Content-Length: " + (length or str(len(body)).encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def part(content: bytes, lines: bytes = DICOM, edge: bytes = EDGE) -> bytes:
    """A part of a body; `lines` are its header."""
    return b"--" + edge + b"\r\n" + lines + b"\r\n" + content + b"\r\n"


def body(*parts: bytes, edge: bytes = EDGE) -> bytes:
    """A body of such parts."""
    return b"".join(parts) + b"--" + edge + b"--\r\n"


def meta(instance: Instance, *more: bytes, sop_class: str = wire.MR_IMAGE) -> bytes:
    """File meta information (PS3.10 7.1), without its group length."""
    elements = (
        wire.explicit(0x00020002, b"UI", wire.even(sop_class)),
        wire.explicit(0x00020003, b"UI", wire.even(instance.sop)[:65534]),
        wire.explicit(0x00020010, b"UI", wire.even(instance.syntax)),
    )
    return b"".join((*elements, *more))


def file(instance: Instance, information: bytes | None = None) -> bytes:
    """An instance as a PS3.10 file."""
    found = meta(instance) if information is None else information
    length = wire.explicit(0x00020000, b"UL", struct.pack("<L", len(found)))
    return bytes(128) + b"DICM" + length + found + instance.dataset


def sound(dice: random.Random) -> Request:
    """An instance that must be kept."""
    return Request("sound", (post(body(part(file(sound_instance(dice))))),))


# --- families ---


def _kept(dice: random.Random, _name: str) -> Request:
    return sound(dice)


def _noise(dice: random.Random, name: str) -> Request:
    whole = sound(dice).parts[0]
    drawn = dice.random()
    if drawn < 0.3:
        return Request(name, (dice.randbytes(dice.choice((1, 20, 3000, 100_000))),))
    if drawn < 0.4:
        return Request(name, (wire.proposal(),))
    if drawn < 0.5:  # a ClientHello where no TLS is spoken
        return Request(name, (b"\x16\x03\x01\x02\x00\x01" + dice.randbytes(517),))
    return Request(name, (mutated(whole, dice),))


def _line(dice: random.Random, name: str) -> Request:
    """Request lines: other methods, targets that would be paths, versions that there are not."""
    method = dice.choice(
        (b"POST", b"POST", b"GET", b"PUT", b"TRACE", b"CONNECT", b"post", b"P" * 9000)
    )
    uid = dice.choice(HOSTILE_UIDS)
    target = dice.choice(
        (
            b"/studies/" + quote(uid, safe="").encode(),
            b"/studies/" + uid.encode("utf-8", "replace"),
            b"/studies/../../../etc/passwd",
            b"/studies/%2e%2e%2f%2e%2e%2fetc",
            b"/studies/%00%ff%0d%0aSet-Cookie:x",
            b"//studies",
            b"http://other/studies",
            b"*",
            b"/" + b"a" * dice.choice((10, 60_000, 70_000)),
            b"/studies?" + b"a=b&" * 1000,
        )
    )
    version = dice.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""))
    content = body(part(file(sound_instance(dice))))
    return Request(name, (post(content, line=b" ".join((method, target, version))),))


def _headers(dice: random.Random, name: str) -> Request:
    """Headers of a request that are many, long, doubled or contradict each other."""
    more = dice.choice(
        (
            [b"X: y"] * 5000,
            [b"X: " + b"y" * 70_000],
            [b"Content-Encoding: " + dice.choice((b"gzip", b"br", b"x" * 9000, b"\xff"))],
            [b"Expect: 100-continue"],
            [b"Expect: 999-\xff"],
            [b"Upgrade: h2c", b"Connection: Upgrade"],
            [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"],
            [b"Connection: close, keep-alive, \xff"],
            [b"Host: other"],
            [b" folded: line"],
            [b"X\0: y"],
            [b"X-Forwarded-For: " + b"1.2.3.4," * 500],
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: identity"],
            [b"Range: bytes=0-"],
            [b"Accept: " + b"a/b;q=0.1," * 3000],
        )
    )
    content = body(part(file(sound_instance(dice))))
    return Request(name, (post(content, more=more),))


def _content_type(dice: random.Random, name: str) -> Request:
    """Absurd boundaries, in the header and in the body."""
    edge = dice.choice(HOSTILE_BOUNDARIES)
    inside = edge if dice.random() < 0.7 else EDGE
    kinds = (
        b'multipart/related; type="application/dicom"; boundary=' + edge,
        b"multipart/related; boundary=" + edge,
        b"multipart/related;boundary*=utf-8''edge; boundary*0=ed; boundary*1=ge; boundary=" + edge,
        b"multipart/related; type=" + edge + b"; boundary=edge",
        b"multipart/form-data; boundary=" + edge,
        b"application/dicom",
        b"multipart/related" + b";" * 30_000,
        b'multipart/related; type="application/dicom"; x="' + b";" * 30_000,
        b"",
        b"\xff\xfe",
    )
    content = body(part(file(sound_instance(dice)), edge=inside), edge=inside)
    given = None if dice.random() < 0.1 else dice.choice(kinds)
    return Request(name, (post(content, content_type=given),))


def _multipart(dice: random.Random, name: str) -> Request:
    """Bodies that are no multipart/related."""
    parts = [part(file(sound_instance(dice))) for _ in range(dice.randrange(1, 4))]
    drawn = dice.randrange(10)
    if drawn == 0:
        content = b"".join(parts)
    elif drawn == 1:
        content = dice.randbytes(2000) + body(*parts)
    elif drawn == 2:
        content = body(*parts) + dice.randbytes(2000) + body(*parts)
    elif drawn == 3:
        content = body(*parts).replace(b"\r\n", b"\n")
    elif drawn == 4:
        content = body(part(body(*parts)), *parts)
    elif drawn == 5:
        content = b"\r\n" * 40_000 + body(*parts)
    elif drawn == 6:
        content = body(part(b"\r\n--edg" * 20_000), *parts)
    elif drawn == 7:
        content = body(*parts).replace(
            b"--edge\r\n", b"--edge" + dice.choice((b" \t \r\n", b"x\r\n", b"\0\r\n"))
        )
    elif drawn == 8:
        content = dice.choice(
            (b"", b"--", b"--edge", b"--edge--", b"--edge\r\n", b"--edge\r\n\r\n")
        )
    else:
        content = mutated(body(*parts), dice)
    return Request(name, (post(content),))


def _part_headers(dice: random.Random, name: str) -> Request:
    """Headers of parts that are hostile, beside parts that are sound."""
    parts = []
    for _ in range(dice.randrange(1, 5)):
        lines = [dice.choice(HOSTILE_LINES) for _ in range(dice.randrange(1, 12))]
        parts.append(part(file(sound_instance(dice)), b"".join(each + b"\r\n" for each in lines)))
    return Request(name, (post(body(*parts, part(file(sound_instance(dice))))),))


def _length(dice: random.Random, name: str) -> Request:
    """A Content-Length that is absurd, doubled, or not that of the body."""
    content = body(part(file(sound_instance(dice))))
    length = dice.choice(
        (
            str(len(content) + dice.choice((1, 1000, 1 << 40))).encode(),
            str(max(0, len(content) - dice.choice((1, 50)))).encode(),
            b"0",
            b"-1",
            b"+5",
            b"1e3",
            b"0x10",
            b"9" * 19,
            b"9" * 20,
            b"9" * 6000,
            b"5, 6",
            b"5\r\nContent-Length: 6",
            b" ",
            "\u0663".encode(),
        )
    )
    more = [b"Transfer-Encoding: chunked"] if dice.random() < 0.2 else []
    return Request(name, (post(content, length=length, more=more),))


def _chunks(dice: random.Random, name: str) -> Request:
    """Chunks that lie about their sizes, never end, or bring endless words along."""
    content = body(part(file(sound_instance(dice))))
    pieces = [content[at : at + 300] for at in range(0, len(content), 300)]
    chunks = [b"%x\r\n%s\r\n" % (len(each), each) for each in pieces] + [b"0\r\n\r\n"]
    at = dice.randrange(len(chunks))
    drawn = dice.randrange(9)
    if drawn == 0:
        chunks[at] = dice.choice(
            (b"-5\r\n", b"zz\r\n", b"\r\n", b"f" * 30 + b"\r\n", b"7fffffff\r\n")
        )
    elif drawn == 1:
        chunks[at] = b"5;" + b"a=b;" * dice.choice((10, 50_000)) + b"\r\nabcde\r\n"
    elif drawn == 2:
        chunks[-1] = b"0\r\n" + b"Trailer: x\r\n" * dice.choice((3, 20_000)) + b"\r\n"
    elif drawn == 3:
        chunks = [b"1\r\n%c\r\n" % each for each in content] + [b"0\r\n\r\n"]
    elif drawn == 4:
        chunks[at] = b"1" * 100_000
    elif drawn == 5:
        dice.shuffle(chunks)
    elif drawn == 6:
        del chunks[at]
    elif drawn == 7:
        chunks = [mutated(b"".join(chunks), dice)]
    head = post(b"", length=None, more=[b"Transfer-Encoding: chunked"])
    return Request(name, (head + b"".join(chunks),))


def _file(dice: random.Random, name: str) -> Request:
    """Files whose meta information is absent, endless, absurd, or of something else."""
    instance = sound_instance(dice)
    drawn = dice.randrange(9)
    if drawn == 0:
        content = dice.choice((b"", bytes(131), bytes(132), bytes(128) + b"DICM", b"DICM" * 100))
    elif drawn == 1:
        lie = dice.choice((0, 1, 1 << 31, 0xFFFFFFFF))
        private = wire.explicit(0x00020102, b"OB", bytes(20), lie)
        content = file(instance, meta(instance, private))
    elif drawn == 2:
        private = wire.explicit(0x00020102, b"OB", bytes(dice.choice((900_000, 2 << 20))))
        content = file(instance, meta(instance, private))
    elif drawn == 3:
        sop_class = dice.choice((wire.VERIFICATION, wire.COMMITMENT, *HOSTILE_UIDS[:-1]))
        content = file(instance, meta(instance, sop_class=sop_class))
    elif drawn == 4:
        strange = Instance(
            instance.sop,
            instance.dataset,
            dice.choice((wire.BIG_ENDIAN, "1.2.3", *HOSTILE_UIDS[:-1])),
        )
        content = file(strange)
    elif drawn == 5:
        content = file(Instance(dice.choice(HOSTILE_UIDS), instance.dataset))
    elif drawn == 6:
        length = wire.explicit(0x00020000, b"UL", struct.pack("<L", dice.choice((0, 9, 1 << 31))))
        content = bytes(128) + b"DICM" + length + meta(instance) + instance.dataset
    elif drawn == 7:
        content = file(instance, meta(instance) * 10_000)
    else:
        content = mutated(file(instance), dice)
    return Request(name, (post(body(part(content), part(file(sound_instance(dice))))),))


def _dataset(dice: random.Random, name: str) -> Request:
    made = dice.choice((malformed, malformed, with_hostile_uids, with_odd_charset))(dice)
    return Request(name, (post(body(part(file(made)), part(file(sound_instance(dice))))),))


def _bomb(dice: random.Random, name: str) -> Request:
    return Request(name, (post(body(part(file(bomb(dice))))),))


def _many_parts(dice: random.Random, name: str) -> Request:
    """As many parts as fit: cheap to send, dear to answer."""
    drawn = dice.random()
    if drawn < 0.4:
        tiny = part(b"", b"")
        content = body(tiny * dice.choice((1000, 100_000)))
    elif drawn < 0.6:
        tiny = part(b"", b"Content-Type: text/plain\r\n")
        content = body(tiny * 30_000)
    else:  # each has UIDs, which the answer names
        content = body(part(file(Instance(sound_instance(dice).sop, b""))) * 10_000)
    return Request(name, (post(content),), waits=True)


def _token(dice: random.Random, name: str) -> Request:
    """Tokens that are none of ours."""
    right = TOKEN.encode()
    token = dice.choice(
        (
            None,
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer " + right[:-1],
            b"Bearer " + right + b"x",
            b"Bearer " + right.upper(),
            b"Bearer \xff\xfe",
            b"Bearer " + b"a" * 60_000,
            b"Basic " + right,
            right,
            b"Bearer " + right + b", Bearer x",
            b"Bearer other\r\nAuthorization: Bearer another",
        )
    )
    content = body(part(file(sound_instance(dice))))
    if dice.random() < 0.2:  # it is refused before that is read
        content += bytes(8 << 20)
    return Request(name, (post(content, token=token),))


def _slow(dice: random.Random, name: str) -> Request:
    """Bodies that stop, or come by a few bytes."""
    whole = sound(dice).parts[0]
    at = dice.choice((0, 10, whole.index(b"\r\n\r\n"), len(whole) - 300, len(whole) - 1))
    if dice.random() < 0.4:
        drops = [whole[at + each : at + each + 1] for each in range(8)]
        return Request(name, (whole[:at], *drops), pause_seconds=0.3)
    return Request(name, (whole[:at],), waits=True)


def _pipelined(dice: random.Random, name: str) -> Request:
    """Several requests at once."""
    many = [sound(dice).parts[0] for _ in range(dice.randrange(2, 12))]
    if dice.random() < 0.5:
        many.insert(dice.randrange(len(many)), dice.randbytes(100))
    if dice.random() < 0.3:
        many = [post(b"", line=b"GET / HTTP/1.1")] * dice.choice((10, 300))
    return Request(name, (b"".join(many),), answers=2)


def _cut(dice: random.Random, name: str) -> Request:
    """A sound request that ends anywhere."""
    whole = sound(dice).parts[0]
    return Request(name, (whole[: dice.randrange(len(whole))],), answers=0)


# Family: how often among all, and how one is made.
FAMILIES: Final[dict[str, tuple[float, Callable[[random.Random, str], Request]]]] = {
    "noise": (3, _noise),
    "line": (2, _line),
    "headers": (3, _headers),
    "content type": (3, _content_type),
    "multipart": (4, _multipart),
    "part headers": (3, _part_headers),
    "length": (3, _length),
    "chunks": (4, _chunks),
    "file": (4, _file),
    "dataset": (4, _dataset),
    "bomb": (0.4, _bomb),
    "many parts": (0.1, _many_parts),
    "token": (2, _token),
    "slow": (0.4, _slow),
    "pipelined": (1, _pipelined),
    "cut": (2, _cut),
    "sound": (1, _kept),
}
