"""What is fetched is what we know, or is not used."""

from pathlib import Path

import pytest

from tests.viewers import release


def test_a_package_that_is_not_the_one_we_know_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "CACHE", tmp_path)
    monkeypatch.setattr(release, "UNPACKED", tmp_path / "unpacked")
    (tmp_path / release.ARCHIVE).write_bytes(b"something else")

    with pytest.raises(release.NotFetched, match="remove it and fetch it again"):
        release.fetch()

    assert not release.UNPACKED.exists()


def test_without_a_registry_a_person_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "CACHE", tmp_path)
    monkeypatch.setattr(release, "UNPACKED", tmp_path / "unpacked")
    for name, value in (("fetch_retries", "0"), ("registry", "http://127.0.0.1:9/")):
        monkeypatch.setenv(f"npm_config_{name}", value)

    with pytest.raises(release.NotFetched, match=f"put {release.ARCHIVE} into"):
        release.fetch()

    assert list(tmp_path.iterdir()) == []
