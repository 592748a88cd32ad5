"""The bundles a worker holds, and what becomes of what is put into its folders while it works."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from listener.entries import Edition
from listener.errors import VersionTaken
from listener.ledger import Ledger
from listener.rollout import promote, registered, roll_back, set_aside
from worker.analyses import open_analysis
from worker.bundle import load_bundle
from worker.seal import METADATA, BadBundle, write_manifest
from worker.shelf import Shelf

DEMO = Path(__file__).parents[2] / "deploy" / "bundles" / "fistula-demo"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield book
    book.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a site puts its bundles; the demo is there."""
    place = tmp_path / "bundles"
    shutil.copytree(DEMO, place / "demo")
    return place


@pytest.fixture
def shelf(ledger: Ledger, folder: Path) -> Shelf:
    found = Shelf([folder], (), ledger, open_analysis, seconds=0.05)
    found.fill()
    return found


def publish(folder: Path, name: str, version: str) -> Edition:
    """Put the demo there once more, as another version."""
    place = shutil.copytree(DEMO, folder / name)
    metadata = json.loads((place / METADATA).read_text())
    metadata["version"] = version
    (place / METADATA).write_text(json.dumps(metadata))
    write_manifest(place)
    return load_bundle(place).weights_sha256, version


def roles(ledger: Ledger) -> dict[str, str]:
    return {each.version: each.role for each in registered(ledger)}


def test_the_first_bundle_of_an_analysis_is_active_and_told_of_in_the_ledger(
    shelf: Shelf, ledger: Ledger
) -> None:
    bundle = load_bundle(DEMO)
    (row,) = registered(ledger)

    assert shelf.held.keys() == {(bundle.weights_sha256, bundle.version)}
    assert (row.role, row.edition) == ("active", (bundle.weights_sha256, bundle.version))
    assert row.card["statement"] == bundle.statement
    assert row.card["threshold_high"] == bundle.threshold_high
    assert "# fistula-demo" in row.card["model_card"]


def test_what_is_put_there_while_it_works_runs_as_a_shadow_until_it_is_promoted(
    shelf: Shelf, ledger: Ledger, folder: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    shelf.start()
    before = load_bundle(DEMO)
    edition = publish(folder, "next", "99.0.0")
    until(lambda: edition in shelf.held)
    assert roles(ledger) == {before.version: "active", "99.0.0": "shadow"}

    promote(ledger, "fistula", edition, "ann")
    until(lambda: shelf.held.keys() == {edition})
    roll_back(ledger, "fistula", "ann")
    until(lambda: shelf.held.keys() == {(before.weights_sha256, before.version)})
    shelf.stop()

    assert roles(ledger) == {before.version: "active", "99.0.0": "retired"}


def test_what_is_still_being_copied_under_a_hidden_name_is_not_looked_into(
    shelf: Shelf, ledger: Ledger, folder: Path
) -> None:
    edition = publish(folder, ".coming", "99.0.0")
    shelf.look()
    assert edition not in shelf.held
    assert "99.0.0" not in roles(ledger)

    (folder / ".coming").rename(folder / "next")
    shelf.look()
    assert edition in shelf.held


def test_a_retired_bundle_is_let_go_and_taken_up_again(
    shelf: Shelf, ledger: Ledger, folder: Path
) -> None:
    edition = publish(folder, "next", "99.0.0")
    shelf.look()
    set_aside(ledger, "fistula", edition, "retired", "ann")
    shelf.look()
    assert edition not in shelf.held

    set_aside(ledger, "fistula", edition, "shadow", "ann")
    shelf.look()
    assert shelf.held[edition].bundle.version == "99.0.0"


def test_a_promoted_bundle_whose_weights_were_changed_is_refused(
    shelf: Shelf, ledger: Ledger, folder: Path
) -> None:
    edition = publish(folder, "next", "99.0.0")
    shelf.look()
    set_aside(ledger, "fistula", edition, "retired", "ann")
    shelf.look()
    weights = next((folder / "next" / "models").glob("fold_0*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    promote(ledger, "fistula", edition, "ann")
    shelf.look()

    assert edition not in shelf.held
    (trouble,) = shelf.troubles()
    assert "next: found sha256" in trouble


def test_other_thresholds_under_a_known_version_are_refused_while_the_old_ones_go_on(
    shelf: Shelf, ledger: Ledger, folder: Path
) -> None:
    place = folder / "demo"
    metadata = json.loads((place / METADATA).read_text())
    metadata["monro"]["threshold_high"] = 1.0
    (place / METADATA).write_text(json.dumps(metadata))
    write_manifest(place)
    shelf.look()

    (analysis,) = shelf.held.values()
    assert analysis.bundle.threshold_high < 1
    (trouble,) = shelf.troubles()
    assert "publish what differs under another version" in trouble


def test_other_weights_under_a_known_version_are_refused(
    shelf: Shelf, ledger: Ledger, folder: Path
) -> None:
    place = shutil.copytree(DEMO, folder / "same")
    metadata = json.loads((place / METADATA).read_text())
    metadata["monro"]["members"] = metadata["monro"]["members"][::-1]
    (place / METADATA).write_text(json.dumps(metadata))
    write_manifest(place)
    shelf.look()

    assert len(shelf.held) == len(registered(ledger)) == 1
    (trouble,) = shelf.troubles()
    assert "publish what differs under another version" in trouble
    with pytest.raises(VersionTaken):
        Shelf([place], (), ledger, open_analysis, seconds=1).fill()


def test_what_cannot_be_opened_now_is_tried_again(ledger: Ledger, folder: Path) -> None:
    room = False

    def open_where_there_is_room(bundle):  # type: ignore[no-untyped-def]
        if not room:
            raise RuntimeError("out of memory")
        return open_analysis(bundle)

    shelf = Shelf([folder], (), ledger, open_where_there_is_room, seconds=1)
    shelf.fill()
    assert not shelf.held
    assert "make room there" in shelf.troubles()[0]

    room = True
    shelf.look()
    assert len(shelf.held) == 1
    assert not shelf.troubles()


def test_a_folder_without_any_bundle_stops_the_start(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="a bundle, or a folder of bundles"):
        Shelf([tmp_path], (), ledger, open_analysis, seconds=1).fill()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits for something to become true."""
    import time

    def wait(is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < deadline, "it did not come about within 30 s"
            time.sleep(0.02)

    return wait
