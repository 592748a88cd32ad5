"""A tool that is absent is said aloud, and fails where all of them must be there."""

import pytest

from tests.tools import REQUIRED, program


def test_a_tool_that_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "required")
    assert program("sh", "dash").endswith("/sh")


def test_an_absent_tool_skips_by_hand_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"promtool is absent .*NOT tested"):
        program("promtool", "prometheus")
    monkeypatch.setenv(REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match=r"package prometheus.*make system-tools"):
        program("promtool", "prometheus")
