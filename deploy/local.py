"""monro on this machine: `demo` sends two synthetic studies through it, `up` keeps it running."""

import json
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydicom
import typer
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, AllStoragePresentationContexts
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.answer import Answered, read_answers
from deploy.page import write_page
from deploy.stack import DidNotStart, Stack, free_ports
from listener.console.gate.accounts import Accounts
from listener.errors import MonroError, where
from listener.selection import ANALYSES
from trainer.infection import draw_infection
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, study_of, write_axial, write_study
from trainer.phantom_t2 import render_t2
from worker.seal import BadBundle

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

CACHE = Path.home() / ".cache" / "monro" / "demo"

PHANTOMS = {
    "signs of intracranial hypotension": (2024, True, False),
    "signs of CNS infection": (7, False, True),
}
"""What the two synthetic studies show: seed of the phantom, and which signs it has on T1 with
contrast, and on axial T2."""

PIXELS = 128
"""Of an axial T2, either way: as many as the demonstration bundle was trained on."""

INFECTION = 1.5
"""Severity of the signs: so that a person sees them in the picture."""

STORAGE_CLASSES = {context.abstract_syntax for context in AllStoragePresentationContexts}
"""What can be sent by C-STORE: a DICOMDIR, for one, cannot."""

RESULT_SECONDS = 600

ALL = {"MONRO_ANALYSES": json.dumps(ANALYSES)}
"""Every study is looked at by both analyses."""

VISITOR = "visitor"
"""Account at the console of whoever says `make up`."""

ENDED = {"REPORTED", "REFUSED", "SUPERSEDED"}

STEPS = ("receive", "wait", "read", "prepare", "infer", "explain", "report", "deliver")


class DemoFailed(Exception):
    """The demonstration did not come to its end, and this is why."""


@app.command()
def demo(
    study: Annotated[
        Path | None, typer.Option(exists=True, help="folder of DICOM files of your own")
    ] = None,
) -> None:
    """Send studies by C-STORE, wait for the results, show them, stop everything."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have had the former ignored
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="monro-demo-"))
    try:
        answered = _run(folder, study)
    except KeyboardInterrupt:
        _finish(False, "stopped by Ctrl-C; nothing is left running")
    except (DemoFailed, DidNotStart, MonroError, BadBundle, OSError) as error:
        _finish(False, f"{error} (logs: {folder / 'logs'})")
    except Exception as error:  # noqa: BLE001 - the last line is promised, whatever happens
        _finish(False, f"unexpected {where(error)} (logs: {folder / 'logs'})")
    else:
        took = time.monotonic() - started
        overlays = sum(len(each.overlays) for each in answered)
        studies = len({each.study_uid for each in answered})
        _finish(
            True,
            f"{studies} studies answered by {len(answered)} analyses, {overlays} overlays, "
            f"{took:.0f} s; images and results stay in {folder} until you delete it",
        )


@app.command()
def up() -> None:
    """Start the same servers and stay up until Ctrl-C."""
    folder = CACHE.parent / "up"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        (console_port,) = free_ports(1)
        with Stack(folder, changes={**ALL, "MONRO_CONSOLE_PORT": str(console_port)}) as stack:
            stack.start(lambda step: console.print(f"starting the {step}"))
            password = _let_in(Accounts(stack.ledger))
            settings = write_settings(stack.environment, folder / "monro.env")
            console.print(
                f"console: http://127.0.0.1:{console_port}, name {VISITOR}, password {password}"
            )
            console.print(
                f"monro answers on 127.0.0.1:{stack.listener_port}, called AE title MONRO, calling "
                "SCANNER; with DCMTK's storescu (another one is in .venv/bin), for example:\n"
                f"  /usr/bin/storescu -aet SCANNER -aec MONRO 127.0.0.1 {stack.listener_port} "
                f"+sd +r {_something_to_send()}\n"
                f"results arrive in {stack.archive.folder}: delete what you need no more\n"
                f"its settings are in {settings}; to ask it in another terminal:\n"
                f"  set -a; . {settings}; set +a; {sys.executable} -m listener status\n"
                "Ctrl-C stops everything",
                soft_wrap=True,
            )
            while not stop.wait(1):
                for name in stack.stopped():
                    raise DemoFailed(f"the {name} stopped; see {stack.log(name)}")
    except (DemoFailed, DidNotStart, MonroError, BadBundle, OSError) as error:
        console.print(f"up: FAIL {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _something_to_send() -> Path:
    """A synthetic study of the demonstration, where it made one."""
    made = sorted(CACHE.glob("*/made"))
    return made[0].with_name("study") if made else Path("FOLDER")


def write_settings(settings: Mapping[str, str], path: Path) -> Path:
    """Keep settings as a file that a shell reads, for whoever runs them; returns where."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    path.touch(0o600)
    path.write_text("".join(lines))
    return path


def _let_in(accounts: Accounts) -> str:
    """Make the account of whoever started the servers; returns its password, another each time."""
    password = secrets.token_urlsafe(12)
    if accounts.is_known(VISITOR):
        accounts.change_password(VISITOR, password)
    else:
        accounts.add(VISITOR, "operator", password)
    return password


