"""A bundle is used only as it was sealed, and never runs code."""

import json
import pickle

import pytest

from worker.bundle import (
    BadBundle,
    load_bundle,
    load_reference,
    member_weights,
    verify,
    write_manifest,
)

FOLD = "models/fold_1.safetensors"


def edit(path, change):
    """Rewrite a JSON file after a change to its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_sealed_bundle_loads_with_all_that_a_study_needs(toy_folder):
    bundle = load_bundle(toy_folder)

    assert (bundle.analysis, bundle.name, bundle.version) == ("fistula", "toy", "1.2.3")
    assert bundle.recipe.shape == (24, 26, 26)
    assert bundle.occlusion.patch == (5, 6, 6)
    assert bundle.threshold_low <= bundle.threshold_high
    assert bundle.statement == "Untrained: no clinical meaning."
    assert len(member_weights(bundle)) == len(load_reference(bundle)) == len(bundle.members) == 2


def test_what_monai_asks_of_metadata_is_there(toy_folder):
    metadata = json.loads((toy_folder / "configs" / "metadata.json").read_text())

    assert metadata.keys() >= {
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    }
    assert (toy_folder / "LICENSE").exists()
    assert (toy_folder / "docs" / "README.md").exists()


def test_one_flipped_bit_is_noticed(toy_folder):
    path = toy_folder / FOLD
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadBundle, match=rf"found sha256 .* of {FOLD}, expected .*copy the bundle"):
        load_bundle(toy_folder)


def test_a_missing_file_is_named(toy_folder):
    (toy_folder / FOLD).unlink()

    with pytest.raises(BadBundle, match=f"found no {FOLD}"):
        load_bundle(toy_folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(toy_folder):
    (toy_folder / "docs" / "more.md").write_text("hello")

    with pytest.raises(BadBundle, match=r"docs/more\.md, which the manifest does not list"):
        load_bundle(toy_folder)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "hook.py", "weights.bin", "noname"])
def test_what_could_carry_code_is_refused_even_when_it_is_listed(toy_folder, name):
    content = pickle.dumps({"weights": 1})
    (toy_folder / "models" / name).write_bytes(content)

    with pytest.raises(BadBundle, match="can carry code"):
        load_bundle(toy_folder)
    with pytest.raises(BadBundle, match="can carry code"):
        write_manifest(toy_folder)


def test_a_link_that_leads_elsewhere_is_refused(toy_folder, tmp_path):
    elsewhere = tmp_path / "fold_1.safetensors"
    (toy_folder / FOLD).rename(elsewhere)
    (toy_folder / FOLD).symlink_to(elsewhere)

    with pytest.raises(BadBundle, match="a link"):
        load_bundle(toy_folder)


def test_a_pickle_in_the_clothes_of_safetensors_is_not_unpickled(toy_folder):
    (toy_folder / FOLD).write_bytes(pickle.dumps({"weights": 1}))
    write_manifest(toy_folder)

    with pytest.raises(BadBundle, match="weights as safetensors"):
        member_weights(load_bundle(toy_folder))


def test_weights_changed_after_loading_are_noticed(toy_folder):
    bundle = load_bundle(toy_folder)
    (toy_folder / FOLD).write_bytes((toy_folder / "models/fold_0.safetensors").read_bytes())

    with pytest.raises(BadBundle, match=f"of {FOLD}"):
        member_weights(bundle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("threshold_low", 0.9, "0 <= low <= high <= 1"),
        ("temperatures", "hot", "monro.temperatures"),
        ("temperatures", [1.0], "1 temperatures of 2 members"),
        ("temperatures", [1.0, 0.0], "temperatures above 0"),
        ("conformal", {"suggested": 0.5}, "conformal thresholds"),
        ("surprise", 1, "monro.surprise"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(toy_folder, key, value, message):
    edit(
        toy_folder / "configs/metadata.json", lambda content: content["monro"].update({key: value})
    )
    write_manifest(toy_folder)

    with pytest.raises(BadBundle, match=message):
        load_bundle(toy_folder)


def test_a_folder_that_is_no_bundle_is_named(tmp_path):
    with pytest.raises(BadBundle, match=r"no readable manifest\.json"):
        load_bundle(tmp_path)


def test_the_weights_digest_follows_the_weights_and_nothing_else(toy_folder):
    before = load_bundle(toy_folder).weights_sha256
    edit(toy_folder / "configs/metadata.json", lambda content: content.update(version="1.2.4"))
    write_manifest(toy_folder)
    assert load_bundle(toy_folder).weights_sha256 == before

    first, second = toy_folder / "models/fold_0.safetensors", toy_folder / FOLD
    second.write_bytes(first.read_bytes())
    write_manifest(toy_folder)
    assert load_bundle(toy_folder).weights_sha256 != before


def test_the_manifest_covers_every_file_but_itself(toy_folder):
    present = {
        path.relative_to(toy_folder).as_posix() for path in toy_folder.rglob("*") if path.is_file()
    }

    assert verify(toy_folder).keys() == present - {"manifest.json"}
