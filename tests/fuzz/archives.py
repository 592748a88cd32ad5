"""What a hostile archive answers to C-FIND, C-GET and C-MOVE, one family after the other.

It speaks the upper layer by hand (PS3.8 9.3, PS3.7 9.3), so that anything in it may be wrong.
"""

import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from itertools import repeat
from typing import Final

from pydicom.filereader import read_dataset

from tests.fuzz import wire
from tests.fuzz.datasets import (
    HOSTILE_UIDS,
    Instance,
    bomb,
    deflated,
    malformed,
    nested,
    new_uids,
    sound_instance,
    with_hostile_uids,
    with_odd_charset,
)
from tests.fuzz.mutate import mutated
from tests.fuzz.services import instance_of
from tests.fuzz.sessions import messages
from tests.fuzz.source import Answer, Asked, Held, Play, Source

KIND: Final = "archive"
STAGES: Final = ("series", "instances", "files")

MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"

# PS3.7 9.3: fields of a command
SOP_CLASS, COMMAND, MESSAGE, ANSWERED, DATASET, STATUS = (
    0x0002,
    0x0100,
    0x0110,
    0x0120,
    0x0800,
    0x0900,
)
C_FIND, C_GET, RESPONSE = 0x0020, 0x0010, 0x8000
NO_DATASET: Final = b"\x01\x01"
PENDING, SUCCESS = 0xFF00, 0x0000


class Archive(Source):
    """An application entity with C-FIND, and with C-GET or C-MOVE."""

    kind = KIND

    def __init__(self, name: str, port: int, way: str) -> None:
        super().__init__(name, port)
        self._refuses = {GET, MOVE} - {way}

    def converse(self, line: socket.socket) -> None:
        proposal = _pdu(line)
        play = self.play
        if play is not None and play.stage == "association":
            self.play_out(line, play, Asked("association", proposal=proposal))
            return
        strange = play.syntax if play is not None else ""
        line.sendall(accepted(proposal, self._refuses, strange))
        contexts = {
            at: (name, strange or usual) for at, (name, usual) in proposed(proposal).items()
        }
        for context, message, identifier in _requests(line):
            asked = _asked(context, message, identifier, contexts)
            play = self.part_of(asked)
            if play is not None and play.stage == asked.stage:
                self.play_out(line, play, asked)
                return
            replies = [response(asked, SUCCESS)]
            if play is not None:
                replies = sound_replies(asked, play.held, play.instance or instance_of(play.held))
            for each in replies:
                line.sendall(each)


def _pdu(line: socket.socket) -> bytes:
    head = _exactly(line, 6)
    return head + _exactly(line, int.from_bytes(head[2:], "big"))


