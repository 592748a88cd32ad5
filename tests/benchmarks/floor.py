"""The floor under any durable receiver: just enough of the protocol, and what the disk costs.

Accepts every association and every context as Explicit VR Little Endian, believes every length, and
names a file by the instance UID in the command. For benchmarks only.
"""

import os
import socket
import struct
import threading
from pathlib import Path

EXPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2.1"


def serve(folder: Path, port: int) -> None:
    """Answer for ever, one thread per connection."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_associate, args=(connection, folder), daemon=True).start()


def _associate(connection: socket.socket, folder: Path) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    command = name = b""
    pieces: list[bytes] = []
    while True:
        header = _receive(connection, 6)
        if len(header) < 6:
            return
        kind, _, length = struct.unpack(">BBL", header)
        body = _receive(connection, length)
        if kind == 1:
            connection.sendall(_accept(body))
        elif kind == 5:
            connection.sendall(struct.pack(">BBL4x", 6, 0, 4))
        at = 0
        while kind == 4 and at < length:
            size, context, control = struct.unpack_from(">LBB", body, at)
            piece, at = body[at + 6 : at + 4 + size], at + 4 + size
            if control & 1:
                command = piece
                name = _value(command, 0x1000)
                continue
            pieces.append(piece)
            if control & 2:
                _keep(folder, name.rstrip(b"\0").decode(), pieces)
                pieces.clear()
                connection.sendall(_stored(command, context))


def _keep(folder: Path, name: str, pieces: list[bytes]) -> None:
    # Enough meta information for the file to be read again.
    syntax = b"\x02\x00\x10\x00UI\x14\x00" + EXPLICIT_LITTLE_ENDIAN + b"\0"
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(syntax))
    with (folder / f"{name}.dcm").open("wb", buffering=0) as file:
        os.writev(file.fileno(), [b"\0" * 128 + b"DICM" + length + syntax, *pieces])
        os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _accept(request: bytes) -> bytes:
    """A-ASSOCIATE-AC: the same titles, every context accepted."""
    items, at = request[68:], 0
    answer = b""
    while at < len(items):
        kind, _, size = struct.unpack_from(">BBH", items, at)
        value = items[at + 4 : at + 4 + size]
        if kind == 0x10:
            answer += items[at : at + 4 + size]
        elif kind == 0x20:
            syntax = struct.pack(">BBH", 0x40, 0, len(EXPLICIT_LITTLE_ENDIAN))
            content = bytes([value[0], 0, 0, 0]) + syntax + EXPLICIT_LITTLE_ENDIAN
            answer += struct.pack(">BBH", 0x21, 0, len(content)) + content
        at += 4 + size
    user = struct.pack(">BBHL", 0x51, 0, 4, 131072) + struct.pack(">BBH", 0x52, 0, 3) + b"1.2"
    answer += struct.pack(">BBH", 0x50, 0, len(user)) + user
    body = request[:68] + answer
    return struct.pack(">BBL", 2, 0, len(body)) + body


def _stored(command: bytes, context: int) -> bytes:
    """C-STORE-RSP with Success."""
    body = b""
    for element, value in (
        (0x0002, _value(command, 0x0002)),
        (0x0100, struct.pack("<H", 0x8001)),
        (0x0120, _value(command, 0x0110)),
        (0x0800, struct.pack("<H", 0x0101)),
        (0x0900, struct.pack("<H", 0)),
        (0x1000, _value(command, 0x1000)),
    ):
        body += struct.pack("<HHL", 0, element, len(value)) + value
    body = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    item = struct.pack(">LBB", len(body) + 2, context, 3) + body
    return struct.pack(">BBL", 4, 0, len(item)) + item


def _value(command: bytes, wanted: int) -> bytes:
    at = 0
    while at < len(command):
        _, element, size = struct.unpack_from("<HHL", command, at)
        if element == wanted:
            return command[at + 8 : at + 8 + size]
        at += 8 + size
    raise KeyError(wanted)


def _receive(connection: socket.socket, length: int) -> bytes:
    found = bytearray(length)
    got = 0
    while got < length:
        part = connection.recv_into(memoryview(found)[got:])
        if not part:
            return b""
        got += part
    return bytes(found)
