"""What a hostile or broken peer says to a listener: one family of inputs after the other.

Everything is drawn from one `random.Random`, so a seed names a run.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.fuzz import wire
from tests.fuzz.datasets import (
    HOSTILE_UIDS,
    PIXELS,
    Instance,
    bomb,
    header,
    malformed,
    new_uids,
    sound_instance,
    with_hostile_uids,
    with_odd_charset,
)
from tests.fuzz.mutate import mutated

CONTEXT_OF: Final = {
    wire.EXPLICIT: wire.PLAIN,
    wire.IMPLICIT: wire.IMPLICITLY,
    wire.DEFLATED: wire.DEFLATING,
    wire.BIG_ENDIAN: wire.BIG,
    wire.JPEG_2000: wire.ENCAPSULATED,
}
"""The presentation context of each transfer syntax that is proposed for images."""

HOSTILE_TITLES: Final = (
    b"",
    b" " * 16,
    b"\0" * 16,
    b"MONRO\0\0\0\0\0\0\0\0\0\0\0",
    b"MONRO\nERROR x: y",
    b"\xff" * 16,
    b"A\\B",
    b"../../../../etc/",
    b"%s%s%n",
    "ÄÖÜ".encode(),
    b"\x1b[31mRED",
)


@dataclass(frozen=True)
class Session:
    """One input.

    Attributes:
        family: which kind of attempt it is.
        proposal: the first PDU, or what stands in its place.
        parts: what is sent after an answer to that, each by itself.
        statuses: answers to wait for before the connection is ended.
    """

    family: str
    proposal: bytes
    parts: tuple[bytes, ...] = ()
    statuses: int = 1


def one(dice: random.Random) -> Session:
    """Draw an input of any family."""
    families = tuple(FAMILIES)
    name = dice.choices(families, [FAMILIES[each][0] for each in families])[0]
    return FAMILIES[name][1](dice, name)


def messages(
    context: int, fields: bytes, dataset: bytes | None, dice: random.Random | None = None
) -> list[bytes]:
    """PDUs of one message; its dataset in random fragments where there are dice."""
    found = [wire.data(wire.fragment(context, 3, fields))]
    if dataset is None:
        return found
    size = 16384 if dice is None else dice.choice((1, 7, 100, 4096, 16384, 200_000))
    size = max(size, len(dataset) // 50)
    pieces = [dataset[at : at + size] for at in range(0, len(dataset), size)] or [b""]
    for at, piece in enumerate(pieces):
        last = 2 if at == len(pieces) - 1 else 0
        found.append(wire.data(wire.fragment(context, last, piece)))
    return found


def stored(
    sop: str, dataset: bytes, context: int = wire.PLAIN, dice: random.Random | None = None
) -> list[bytes]:
    """PDUs of one C-STORE."""
    return messages(context, wire.command(wire.store_fields(sop).items()), dataset, dice)


def sound(dice: random.Random) -> Session:
    """An instance that must be kept."""
    instance = sound_instance(dice)
    return Session("sound", wire.proposal(), tuple(stored(instance.sop, instance.dataset)))


# --- families ---


def _noise(dice: random.Random, name: str) -> Session:
    return Session(name, dice.randbytes(dice.choice((1, 5, 6, 7, 80, 3000))))


def _unknown_pdu(dice: random.Random, name: str) -> Session:
    kind = dice.choice((0, 2, 3, 5, 6, 7, 8, 9, 0x7F, 0xFF))
    body = dice.randbytes(dice.choice((0, 1, 4, 500)))
    length = dice.choice((None, 0, 3, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
    strange = wire.pdu(kind, body, length)
    if dice.random() < 0.5:
        return Session(name, strange)
    return Session(name, wire.proposal(), (strange,))


def _mutated_session(dice: random.Random, name: str) -> Session:
    """A sound session whose bytes were changed anywhere."""
    whole = sound(dice)
    spoiled = [mutated(part, dice) if dice.random() < 0.5 else part for part in whole.parts]
    if dice.random() < 0.4:
        dice.shuffle(spoiled)
    proposal = mutated(whole.proposal, dice) if dice.random() < 0.4 else whole.proposal
    return Session(name, proposal, tuple(spoiled))


def _proposal(dice: random.Random, name: str) -> Session:
    user = b"".join(dice.choice(USER_ITEMS)(dice) for _ in range(dice.randrange(4)))
    titles = {"called": b"MONRO", "calling": dice.choice(HOSTILE_TITLES)}
    if dice.random() < 0.3:
        titles = {"called": dice.choice(HOSTILE_TITLES), "calling": b"SENDER"}
    if dice.random() < 0.4:
        titles = {"called": b"MONRO", "calling": b"SENDER"}
    contexts: Sequence[tuple[str, Sequence[str]]] = wire.CONTEXTS
    drawn = dice.random()
    if drawn < 0.2:
        contexts = [(dice.choice(HOSTILE_UIDS)[:300], [dice.choice(HOSTILE_UIDS)[:300]])]
    elif drawn < 0.3:
        contexts = []
    elif drawn < 0.4:
        contexts = wire.CONTEXTS * dice.choice((2, 40))
    elif drawn < 0.5:
        contexts = [(wire.MR_IMAGE, [wire.EXPLICIT] * 200)] * dice.choice((1, 128))
    application = dice.choice((b"1.2.840.10008.3.1.1.1", b"", b"1.2.3", b"\xff" * 64))
    proposal = wire.proposal(contexts=contexts, user=user, application=application, **titles)
    echo = messages(wire.ECHO, wire.command(wire.echo_fields().items()), None)
    return Session(name, proposal, tuple(echo))


def _identity(dice: random.Random) -> bytes:
    kind, answer = dice.choice((0, 1, 2, 3, 4, 5, 255)), dice.choice((0, 1, 7))
    secret = dice.randbytes(dice.choice((0, 3, 60000)))
    body = bytes([kind, answer]) + struct.pack(">H", len(secret)) + secret
    return wire.item(0x58, body + struct.pack(">H", dice.choice((0, 5, 65535))))


USER_ITEMS: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    lambda dice: wire.item(0x51, struct.pack(">L", dice.choice((0, 1, 6, 7, 0xFFFFFFFF)))),
    lambda dice: wire.item(0x53, dice.randbytes(4)),
    lambda dice: wire.item(
        0x54, struct.pack(">H", 17) + wire.VERIFICATION.encode() + dice.randbytes(2)
    ),
    lambda dice: wire.item(0x54, struct.pack(">H", 65535) + b"1.2" + dice.randbytes(2)),
    lambda dice: wire.item(0x56, dice.randbytes(dice.randrange(30))),
    lambda dice: wire.item(0x57, dice.randbytes(dice.randrange(30))),
    _identity,
    lambda dice: wire.item(dice.randrange(256), dice.randbytes(8), dice.choice((0, 8, 65535))),
    lambda dice: wire.item(0x55, b"V" * dice.choice((0, 17, 5000))),
)


def _tiny_items(dice: random.Random, name: str) -> Session:
    """As many items as fit: cheap to send, dear to read."""
    each = dice.choice(
        (wire.item(0x40, b""), wire.item(0x20, b""), wire.item(0x50, b""), wire.item(0x30, b"1"))
    )
    body = struct.pack(">HH", 1, 0) + b"MONRO".ljust(16) + b"SENDER".ljust(16) + bytes(32)
    return Session(name, wire.pdu(wire.ASSOCIATE_RQ, body + each * dice.choice((5000, 60_000))))


def _fragments(dice: random.Random, name: str) -> Session:
    """Presentation data values that contradict themselves, each other, or what is going on."""
    study, series, sop = new_uids(dice)
    dataset = b"".join(header(study, series, sop)) + PIXELS
    store = wire.command(wire.store_fields(sop).items())
    echo = wire.command(wire.echo_fields().items())
    values = [
        wire.fragment(wire.PLAIN, 3, store),
        wire.fragment(wire.PLAIN, 0, dataset[:50]),
        wire.fragment(wire.PLAIN, 2, dataset[50:]),
        wire.fragment(wire.ECHO, 3, echo),
    ]
    drawn = dice.randrange(9)
    if drawn == 0:
        dice.shuffle(values)
    elif drawn == 1:
        values[dice.randrange(4)] = wire.fragment(dice.choice((0, 2, 99, 255)), 3, store)
    elif drawn == 2:
        lie = dice.choice((0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
        values[dice.randrange(4)] = wire.fragment(wire.PLAIN, 2, dataset, lie)
    elif drawn == 3:
        values = [wire.fragment(wire.PLAIN, 1, b"")] * dice.choice((10, 30_000))
    elif drawn == 4:
        values = [values[0], *[wire.fragment(wire.PLAIN, 0, b"")] * 30_000, *values[1:]]
    elif drawn == 5:
        values = values[:1] * dice.choice((2, 300)) + values[1:]
    elif drawn == 6:
        values = [wire.fragment(wire.PLAIN, dice.randrange(256), store) for _ in range(5)]
    elif drawn == 7:
        values = [wire.fragment(wire.PLAIN, 2, dataset)] * 20
    else:
        values = [*values[:2], values[3], *values[2:]]
    if dice.random() < 0.5:
        return Session(name, wire.proposal(), (wire.data(*values),))
    return Session(name, wire.proposal(), tuple(wire.data(each) for each in values[:300]))


def _command(dice: random.Random, name: str) -> Session:
    """Command sets with elements that are missing, doubled, absurd, or of another service."""
    _study, _series, sop = new_uids(dice)
    context, fields = dice.choice(
        (
            (wire.ECHO, wire.echo_fields()),
            (wire.PLAIN, wire.store_fields(sop)),
            (wire.COMMITTING, wire.action_fields()),
        )
    )
    listed = list(fields.items())
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(listed))
        number, value = listed[at]
        drawn = dice.randrange(7)
        if drawn == 0 and len(listed) > 1:
            del listed[at]
        elif drawn == 1:
            listed.append((number, value))
        elif drawn == 2:
            listed[at] = (number, dice.randbytes(dice.choice((0, 1, 2, 3, 4, 70, 60_000))))
        elif drawn == 3:
            listed[at] = (number, wire.even(dice.choice(HOSTILE_UIDS)))
        elif drawn == 4:
            listed.append((dice.randrange(65536), dice.randbytes(dice.randrange(9))))
        elif drawn == 5:
            service = dice.choice((0x8001, 0x20, 0x10, 0x21, 0x100, 0x110, 0x120, 0x140, 0x150,
                                   0xFFF, 0x8030, 0xFFFF))  # fmt: skip
            listed = [(0x0100, struct.pack("<H", service)) if n == 0x0100 else (n, v)
                      for n, v in listed]  # fmt: skip
        else:
            listed[at] = (number, value * dice.choice((2, 1000)))
    encoded = wire.command(listed)
    if dice.random() < 0.2:
        encoded = mutated(encoded, dice)
    return Session(name, wire.proposal(), tuple(messages(context, encoded, bytes(20))))


def _uids(dice: random.Random, name: str) -> Session:
    return _storing(name, with_hostile_uids(dice), dice)


def _dataset(dice: random.Random, name: str) -> Session:
    return _storing(name, malformed(dice), dice)


def _bomb(dice: random.Random, name: str) -> Session:
    return _storing(name, bomb(dice))


def _charset(dice: random.Random, name: str) -> Session:
    return _storing(name, with_odd_charset(dice), dice)


def _storing(name: str, instance: Instance, dice: random.Random | None = None) -> Session:
    """A C-STORE; what nobody agreed on comes in a context that there is not."""
    context = CONTEXT_OF.get(instance.syntax, 99)
    parts = stored(instance.sop, instance.dataset, context, dice)
    return Session(name, wire.proposal(), tuple(parts))


def _commitment(dice: random.Random, name: str) -> Session:
    """Requests for storage commitment: their dataset is read for good."""
    uid = dice.choice((*HOSTILE_UIDS[:-1], "1.2.3.4.5"))
    reference = wire.implicit(0x00081150, wire.even(wire.MR_IMAGE)) + wire.implicit(
        0x00081155, wire.even(uid)
    )
    entry = struct.pack("<HHL", 0xFFFE, 0xE000, len(reference)) + reference
    many = (entry if dice.random() < 0.5 else wire.ITEM) * dice.choice((1, 5, 2000, 30_000))
    transaction = dice.choice((uid, new_uids(dice)[0]))
    dataset = wire.implicit(0x00081195, wire.even(transaction)) + (
        wire.implicit(0x00081199, many)
        if dice.random() < 0.5
        else wire.implicit(0x00081199, many + wire.CLOSE_SEQUENCE, wire.UNDEFINED)
    )
    if dice.random() < 0.3:
        dataset = mutated(dataset, dice)
    asked = wire.command(wire.action_fields().items())
    return Session(name, wire.proposal(), tuple(messages(wire.COMMITTING, asked, dataset, dice)))


def _interleaved(dice: random.Random, name: str) -> Session:
    """Several sound messages, their PDUs shuffled together, or many at once unread."""
    lists = [list(sound(dice).parts) for _ in range(dice.randrange(2, 5))]
    mixed = []
    while lists:
        chosen = dice.choice(lists)
        mixed.append(chosen.pop(0))
        if not chosen:
            lists.remove(chosen)
    if dice.random() < 0.3:
        echo = messages(wire.ECHO, wire.command(wire.echo_fields().items()), None)
        mixed = echo * dice.choice((5, 200))
    return Session(name, wire.proposal(), tuple(mixed), statuses=2)


def _cut(dice: random.Random, name: str) -> Session:
    """A sound session that ends anywhere."""
    whole = sound(dice)
    stream = b"".join(whole.parts)
    return Session(name, whole.proposal, (stream[: dice.randrange(len(stream))],), statuses=0)


def _kept(dice: random.Random, _name: str) -> Session:
    return sound(dice)


# Family: how often among all, and how one is made.
FAMILIES: Final[dict[str, tuple[float, Callable[[random.Random, str], Session]]]] = {
    "noise": (1, _noise),
    "unknown PDU": (1, _unknown_pdu),
    "mutated": (5, _mutated_session),
    "proposal": (3, _proposal),
    "tiny items": (0.2, _tiny_items),
    "fragments": (3, _fragments),
    "command": (4, _command),
    "uids": (3, _uids),
    "dataset": (4, _dataset),
    "bomb": (0.4, _bomb),
    "charset": (1, _charset),
    "commitment": (1, _commitment),
    "interleaved": (1, _interleaved),
    "cut": (2, _cut),
    "sound": (1, _kept),
}
