"""A bundle is used only as it was sealed, and never runs code."""

import json
import pickle
import shutil
import subprocess

import pytest

from tests.worker.region_study import REGIONS, WEIGHED
from worker.bundle import (
    load_bundle,
    load_reference,
    load_volume_bundle,
    member_weights,
    reference_keys,
)
from worker.seal import BadBundle, sign, verify, write_manifest
from worker.signature import BadKey, make_key, read_private_key, read_trusted_keys

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
    members = member_weights(bundle.folder, bundle.members)
    assert len(members) == len(load_reference(bundle.folder, reference_keys(2))) == 2


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

    bundle = load_bundle(toy_folder)
    with pytest.raises(BadBundle, match="weights as safetensors"):
        member_weights(bundle.folder, bundle.members)


def test_weights_changed_after_loading_are_noticed(toy_folder):
    bundle = load_bundle(toy_folder)
    (toy_folder / FOLD).write_bytes((toy_folder / "models/fold_0.safetensors").read_bytes())

    with pytest.raises(BadBundle, match=f"of {FOLD}"):
        member_weights(bundle.folder, bundle.members)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("threshold_low", 0.9, "0 <= low <= high <= 1"),
        ("temperatures", "hot", "monro.temperatures"),
        ("temperatures", [1.0], "1 temperatures of 2 members"),
        ("temperatures", [1.0, 0.0], "temperatures above 0"),
        ("conformal", {"suggested": 0.5}, "conformal thresholds"),
        ("surprise", 1, "monro.surprise"),
        ("validation", {"patients": [1] * 10, "positives": [2] * 10}, "no more positives"),
        ("validation", {"patients": [1], "positives": [1]}, "10 counts"),
        ("inputs", {"mean": {"edges": [2.0, 1.0], "share": [0.1, 0.2, 0.7]}}, "ascending edges"),
        ("inputs", {"mean": {"edges": [1.0, 2.0], "share": [0.5, 0.5]}}, "a share for each part"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(toy_folder, key, value, message):
    edit(
        toy_folder / "configs/metadata.json", lambda content: content["monro"].update({key: value})
    )
    write_manifest(toy_folder)

    with pytest.raises(BadBundle, match=message):
        load_bundle(toy_folder)


@pytest.fixture
def region_folder(region_bundle, tmp_path):
    """A bundle that looks at regions, and that a test may damage."""
    return shutil.copytree(region_bundle, tmp_path / "toy-regions")


def test_a_bundle_of_regions_loads_with_all_that_a_study_needs(region_folder):
    bundle = load_bundle(region_folder)

    assert (bundle.analysis, bundle.name, bundle.version) == ("infection", "toy-regions", "1.0.0")
    assert bundle.decisive == "sublentiform"
    assert bundle.recipe.side == 64
    assert bundle.recipe.radiomics.log_sigmas_mm == (1.0,)
    assert tuple(bundle.regions) == REGIONS
    for name, models in bundle.regions.items():
        assert [each.names for each in models.features] == [WEIGHED, WEIGHED]
        assert len(member_weights(bundle.folder, models.members)) == 2
        assert len(load_reference(bundle.folder, reference_keys(2, name))) == 2


def test_a_flipped_bit_in_the_weights_of_a_region_is_noticed(region_folder):
    path = region_folder / "models/ventricles_fold_1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadBundle, match=r"of models/ventricles_fold_1\.safetensors"):
        load_bundle(region_folder)


def test_the_digest_is_about_the_weights_of_all_regions(region_folder):
    before = load_bundle(region_folder).weights_sha256
    first, second = (
        region_folder / "models" / f"ventricles_fold_{each}.safetensors" for each in (0, 1)
    )
    second.write_bytes(first.read_bytes())
    write_manifest(region_folder)

    assert load_bundle(region_folder).weights_sha256 != before


def of_ventricles(**changes):
    def edit(told):
        told["regions"]["ventricles"].update(changes)

    return edit


def of_features(**changes):
    def edit(told):
        told["regions"]["ventricles"]["features"][1].update(changes)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda told: told.update(decisive="thalamus"), "decisive region 'thalamus'"),
        (lambda told: told["regions"].pop("ventricles"), r"for the regions \['sublentiform'\]"),
        (
            lambda told: told["regions"].update(thalamus=told["regions"]["ventricles"]),
            "for the regions .*'thalamus'",
        ),
        (of_ventricles(members=["models/none.safetensors"] * 2), "no models/none"),
        (of_ventricles(members=[], temperatures=[], features=[]), "no members"),
        (of_ventricles(temperatures=[1.0]), "1 temperatures of 2 members"),
        (of_ventricles(temperatures=[1.0, -1.0]), "temperatures above 0"),
        (of_ventricles(surprise=1), "surprise"),
        (lambda told: told["regions"]["ventricles"]["features"].pop(), "features of 1 members"),
        (of_features(names=["original_firstorder_Mood", WEIGHED[1]]), "Mood"),
        (of_features(names=["original_firstorder_Range", WEIGHED[1]]), "no value of .*Range"),
        (lambda told: told.pop("measured_with"), f"no value of {WEIGHED[1]} under monro.measured"),
        (of_features(mean=[0.0]), "a mean and a deviation each"),
        (of_features(deviation=[1.0]), "a mean and a deviation each"),
        (of_features(deviation=[1.0, 0.0]), "deviations above 0"),
        (of_features(mean=[0.0, float("nan")]), "finite means"),
        (lambda told: told.update(threshold_low=0.9), "0 <= low <= high <= 1"),
        (lambda told: told.update(analysis="knee"), "monro.analysis: 'knee'.*fistula.*infection"),
        (lambda told: told.update(analysis="fistula"), "monro"),
        (lambda told: told.pop("recipe"), "monro.recipe"),
    ],
)
def test_a_description_of_regions_that_makes_no_sense_is_refused(region_folder, edit, message):
    edit_of = region_folder / "configs/metadata.json"
    content = json.loads(edit_of.read_text())
    edit(content["monro"])
    edit_of.write_text(json.dumps(content))
    write_manifest(region_folder)

    with pytest.raises(BadBundle, match=message):
        load_bundle(region_folder)