def _exactly(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = line.recv(size - len(found))
        if not part:
            raise ConnectionResetError
        found += part
    return found


def proposed(proposal: bytes) -> dict[int, tuple[str, str]]:
    """Abstract and first transfer syntax of each context of an A-ASSOCIATE-RQ."""
    found = {}
    for kind, body in _items(proposal[74:]):
        if kind == 0x20:
            names = [each.decode() for _kind, each in _items(body[4:])]
            found[body[0]] = (names[0], names[1])
    return found


def accepted(proposal: bytes, refuses: set[str], syntax: str = "") -> bytes:
    """An A-ASSOCIATE-AC that accepts all contexts but some, and all roles.

    In the first transfer syntax that was proposed of each, or in one that perhaps was not.
    """
    items = [wire.item(0x10, b"1.2.840.10008.3.1.1.1")]
    for at, (abstract, transfer) in proposed(proposal).items():
        result = 3 if abstract in refuses else 0
        chosen = wire.item(0x40, (syntax or transfer).encode())
        items.append(wire.item(0x21, bytes([at, 0, result, 0]) + chosen))
    user = next(body for kind, body in _items(proposal[74:]) if kind == 0x50)
    roles = [wire.item(kind, body) for kind, body in _items(user) if kind == 0x54]
    told = wire.item(0x51, struct.pack(">L", 16384)) + wire.item(0x52, b"1.2.3.4") + b"".join(roles)
    items.append(wire.item(0x50, told))
    return wire.pdu(wire.ASSOCIATE_AC, proposal[6:74] + b"".join(items))


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        kind, _, size = struct.unpack_from(">BBH", body)
        yield kind, body[4 : 4 + size]
        body = body[4 + size :]


def _requests(line: socket.socket) -> Iterator[tuple[int, dict[int, bytes], bytes]]:
    """Requests for an answer: context, command and identifier; until the listener leaves."""
    message, identifier = b"", b""
    while True:
        pdu = _pdu(line)
        if pdu[0] == wire.RELEASE_RQ:
            line.sendall(wire.pdu(wire.RELEASE_RP, bytes(4)))
        if pdu[0] != wire.P_DATA:
            return
        at = 6
        while at < len(pdu):
            size, context, control = struct.unpack_from(">LBB", pdu, at)
            content = pdu[at + 6 : at + 4 + size]
            at += 4 + size
            if control & 1:
                message += content
            else:
                identifier += content
            fields = _fields(message)
            if control == 3 and fields[DATASET] == NO_DATASET:  # a response to a C-STORE
                message = b""
            elif control == 2:
                yield context, fields, identifier
                message, identifier = b"", b""


def _fields(message: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(message):
        _group, number, size = struct.unpack_from("<HHL", message, at)
        found[number] = message[at + 8 : at + 8 + size]
        at += 8 + size
    return found


def _asked(
    context: int,
    message: Mapping[int, bytes],
    identifier: bytes,
    contexts: Mapping[int, tuple[str, str]],
) -> Asked:
    syntax = contexts[context][1]
    if syntax == wire.DEFLATED:
        identifier = zlib.decompress(identifier, -zlib.MAX_WBITS)
    wanted = read_dataset(BytesIO(identifier), syntax == wire.IMPLICIT, True)
    stage = "files"
    if message[COMMAND] == struct.pack("<H", C_FIND):
        stage = "series" if wanted.QueryRetrieveLevel == "SERIES" else "instances"
    storing = next((at for at, (name, _) in contexts.items() if name == wire.MR_IMAGE), 0)
    series = str(wanted.get("SeriesInstanceUID") or "")
    return Asked(stage, str(wanted.StudyInstanceUID), series, message, context, storing)


def response(
    asked: Asked, status: int, identifier: bytes | None = None, **changes: bytes | None
) -> bytes:
    """A response to a request; `changes` are fields by number, as `x0900`, None for absent ones."""
    told = command(asked, status, has_identifier=identifier is not None, **changes)
    return b"".join(messages(asked.context, told, identifier))


def command(
    asked: Asked, status: int, *, has_identifier: bool = True, **changes: bytes | None
) -> bytes:
    """The command of a response."""
    (asking,) = struct.unpack("<H", asked.message[COMMAND])
    fields: dict[int, bytes] = {
        SOP_CLASS: asked.message[SOP_CLASS],
        COMMAND: struct.pack("<H", asking | RESPONSE),
        ANSWERED: asked.message[MESSAGE],
        DATASET: b"\0\0" if has_identifier else NO_DATASET,
        STATUS: struct.pack("<H", status),
    }
    for name, value in changes.items():
        number = int(name[1:], 16)
        if value is None:
            fields.pop(number, None)
        else:
            fields[number] = value
    return wire.command(sorted(fields.items()))


def match(asked: Asked, held: Held, sop: str = "") -> bytes:
    """An identifier that matches, with implicit VR."""
    level = b"SERIES" if asked.stage == "series" else b"IMAGE "
    elements = [
        wire.implicit(0x00080016, wire.even(wire.MR_IMAGE)),
        *([wire.implicit(0x00080018, wire.even(sop))] if sop else []),
        wire.implicit(0x00080052, level),
        wire.implicit(0x00080060, b"MR"),
        wire.implicit(0x0020000D, wire.even(held.study)),
        wire.implicit(0x0020000E, wire.even(held.series)),
        wire.implicit(0x00201209, b"3 "),
    ]
    return b"".join(elements)


def sound_replies(asked: Asked, held: Held, given: Instance) -> Iterator[bytes]:
    """What an archive answers that has the study."""
    if asked.stage == "series":
        yield response(asked, PENDING, match(asked, held))
    elif asked.stage == "instances":
        for sop in held.sops:
            yield response(asked, PENDING, match(asked, held, sop))
    elif asked.message[COMMAND] == struct.pack("<H", C_GET):
        yield stored(asked, given)
    yield response(asked, SUCCESS, x1021=b"\1\0" if asked.stage == "files" else None)


def stored(asked: Asked, given: Instance, context: int = 0) -> bytes:
    """A C-STORE request within a C-GET."""
    asking = wire.command(wire.store_fields(given.sop).items())
    return b"".join(messages(context or asked.storing, asking, given.dataset))


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


def _usual(asked: Asked, held: Held) -> list[bytes]:
    return list(sound_replies(asked, held, instance_of(held)))


def _noise(dice: random.Random, name: str) -> Play:
    noise = dice.randbytes(dice.choice((0, 1, 6, 80, 3000)))
    stage = dice.choice(("association", *STAGES))
    if dice.random() < 0.4 or stage == "association":
        return _play(dice, name, lambda _asked, _held: iter([noise]), stage)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        yield mutated(b"".join(_usual(asked, held)), dice)

    return _play(dice, name, answer, stage)


def _association(dice: random.Random, name: str) -> Play:
    """Answers to a proposal: refusals, lies, and contexts that nobody proposed."""
    drawn = dice.randrange(9)

    def answer(asked: Asked, _held: Held) -> Iterator[bytes]:
        sound = accepted(asked.proposal, {MOVE})
        if drawn == 0:
            yield wire.pdu(wire.ASSOCIATE_RJ, bytes([0, *(dice.randrange(256) for _ in range(3))]))
        elif drawn == 1:
            yield wire.pdu(wire.ABORT, bytes([0, 0, 2, dice.randrange(256)]))
        elif drawn == 2:
            yield wire.pdu(dice.randrange(1, 12), sound[6:], dice.choice((None, 3, 1 << 31)))
        elif drawn == 3:
            strange = dice.choice((wire.BIG_ENDIAN, wire.JPEG_2000, *HOSTILE_UIDS[:-1]))
            yield accepted(asked.proposal, set(), strange)
        elif drawn == 4:
            yield sound.replace(b"\x51\0\0\4\0\0\x40\0", b"\x51\0\0\4" + dice.randbytes(4))
        elif drawn == 5:
            yield wire.pdu(wire.ASSOCIATE_AC, sound[6:74] + wire.item(0x21, b"") * 20_000)
        elif drawn == 6:
            yield sound * 3
        elif drawn == 7:
            yield asked.proposal
        else:
            yield mutated(sound, dice)

    return _play(dice, name, answer, "association")


def _commands(dice: random.Random, name: str) -> Play:
    """Commands that are no answers, lack what they need, or tell absurd numbers."""
    drawn = dice.randrange(6)
    number = dice.choice((0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x0902, 0x1020, 0x1021))
    value = dice.choice(
        (None, b"", b"\0", b"\xff\xff", dice.randbytes(70), wire.even(dice.choice(HOSTILE_UIDS)))
    )
    service = dice.choice((0x0001, 0x0030, 0x0100, 0x0110, 0x0020, 0x0FFF, 0x8001, 0x8030, 0xFFFF))
    status = dice.choice(
        (0x0000, 0x0001, 0x0110, 0xA700, 0xA900, 0xB000, 0xC001, 0xFE00, 0xFF01, 0xFFFF)
    )

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        if drawn == 0:
            yield response(asked, PENDING, match(asked, held), **{f"x{number:04x}": value})
        elif drawn == 1:
            yield response(asked, status, dice.choice((None, b"", match(asked, held))))
        elif drawn == 2:
            yield response(asked, PENDING, None)
        elif drawn == 3:
            yield response(asked, PENDING, match(asked, held), x0100=struct.pack("<H", service))
        elif drawn == 4:
            numbers = {
                f"x102{at}": dice.choice((b"\xff\xff", b"\0\0", b"", b"\1\0\1\0"))
                for at in range(4)
            }
            yield response(asked, dice.choice((PENDING, 0xB000)), None, **numbers)
        else:
            yield stored(asked, sound_instance(dice), dice.choice((1, asked.context, 99)))
        yield from _usual(asked, held)

    return _play(dice, name, answer)


def _identifiers(dice: random.Random, name: str) -> Play:
    """Matches that cannot be read, are none, or are of something else."""
    drawn = dice.randrange(7)
    uid = dice.choice(HOSTILE_UIDS)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        sound = match(asked, held, held.offered)
        if drawn == 0:
            made = mutated(sound, dice)
        elif drawn == 1:
            made = sound + nested(dice, 0x00400275)
        elif drawn == 2:
            tag = dice.choice((0x00080018, 0x0020000D, 0x0020000E, 0x00080016))
            made = wire.implicit(0x00080005, b"ISO_IR 192") + wire.implicit(tag, wire.even(uid))
        elif drawn == 3:
            made = sound + wire.implicit(
                0x00201209, dice.choice((b"-3", b"1e9 ", b"9" * 5000, b"1\\2 ", b"\xff\xff"))
            )
        elif drawn == 4:
            made = wire.implicit(0x00080005, b"\\" * 1000) + sound
        elif drawn == 5:
            made = deflated(bytes(50 << 20))
        else:
            made = sound + wire.implicit(0x00400275, wire.ITEM * 200_000)
        yield response(asked, PENDING, made)
        yield from _usual(asked, held)

    return _play(dice, name, answer, dice.choice(("series", "instances")))


def _inflating(dice: random.Random, name: str) -> Play:
    """Matches in a transfer syntax that makes much of little, whether it was proposed or not."""
    large = wire.explicit(0x00081195, b"UT", bytes(300 << 20))

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        yield response(asked, PENDING, deflated(large))
        yield from _usual(asked, held)

    play = _play(dice, name, answer, dice.choice(("series", "instances")))
    play.syntax = wire.DEFLATED
    return play


def _endless(dice: random.Random, name: str) -> Play:
    """Answers that never come to their end, as fast as they are taken."""
    drawn = dice.randrange(7)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        whole = response(asked, PENDING, match(asked, held, held.offered))
        if drawn == 0:
            yield from repeat(whole)
        elif drawn == 1:
            while True:
                other = Held(held.study, new_uids(dice)[0], *new_uids(dice))
                yield response(asked, PENDING, match(asked, other, other.offered))
        elif drawn == 2:  # a command that is never whole
            yield from repeat(wire.data(wire.fragment(asked.context, 1, bytes(16_000))))
        elif drawn == 3:  # an identifier
            yield wire.data(wire.fragment(asked.context, 3, command(asked, PENDING)))
            yield from repeat(wire.data(wire.fragment(asked.context, 0, bytes(16_000))))
        elif drawn == 4:
            yield from repeat(wire.data(wire.fragment(asked.context, 0, b"")) * 500)
        elif drawn == 5:
            yield wire.pdu(wire.P_DATA, b"", 0xFFFFFFF0)
            yield from repeat(bytes(1 << 16))
        else:
            yield from repeat(response(asked, PENDING, None, x1020=b"\1\0", x1021=b"\1\0"))

    return _play(dice, name, answer)


def _handing_over(dice: random.Random, name: str) -> Play:
    """C-STORE requests without an end: of what was asked for, of anything else, of nothing."""
    drawn = dice.randrange(4)

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        given = instance_of(held)
        while True:
            if drawn == 0:
                yield stored(asked, given)
            elif drawn == 1:
                yield stored(asked, sound_instance(dice))
            elif drawn == 2:
                yield stored(asked, malformed(dice))
            else:
                yield stored(asked, given, 99)

    return _play(dice, name, answer, "files")


def _instance(dice: random.Random, name: str) -> Play:
    """Another instance than the one that was asked for, or one that cannot be read."""
    made = dice.choice((malformed, malformed, with_hostile_uids, with_odd_charset, bomb))(dice)
    play = _play(dice, name, lambda _asked, _held: iter(()), "none")
    if dice.random() < 0.6:  # it calls itself what was asked for
        made = Instance(play.held.offered, made.dataset, made.syntax)
    play.instance = made
    return play


def _cut(dice: random.Random, name: str) -> Play:
    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        whole = b"".join(_usual(asked, held))
        yield whole[: dice.randrange(len(whole))]
        if dice.random() < 0.3:
            yield wire.pdu(dice.choice((wire.ABORT, wire.RELEASE_RQ, wire.RELEASE_RP)), bytes(4))

    return _play(dice, name, answer)


def _slow(dice: random.Random, name: str) -> Play:
    """Answers that stop, or come by a byte at a time for longer than anybody should wait."""
    drips = dice.random() < 0.5

    def answer(asked: Asked, held: Held) -> Iterator[bytes]:
        whole = b"".join(_usual(asked, held))
        at = dice.randrange(len(whole))
        yield whole[:at]
        for each in whole[at:] if drips else b"":
            time.sleep(0.5)
            yield bytes([each])

    return _play(dice, name, answer, silent=True)


def _sound(dice: random.Random, name: str) -> Play:
    return _play(dice, name, lambda _asked, _held: iter(()), "none")


FAMILIES: Final[Mapping[str, tuple[float, Callable[[random.Random, str], Play]]]] = {
    "archive: noise": (4, _noise),
    "archive: association": (3, _association),
    "archive: commands": (4, _commands),
    "archive: identifiers": (4, _identifiers),
    "archive: inflating": (0.2, _inflating),
    "archive: endless": (1, _endless),
    "archive: handing over": (0.5, _handing_over),
    "archive: instance": (4, _instance),
    "archive: cut": (2, _cut),
    "archive: slow": (0.2, _slow),
    "sound": (1, _sound),
}