def _run(folder: Path, own: Path | None) -> list[Answered]:
    with (
        Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
        ) as progress,
        Stack(folder, changes=ALL) as stack,
    ):
        doing = progress.add_task("starting")

        def on_step(step: str) -> None:
            progress.update(doing, description=step)

        studies = {own.name: own} if own else _phantoms(on_step)
        stack.start(lambda name: on_step(f"starting the {name}"))
        sent = [
            (f"{title}", uid, files)
            for title, path in studies.items()
            for uid, files in _by_study(path).items()
        ]
        for title, _uid, files in sent:
            on_step(f"sending {len(files)} files: {title}")
            send(files, stack.listener_port)
        answered = []
        for title, uid, _files in sent:
            on_step(f"waiting for the results: {title}")
            answered += _await(stack, title, uid)
        on_step("writing the page")
        page = write_page(folder / "results.html", answered)
    for each in answered:
        _show(each)
    console.print(f"page to look at: {page}", soft_wrap=True)
    return answered


def _phantoms(on_step: Any) -> dict[str, Path]:
    """The two synthetic studies, made once and kept."""
    folders = {}
    for title, (seed, hypotension, infection) in PHANTOMS.items():
        folder = CACHE / f"phantom-{seed}-{hypotension:d}-{infection:d}"
        if not (folder / "made").exists():
            on_step(f"making a synthetic head MRI: {title}")
            shutil.rmtree(folder, ignore_errors=True)
            t1 = render(draw_case(seed, hypotension, OVERT))
            t2 = render_t2(draw_infection(seed, infection, INFECTION, head=t1.case), PIXELS)
            write_study(t1, folder)
            write_axial(t2, NOBODY, folder / "study" / "t2", study_of(t1))
            (folder / "made").touch()
        folders[f"synthetic head, {title}"] = folder / "study"
    return folders


def _by_study(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files below a folder, by Study Instance UID.

    Raises:
        DemoFailed: there is none.
    """
    studies: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, specific_tags=["StudyInstanceUID"])
        except InvalidDicomError:
            continue
        if header.file_meta.get("MediaStorageSOPClassUID") in STORAGE_CLASSES:
            studies[str(header.get("StudyInstanceUID", ""))].append(path)
    if not studies:
        raise DemoFailed(f"{folder} holds no DICOM file; name a folder of one or more studies")
    return studies


def send(files: Sequence[Path], port: int) -> None:
    """Send files in one association, as a scanner would.

    Raises:
        DemoFailed: the listener did not accept one of them.
    """
    entity = AE(ae_title="SCANNER")
    metas = [pydicom.filereader.read_file_meta_info(path) for path in files]
    for kind in {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}:
        entity.add_requested_context(*kind)
    association = entity.associate("127.0.0.1", port, ae_title="MONRO")
    if not association.is_established:
        raise DemoFailed("the listener did not accept the association")
    try:
        for path in files:
            status = association.send_c_store(path).get("Status")
            if status != 0x0000:
                raise DemoFailed(f"{path.name} was answered with status {status}, not Success")
    finally:
        association.release()


def _await(stack: Stack, title: str, study_uid: str) -> list[Answered]:
    """Wait until everything about a study was delivered.

    Raises:
        DemoFailed: that does not happen.
    """
    deadline = time.monotonic() + RESULT_SECONDS
    while time.monotonic() < deadline:
        for name in stack.stopped():
            raise DemoFailed(f"the {name} stopped")
        known = stack.ledger.study(study_uid) or {}
        if any(job["state"] == "FAILED" for job in known.get("jobs", ())):
            raise DemoFailed(f"the job of {study_uid} failed: {known['jobs'][-1]['reason']}")
        if known.get("planned_revision") and not known["jobs"]:
            reasons = {row["reason"] for row in known["instances"]}
            raise DemoFailed(f"{title}: not wanted by any analysis: {'; '.join(sorted(reasons))}")
        delivered = {row["state"] for row in known.get("deliveries", ())}
        answered = all(job["state"] in ENDED for job in known.get("jobs", ()))
        if answered and delivered and delivered <= {"SENT", "CONFIRMED"}:
            files = stack.archive.files(study_uid)
            return read_answers(title, known, files, stack.ledger.results_of)
        time.sleep(0.2)
    raise DemoFailed(f"no result for {title} within {RESULT_SECONDS} s")


def _show(answered: Answered) -> None:
    probability = (
        "not judged" if answered.probability is None else f"{100 * answered.probability:.1f} %"
    )
    times = Table(*(step for step in STEPS if step in answered.seconds), title="seconds")
    times.add_row(*(f"{answered.seconds[step]:.1f}" for step in STEPS if step in answered.seconds))
    title = f"{answered.title}; {answered.analysis}: {probability}"
    console.print(Panel(answered.text, title=title))
    console.print(times)
    for what, path in (("SR", answered.report), ("text SR", answered.summary)):
        console.print(f"{what}: {path}", soft_wrap=True)
    if answered.overlays:
        where = answered.overlays[0].parent
        console.print(f"{len(answered.overlays)} overlays: {where}", soft_wrap=True)


def _finish(passed: bool, words: str) -> None:
    verdict = "PASS" if passed else "FAIL"
    console.print(
        f"demo: {verdict} {words}", style="green" if passed else "red", markup=False,
        soft_wrap=True,
    )  # fmt: skip
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    app()
