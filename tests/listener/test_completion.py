"""When a study is complete, and why."""

import pytest

from listener.completion import Patience, reason_to_complete
from listener.entries import Gathering

PATIENCE = Patience(quiet_seconds=60, released_seconds=10, stalled_seconds=600)


@pytest.mark.parametrize(
    ("released_at", "open_associations", "now", "reason"),
    [
        (None, 0, 159, None),
        (None, 0, 160, "quiet for 60 s"),
        (105, 0, 114, None),
        (105, 0, 115, "association released, then quiet for 10 s"),
        (None, 1, 699, None),
        (None, 1, 700, "an association is still open, but quiet for 600 s"),
        (105, 1, 115, None),
    ],
)
def test_a_study_is_complete_when_it_was_quiet_for_as_long_as_the_signs_ask(
    released_at: float | None, open_associations: int, now: float, reason: str | None
) -> None:
    study = Gathering("1", 100.0, released_at, open_associations)

    assert reason_to_complete(study, now, PATIENCE) == reason
