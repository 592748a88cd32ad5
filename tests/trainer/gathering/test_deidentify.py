"""Pseudonyms need the salt, and the salt is kept secret and never replaced."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer.gathering.deidentify import BadSalt, pseudonym, read_salt, told_age


def test_a_missing_salt_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "secrets" / "salt"

    salt = read_salt(path)

    assert len(salt) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_same_file_gives_the_same_salt_to_all_who_ask_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        salts = set(pool.map(read_salt, [tmp_path / "salt"] * 8))

    assert salts == {read_salt(tmp_path / "salt")}


def test_a_salt_that_others_may_read_is_refused(tmp_path):
    read_salt(tmp_path / "salt")
    (tmp_path / "salt").chmod(0o640)

    with pytest.raises(BadSalt, match="found mode 0640; needed 0600"):
        read_salt(tmp_path / "salt")


@pytest.mark.parametrize("content", ["", "word", "ab" * 8])
def test_a_file_without_a_salt_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "salt"
    path.touch(0o600)
    path.write_text(content)

    with pytest.raises(BadSalt, match="restore it from a backup"):
        read_salt(path)
    assert path.read_text() == content


def test_a_pseudonym_is_known_only_with_the_salt():
    assert pseudonym(b"one", "patient", "4711") == pseudonym(b"one", "patient", "4711")
    names = {
        pseudonym(b"one", "patient", "4711"),
        pseudonym(b"two", "patient", "4711"),
        pseudonym(b"one", "study", "4711"),
        pseudonym(b"one", "patient", "4712"),
    }
    assert len(names) == 4
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_a_pseudonym_is_hmac_sha256_as_others_compute_it():
    # printf 'patient\0004711' | openssl dgst -sha256 -hmac one
    assert pseudonym(b"one", "patient", "4711") == "4b4cd0004d094a20"


def test_nobody_is_older_than_ninety():
    assert [told_age(age) for age in (0.5, 89.0, 90.0, 104.0)] == [0.5, 89.0, 90.0, 90.0]
