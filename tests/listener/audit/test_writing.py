"""A trail in whole lines, whoever writes it, and however often its file is away."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from listener.audit import writer
from listener.audit.codes import Code
from listener.audit.lines import Lines
from listener.audit.message import Message, Origin
from listener.audit.patient import Pseudonymous
from listener.audit.tally import Party
from listener.audit.trail import Audit, open_audit
from listener.audit.writer import Draft, Writer
from listener.errors import BadSettings
from listener.node import Node
from listener.settings import ListenerSettings
from tests.listener.audit.reading import messages
from tests.listener.audit.test_trail import send, trail, until

STRANGER = Party("STRANGER", "10.0.0.1")

APPEND_MANY = """
import sys
from pathlib import Path
from listener.audit.codes import Code
from listener.audit.lines import Lines

lines = Lines(Path(sys.argv[1]))
for number in range(400):
    lines.append(f"{sys.argv[2]} {number} " + sys.argv[2] * 9000)
"""


def test_processes_that_append_at_once_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "audit.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND_MANY, str(path), name]) for name in "abc"
    ]
    assert [each.wait() for each in writers] == [0, 0, 0]

    found = [line.split() for line in path.read_text().splitlines()]
    assert len(found) == 1200
    assert all(filler == name * 9000 for name, _, filler in found)
    for name in "abc":  # in the order in which each of them wrote
        assert [int(number) for who, number, _ in found if who == name] == list(range(400))


def test_a_file_that_was_moved_away_is_begun_anew_for_our_eyes_only(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "audit.log")
    lines.append("first")
    lines.path.rename(tmp_path / "audit.log.1")
    lines.append("second")

    assert (tmp_path / "audit.log.1").read_text() == "first\n"
    assert lines.path.read_text() == "second\n"
    assert stat.S_IMODE(lines.path.stat().st_mode) == 0o600


def test_what_moves_while_somebody_appends_loses_no_line(tmp_path: Path) -> None:
    lines, aside = Lines(tmp_path / "outbox"), tmp_path / "aside"
    appending = threading.Thread(
        target=lambda: [lines.append(str(number)) for number in range(2000)]
    )
    appending.start()
    found: list[str] = []
    while appending.is_alive():
        lines.move(aside)
        found += aside.read_text().splitlines()
    appending.join()
    lines.move(aside)
    found += aside.read_text().splitlines()

    assert [int(line) for line in found] == list(range(2000))


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, write = Lines(tmp_path / "audit.log"), os.write
    lines.append("first")
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    with pytest.raises(OSError, match="No space") as raised:
        lines.append("second")
    monkeypatch.undo()
    lines.append("third")

    assert raised.value.errno == errno.ENOSPC
    assert lines.path.read_text() == "first\nthird\n"


def test_a_trail_that_is_away_delays_nothing_but_itself(
    settings_for: Any, an_mr_slice: Callable[..., Dataset], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(receivers=1)
    folder = settings.spool / "audit"
    with Node(settings):
        until(lambda: trail(settings))
        folder.rename(settings.spool / "away")
        folder.write_text("no folder")
        for number in range(3):
            send(settings, an_mr_slice(study=f"1.2.{number}"))
        until(lambda: "audit trail cannot be written" in capfd.readouterr().err)
        folder.unlink()
        (settings.spool / "away").rename(folder)
        until(lambda: len(trail(settings, "110104")) == 3)

    assert "cannot be written" not in capfd.readouterr().err  # it was said once
    assert [each.study for each in trail(settings, "110104")] == ["1.2.0", "1.2.1", "1.2.2"]


def test_a_receiver_that_starts_while_the_trail_is_away_receives(
    settings_for: Any, mr_slice: Dataset
) -> None:
    settings = settings_for(receivers=1, poll_seconds=0.1)
    folder = settings.spool / "audit"
    with Node(settings) as node:
        until(lambda: trail(settings))
        folder.rename(settings.spool / "away")
        folder.write_text("no folder")
        (dead,) = node.receivers.pids
        os.kill(dead, signal.SIGKILL)
        until(lambda: node.receivers.pids != [dead])
        send(settings, mr_slice)
        folder.unlink()
        (settings.spool / "away").rename(folder)

    assert [each.outcome for each in trail(settings, "110104")] == ["0"]


class Away:
    """A target that takes nothing until it is told to."""

    def check(self) -> None:
        raise NotImplementedError

    def __init__(self) -> None:
        self.is_away = True
        self.taken: list[str] = []

    def write(self, _message: Message, xml: str) -> None:
        if self.is_away:
            raise OSError(errno.EIO, "away", "target")
        self.taken.append(xml)


def told(text: str) -> Message:
    return Message(event=Code(text, "99TEST", text), action="E", participants=())


def writer_to(target: Away, room: int) -> Writer:
    made = Writer(target, Origin("site", "MONRO", "host"), lambda draft: draft.message, told, room)
    made.start()
    return made


def test_what_finds_no_room_is_counted_and_the_count_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.02)
    target = Away()
    trail_writer = writer_to(target, room=2)
    trail_writer.put(Draft(told("m0")))
    until(lambda: "cannot be written" in caplog.text)  # the first is being tried
    for number in range(1, 6):
        trail_writer.put(Draft(told(f"m{number}")))
    target.is_away = False
    until(lambda: len(target.taken) == 4)
    trail_writer.close()

    dropped = "3 audit message(s) were dropped"
    assert ["m0" in target.taken[0], dropped in target.taken[1]] == [True, True]
    assert ["m1" in target.taken[2], "m2" in target.taken[3]] == [True, True]
    assert dropped in caplog.text
    assert caplog.text.count("cannot be written") == 1


def test_an_end_does_not_wait_for_a_trail_that_is_away_and_says_what_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trail_writer = writer_to(Away(), room=10)
    for number in range(5):
        trail_writer.put(Draft(told(f"m{number}")))
    began = time.monotonic()
    trail_writer.close()

    assert time.monotonic() - began < writer.RETRY_SECONDS
    assert "5 audit message(s) were dropped" in caplog.text


def test_one_bad_message_does_not_end_the_trail(caplog: pytest.LogCaptureFixture) -> None:
    target = Away()
    target.is_away = False
    trail_writer = writer_to(target, room=10)
    trail_writer.put(Draft(Message(event=None, action="E", participants=())))  # type: ignore[arg-type]
    trail_writer.put(Draft(told("good")))
    trail_writer.close()

    assert "good" in target.taken[0]
    assert "an audit message was not written" in caplog.text


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "key"
    pseudonym = Pseudonymous(path).pseudonym("PLANTED-ID")
    again = Pseudonymous(path).pseudonym("PLANTED-ID")
    path.unlink()

    assert pseudonym == again != Pseudonymous(path).pseudonym("PLANTED-ID")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_pseudonym_can_be_computed_by_whoever_has_the_key(tmp_path: Path) -> None:
    ours = Pseudonymous(tmp_path / "key").pseudonym("PLANTED-ID")
    key = (tmp_path / "key").read_text().strip()
    theirs = subprocess.run(
        ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key}", "-r"],
        input=b"PLANTED-ID", capture_output=True, check=True,
    )  # fmt: skip

    assert theirs.stdout[:32].decode() == ours


@pytest.mark.parametrize("content", ["", "secret", "00" * 31])
def test_a_key_that_is_none_stops_the_start(settings_for: Any, content: str) -> None:
    settings = settings_for()
    key = settings.spool.parent / "key"
    key.write_text(content)
    with pytest.raises(BadSettings, match="64 hexadecimal digits"):
        open_audit(settings.model_copy(update={"audit_key": key}))


def test_a_file_elsewhere_may_be_named(settings_for: Any, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "monro.log"
    with open_audit(settings_for(audit=f"file://{path}")) as audit:
        audit.rejected(STRANGER, "for a test")

    (alert,) = messages(path)
    assert alert.detail == "for a test"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_trail_that_cannot_be_opened_stops_the_start(settings_for: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="File exists"):
        open_audit(settings_for(audit=f"file://{tmp_path}/file/monro.log"))


def test_nobody_waits_for_a_trail(settings_for: Callable[..., ListenerSettings]) -> None:
    audit: Audit = open_audit(settings_for())
    began = time.monotonic()
    for _ in range(2000):
        audit.rejected(STRANGER, "not started, so nothing is written yet")

    assert time.monotonic() - began < 2
    with audit:
        pass
