"""A worker's station: what it does when things go wrong."""

import pytest

from worker.station import where


def test_an_error_is_told_by_its_place_and_never_by_its_message() -> None:
    def parse(value: str) -> int:
        return int(value)

    with pytest.raises(ValueError, match="PLANTED") as raised:
        parse("PLANTED^NAME")
    told = where(raised.value)

    assert "ValueError in parse" in told
    assert "PLANTED" not in told