def test_an_analysis_that_nobody_knows_is_refused(toy_folder):
    edit(toy_folder / "configs/metadata.json", lambda content: content["monro"].pop("analysis"))
    write_manifest(toy_folder)

    with pytest.raises(BadBundle, match=r"monro\.analysis: None, expected one of"):
        load_bundle(toy_folder)


def test_who_wants_a_bundle_of_volumes_is_not_given_one_of_regions(region_folder, toy_folder):
    assert load_volume_bundle(toy_folder).name == "toy"
    with pytest.raises(
        BadBundle, match="a bundle of infection, expected one that looks at volumes"
    ):
        load_volume_bundle(region_folder)


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

    assert verify(toy_folder).hashes.keys() == present - {"manifest.json"}


@pytest.fixture
def keys(tmp_path):
    """Two keys: private files in a folder of their own."""
    paths = tmp_path / "keys" / "ours", tmp_path / "keys" / "theirs"
    for path in paths:
        make_key(path)
    return paths


def public(*paths):
    return read_trusted_keys(path.with_suffix(".pub") for path in paths)


def signed(folder, path):
    sign(folder, read_private_key(path))


def test_a_bundle_that_a_trusted_key_signed_names_that_key(toy_folder, keys):
    signed(toy_folder, keys[1])
    _, trusted = public(*keys)

    assert load_bundle(toy_folder, public(*keys)).signed_by == trusted.fingerprint


def test_an_unsigned_bundle_is_refused_where_keys_are_trusted(toy_folder, keys):
    (trusted,) = public(keys[0])

    with pytest.raises(BadBundle) as raised:
        load_bundle(toy_folder, [trusted])
    said = str(raised.value)
    assert "found no readable manifest.sig" in said
    assert f"expected a signature of one of the trusted keys {trusted.fingerprint}" in said
    assert "python -m trainer sign" in said


def test_a_signature_of_somebody_else_is_refused(toy_folder, keys):
    ours, theirs = keys
    signed(toy_folder, theirs)

    with pytest.raises(BadBundle, match=r"a manifest\.sig that is not of this manifest\.json"):
        load_bundle(toy_folder, public(ours))


@pytest.mark.parametrize("signature", [b"", b"x" * 64, b"-----BEGIN"])
def test_what_is_no_signature_is_refused(toy_folder, keys, signature):
    (toy_folder / "manifest.sig").write_bytes(signature)

    with pytest.raises(BadBundle, match=r"a manifest\.sig that is not of"):
        load_bundle(toy_folder, public(keys[0]))


def test_without_trusted_keys_a_signature_is_not_looked_at_and_not_claimed(toy_folder, keys):
    signed(toy_folder, keys[0])
    (toy_folder / "manifest.sig").write_bytes(b"anything")

    assert load_bundle(toy_folder).signed_by is None


def test_a_file_changed_after_signing_is_refused(toy_folder, keys):
    signed(toy_folder, keys[0])
    (toy_folder / "docs" / "README.md").write_text("trust me")

    with pytest.raises(BadBundle, match=r"of docs/README\.md"):
        load_bundle(toy_folder, public(keys[0]))


def test_a_manifest_changed_to_fit_is_refused(toy_folder, keys):
    signed(toy_folder, keys[0])
    signature = (toy_folder / "manifest.sig").read_bytes()
    (toy_folder / "docs" / "README.md").write_text("trust me")
    write_manifest(toy_folder)
    assert not (toy_folder / "manifest.sig").exists()
    (toy_folder / "manifest.sig").write_bytes(signature)

    assert load_bundle(toy_folder).signed_by is None
    with pytest.raises(BadBundle, match="not of this"):
        load_bundle(toy_folder, public(keys[0]))


def test_a_bundle_that_is_not_what_its_manifest_says_is_not_signed(toy_folder, keys):
    (toy_folder / FOLD).unlink()

    with pytest.raises(BadBundle, match=f"no {FOLD}"):
        signed(toy_folder, keys[0])
    assert not (toy_folder / "manifest.sig").exists()


def test_a_private_key_is_for_its_owner_alone(keys):
    path = keys[0]
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)

    with pytest.raises(BadKey, match=r"found mode 0640; needed 0600: chmod 600"):
        read_private_key(path)


def test_a_key_is_never_replaced(keys):
    before = keys[0].read_bytes()

    with pytest.raises(BadKey, match="never replaced"):
        make_key(keys[0])
    assert keys[0].read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----", None])
def test_what_is_no_public_key_is_named(tmp_path, keys, content):
    path = tmp_path / "some.pub"
    path.write_bytes(keys[0].read_bytes() if content is None else content)

    with pytest.raises(BadKey, match=r"some\.pub: found no Ed25519 public key"):
        read_trusted_keys([path])
    with pytest.raises(BadKey, match="found no such file"):
        read_trusted_keys([tmp_path / "absent.pub"])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is not installed")
def test_openssl_agrees(toy_folder, keys):
    signed(toy_folder, keys[0])
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-rawin", "-in", toy_folder / "manifest.json",
         "-sigfile", toy_folder / "manifest.sig", "-pubin", "-inkey", f"{keys[0]}.pub"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "Verified Successfully" in done.stdout
