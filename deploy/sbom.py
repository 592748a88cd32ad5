"""The bill of materials of an installation, in CycloneDX."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as Entry
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


@dataclass(frozen=True)
class Component:
    """One installed package, and the licences that it is under."""

    name: str
    version: str
    licences: tuple[str, ...]


def write_sbom(file: Path, components: Iterable[Component]) -> None:
    """Write a bill of materials as JSON; one that is there is replaced."""
    bom = Bom()
    for each in components:
        bom.components.add(
            Entry(
                name=each.name,
                version=each.version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, each.name, each.version),
                licenses=[DisjunctiveLicense(name=name) for name in each.licences],
            )
        )
    JsonV1Dot6(bom).output_to_file(str(file), allow_overwrite=True, indent=2)
