"""What errors tell, and what they keep to themselves."""

import pytest

from listener.errors import where


def test_an_error_is_told_by_its_place_and_never_by_its_message() -> None:
    def parse(value: str) -> int:
        return int(value)

    with pytest.raises(ValueError, match="PLANTED") as raised:
        parse("PLANTED^NAME")
    told = where(raised.value)

    assert "ValueError in parse" in told
    assert "PLANTED" not in told
