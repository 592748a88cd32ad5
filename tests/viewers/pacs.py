"""What the PACS holds of the study that the viewers show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from tests.system.conftest import Orthanc
from tests.viewers.browser import SATURATED


class AnsweredStudy:
    """A study with its results."""

    def __init__(self, orthanc: Orthanc, uid: str, folder: Path) -> None:
        self.uid = uid
        self.url = orthanc.url
        self._orthanc = orthanc
        self._objects = [dcmread(path) for path in orthanc.files(uid, folder)]

    def descriptions(self) -> list[str]:
        """Of every series, in alphabetical order."""
        return sorted({str(each.SeriesDescription) for each in self._objects})

    def image_series(self) -> list[str]:
        """Descriptions of the series that are shown by themselves, as a Segmentation is not."""
        return sorted(
            {
                str(each.SeriesDescription)
                for each in self._objects
                if "PixelData" in each and each.Modality != "SEG"
            }
        )

    def series(self, description: str) -> str:
        """What Orthanc calls a series."""
        (found,) = (
            name for name, tags in self._series() if tags["SeriesDescription"] == description
        )
        return found

    def images(self, description: str) -> int:
        return sum(each.SeriesDescription == description for each in self._objects)

    def most_telling(self, description: str) -> int:
        """Instance Number of the image of a series that shows the most different colours."""
        images = [each for each in self._objects if each.SeriesDescription == description]
        return int(max(images, key=_colours).InstanceNumber)

    def sentences(self, description: str) -> list[str]:
        """What a text summary says."""
        (_summary,) = self._described(description)
        return self.sentences_of_all(description)

    def sentences_of_all(self, description: str) -> list[str]:
        """What the text summaries of all revisions say."""
        return [
            str(item.TextValue)
            for summary in self._described(description)
            for section in summary.ContentSequence
            for item in section.get("ContentSequence", ())
        ]

    def _described(self, description: str) -> list[Dataset]:
        return [each for each in self._objects if each.SeriesDescription == description]

    def _series(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for each in self._orthanc.get("/series?expand"):
            yield each["ID"], each["MainDicomTags"]


def _colours(image: Dataset) -> int:
    pixels = image.pixel_array.reshape(-1, 3)
    return len(np.unique(pixels[np.ptp(pixels.astype(int), axis=-1) > SATURATED], axis=0))
