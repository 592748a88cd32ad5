"""What a hostile DICOMweb service answers to QIDO-RS and WADO-RS, one family after the other."""

import gzip
import json
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tests.fuzz import requests
from tests.fuzz.datasets import (
    HOSTILE_UIDS,
    PIXELS,
    Instance,
    bomb,
    header,
    malformed,
    with_hostile_uids,
    with_odd_charset,
)
from tests.fuzz.mutate import mutated
from tests.fuzz.source import Answer, Asked, Held, Play, Source

KIND: Final = "web"
STAGES: Final = ("series", "instances", "files")
JSON: Final = b"application/dicom+json"
EDGE: Final = b'multipart/related; type="application/dicom"; boundary=edge'

PATH: Final = re.compile(
    r"/dicom-web/studies/(?P<study>[^/]+)"
    r"(?:(?P<list>/series)|/series/(?P<series>[^/]+)(?P<rest>/instances(?:/(?P<sop>[^/]+))?)?)"
)


class Service(Source):
    """A DICOMweb service over HTTP; it closes each connection after one answer."""

    kind = KIND

    def converse(self, line: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = line.recv(1 << 16)
            if not part:
                return
            head += part
        asked = _asked(head.split(b" ", 2)[1].decode("latin-1"))
        play = self.part_of(asked)
        if play is None:
            line.sendall(reply(b"[]"))
        elif play.stage == asked.stage:
            self.play_out(line, play, asked)
        else:
            line.sendall(sound_reply(asked, play))


def _asked(target: str) -> Asked:
    found = PATH.fullmatch(unquote(urlsplit(target).path))
    if found is None:
        raise ValueError(target)
    if found["list"]:
        return Asked("series", found["study"])
    if found["rest"] == "/instances":
        return Asked("instances", found["study"], found["series"])
    return Asked("files", found["study"], found["series"])


def reply(
    content: bytes,
    kind: bytes = JSON,
    *more: bytes,
    status: bytes = b"HTTP/1.1 200 OK",
    length: bytes | None = b"",
) -> bytes:
    """An answer; `length` where it lies about its own, None where it tells none."""
    lines = [status, b"Connection: close", b"Content-Type: " + kind, *more]
    if length is not None:
        lines.append(b"Content-Length: " + (length or str(len(content)).encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def sound_reply(asked: Asked, play: Play) -> bytes:
    """What a service answers that has the study."""
    if asked.stage == "files":
        given = play.instance or instance_of(play.held)
        return reply(requests.body(requests.part(requests.file(given))), EDGE)
    return reply(json.dumps(listed(asked, play.held)).encode())


def instance_of(held: Held) -> Instance:
    """The instance that is handed over."""
    dataset = b"".join(header(held.study, held.series, held.offered)) + PIXELS
    return Instance(held.offered, dataset)


def listed(asked: Asked, held: Held) -> list[dict[str, Any]]:
    """What a search finds, in the DICOM JSON model."""
    series = {"0020000E": _element("UI", held.series), "00080060": _element("CS", "MR")}
    if asked.stage == "series":
        return [series | {"00201209": _element("IS", 3)}]
    return [series | {"00080018": _element("UI", sop)} for sop in held.sops]


def _element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def one(dice: random.Random) -> Play:
    """Draw an input of any family."""
    families = tuple(FAMILIES)
    name = dice.choices(families, [FAMILIES[each][0] for each in families])[0]
    return FAMILIES[name][1](dice, name)


# --- families ---


def _play(
    dice: random.Random, name: str, answer: Answer, stage: str = "", *, silent: bool = False
) -> Play:
    return Play(name, KIND, stage or dice.choice(STAGES), answer, Held.of(dice), silent)


def _said(*parts: bytes) -> Answer:
    return lambda _asked, _held: iter(parts)


def _usual(asked: Asked, held: Held) -> bytes:
    return sound_reply(asked, Play("", KIND, "", _said(), held))


def _noise(dice: random.Random, name: str) -> Play:
    drawn = dice.random()
    if drawn < 0.3:
        return _play(dice, name, _said(dice.randbytes(dice.choice((0, 1, 100, 70_000)))))
    return _play(dice, name, lambda asked, held: iter([mutated(_usual(asked, held), dice)]))


def _status(dice: random.Random, name: str) -> Play:
    status = dice.choice(
        (b"HTTP/1.1 204 None", b"HTTP/1.1 206 Some", b"HTTP/1.1 304 Same", b"HTTP/1.1 401 No",
         b"HTTP/1.1 404 Not here", b"HTTP/1.1 429 Later", b"HTTP/1.1 500 PLANTED",
         b"HTTP/1.1 999 ?",
         b"HTTP/1.1 301 There\r\nLocation: file:///etc/passwd", b"HTTP/1.1 -1 x", b"HTTP/1.1",
         b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/", b"HTTP/9.9 200 OK", b"",
         b"HTTP/1.1 200 " + b"O" * 70_000, b"HTTP/1.1 1e2 x", b"ICY 200 OK",
         b"HTTP/1.1 100 Go on\r\n\r\n" * 50 + b"HTTP/1.1 200 OK")
    )  # fmt: skip
    return _play(dice, name, _said(reply(b"[]", status=status)))


def _headers(dice: random.Random, name: str) -> Play:
    """Headers that are many, long, or lie about the body."""
    length = dice.choice((b"", b"", b"-1", b"0", b"1", b"9" * 30, b"5, 6", b"x"))
    more = dice.choice(
        ([], [b"X: y"] * 150, [b"X: " + b"y" * 70_000], [b"Transfer-Encoding: chunked"],
         [b"Transfer-Encoding: gzip"], [b"Content-Encoding: gzip"], [b"Content-Encoding: br, zstd"],
         [b"Content-Encoding: " + b"gzip, " * 100], [b"no colon"], [b"\0: \xff"],
         [b"Set-Cookie: PLANTED=1"], [b"Content-Type: " + b"a;" * 20_000])
    )  # fmt: skip

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        head, _, content = _usual(asked, held).partition(b"\r\n\r\n")
        kind = EDGE if b"multipart" in head else JSON
        yield reply(content, kind, *more, length=length)

    return _play(dice, name, answer)


def _chunks(dice: random.Random, name: str) -> Play:
    """Chunks that lie about their sizes, or bring endless words along."""
    asked_for = requests.FAMILIES["chunks"][1](dice, name)
    _head, _, content = asked_for.parts[0].partition(b"\r\n\r\n")
    whole = reply(content, EDGE, b"Transfer-Encoding: chunked", length=None)
    return _play(dice, name, _said(whole), "files")


def _inflating(dice: random.Random, name: str) -> Play:
    """An answer that nobody asked to be compressed, small on the wire."""
    inner = dice.choice(
        (
            b"[" + b" " * (100 << 20),
            b"[" + b"{}," * (10 << 20),
            b"--edge\r\n\r\n" + bytes(100 << 20),
        )
    )
    packed = gzip.compress(inner, 1)
    if dice.random() < 0.3:
        packed = gzip.compress(packed, 9)
    encoding = b"Content-Encoding: " + dice.choice((b"gzip", b"gzip, gzip", b"deflate"))
    return _play(
        dice,
        name,
        lambda asked, _held: iter(
            [reply(packed, EDGE if asked.stage == "files" else JSON, encoding)]
        ),
    )


STRANGE_VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 1e308, float("nan"), 10**400, "", "x" * 100_000, [], {}, [[]], {"Value": 1},
    {"Value": {}}, {"Value": [None]}, {"Value": [[1]]}, {"Value": [{"Alphabetic": "PLANTED^NAME"}]},
    {"vr": 5, "Value": ["\ud800"]}, {"Value": "\0"},
    *({"vr": "UI", "Value": [each]} for each in HOSTILE_UIDS[:-1]),
    {"vr": "IS", "Value": ["9" * 5000]}, {"vr": "IS", "Value": [1.5]}, {"vr": "IS", "Value": [-3]},
    {"vr": "IS", "Value": [10**9]}, {"vr": "IS", "Value": ["\u0663"]},
)  # fmt: skip


def _json(dice: random.Random, name: str) -> Play:
    """JSON of other kinds, depths and sizes than that of a search."""

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        found: Any = listed(asked, held)
        drawn = dice.randrange(7)
        if drawn < 3:
            item = dice.choice(found)
            item[dice.choice([*item, "00080016"])] = dice.choice(STRANGE_VALUES)
        elif drawn == 3:
            found.insert(dice.randrange(2), dice.choice(STRANGE_VALUES))
        elif drawn == 4:
            found = dice.choice(STRANGE_VALUES)
        content = json.dumps(found).encode()
        if drawn == 5:
            deep = dice.choice((100, 5000, 200_000))
            content = dice.choice((b"[" * deep, b'{"a":' * deep, b"[" * deep + b"]" * deep))
        elif drawn == 6:
            content = mutated(content, dice)
        yield reply(content)

    return _play(dice, name, answer, dice.choice(("series", "instances")))


def _wide(dice: random.Random, name: str) -> Play:
    """JSON that is small on the wire, and large in memory."""
    unit, times = dice.choice(
        ((b"{},", 10 << 20), (b"[],", 10 << 20), (b"1,", 12 << 20), (b'{"a":{}},', 3 << 20))
    )

    def answer(_asked: Asked, _held: Held) -> Iterator[bytes]:
        content = b"[" + unit * times + b"{}]"
        if dice.random() < 0.3:  # in one item
            content = b'[{"00081140":' + content + b"}]"
        yield reply(content)

    return _play(dice, name, answer, dice.choice(("series", "instances")))


def _many(dice: random.Random, name: str) -> Play:
    """More objects than a study has; or always another one, page by page."""
    drawn = dice.random()

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        (item, *_) = listed(asked, held)
        tag = "0020000E" if asked.stage == "series" else "00080018"
        number = 60_000 if drawn < 0.3 else 1
        start = dice.randrange(1, 1 << 60)
        found = [item | {tag: _element("UI", f"1.2.{start + each}")} for each in range(number)]
        yield reply(json.dumps(found).encode())

    return _play(dice, name, answer, dice.choice(("series", "instances")))


def _endless(dice: random.Random, name: str) -> Play:
    """Answers that never come to their end, as fast as they are taken."""
    piece = 1 << 16
    files = dice.choice(
        (
            (requests.part(bytes(10))[:-4], bytes(piece)),  # a part
            (b"--edge\r\n" + requests.DICOM + b"\r\n", bytes(128) + b"DICM" + bytes(piece)),
            (b"", requests.part(b"no file") * 100),
            (b"", b"\r\n" * piece),  # before the first part
            (requests.body(requests.part(b"")), b" " * piece),  # after the last
            (b"--edge\r\nX: ", b"y" * piece),
        )
    )
    lists = dice.choice(((b"[", b" " * piece), (b'["', b"a" * piece), (b"[", b"{}," * piece)))
    drawn = dice.randrange(6)

    def answer(asked: Asked, _held: Held) -> Iterator[bytes]:
        begun, on = files if asked.stage == "files" else lists
        kind = EDGE if asked.stage == "files" else JSON
        if drawn == 0:
            yield b"HTTP/1.1 200 OK\r\nX: "
            yield from repeat(b"y" * piece)
        elif drawn == 1:
            yield from repeat(b"HTTP/1.1 100 Go on\r\n\r\n" * 1000)
        elif drawn == 2:
            yield reply(b"", kind, b"Transfer-Encoding: chunked", length=None)
            yield from repeat(b"1" * piece)
        elif drawn == 3:
            yield reply(b"0\r\n", kind, b"Transfer-Encoding: chunked", length=None)
            yield from repeat(b"X: y\r\n" * 1000)
        else:
            yield reply(begun, kind, length=None)
            yield from repeat(on)

    return _play(dice, name, answer)


def _multipart(dice: random.Random, name: str) -> Play:
    """Bodies as senders spoil them: their multipart, the headers of parts, the files in them."""
    family = dice.choice(("multipart", "part headers", "file", "content type"))
    request = requests.FAMILIES[family][1](dice, name).parts[0]
    head, _, content = request.partition(b"\r\n\r\n")
    told = re.search(rb"\r\nContent-Type: ([^\r]*)", head)
    return _play(dice, name, _said(reply(content, told[1] if told else b"")), "files")


def _instance(dice: random.Random, name: str) -> Play:
    """Another instance than the one that was asked for, or one that cannot be read."""
    made = dice.choice((malformed, malformed, with_hostile_uids, with_odd_charset, bomb))(dice)
    play = _play(dice, name, _said(), "none")
    if dice.random() < 0.6:  # it calls itself what was asked for
        made = Instance(play.held.offered, made.dataset, made.syntax)
    play.instance = made
    return play


def _cut(dice: random.Random, name: str) -> Play:
    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        whole = _usual(asked, held)
        yield whole[: dice.randrange(len(whole))]

    return _play(dice, name, answer)


def _slow(dice: random.Random, name: str) -> Play:
    """Answers that stop, or come by a byte at a time for longer than anybody should wait."""
    drips = dice.random() < 0.5

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        whole = _usual(asked, held)
        at = dice.randrange(len(whole))
        yield whole[:at]
        for each in whole[at:] if drips else b"":
            time.sleep(0.5)
            yield bytes([each])

    return _play(dice, name, answer, silent=True)


def _sound(dice: random.Random, name: str) -> Play:
    return _play(dice, name, _said(), "none")


FAMILIES: Final[Mapping[str, tuple[float, Callable[[random.Random, str], Play]]]] = {
    "web: noise": (3, _noise),
    "web: status": (3, _status),
    "web: headers": (3, _headers),
    "web: chunks": (2, _chunks),
    "web: inflating": (0.5, _inflating),
    "web: JSON": (5, _json),
    "web: wide": (0.3, _wide),
    "web: many": (0.4, _many),
    "web: endless": (1, _endless),
    "web: multipart": (4, _multipart),
    "web: instance": (4, _instance),
    "web: cut": (2, _cut),
    "web: slow": (0.2, _slow),
    "sound": (1, _sound),
}
