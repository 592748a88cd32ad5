"""The console says of each refusal what its report says."""

from listener.console.refusals import WORDS
from worker.quality import Reason


def test_the_console_knows_every_refusal_by_the_words_of_its_report() -> None:
    assert {each.value: each.meaning for each in Reason} == WORDS
