"""Index of each class in the two outputs, the same in every network."""

from typing import Final

NEGATIVE: Final = 0
POSITIVE: Final = 1
CLASSES: Final = 2
