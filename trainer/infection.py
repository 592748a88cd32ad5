"""What acute infection does to cerebrospinal fluid on T2, as drawn for synthetic patients.

After Cüce et al., Front Med 2025;12:1659653, as far as its abstract tells: fine-scale filtered
features tell most, and the parenchyma below the lentiform nucleus, perivascular spaces included,
tells more than the ventricles. What infection changes there is our proposal: fluid 3 to 8 % darker,
grain of about a millimetre, more and wider perivascular spaces. A cartoon, never for claims.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.phantom import Case, draw_case

INFECTION_STREAM: Final = 4  # phantom.py and synthesize.py draw from streams 0 to 3

# Share of the effect that ventricles show: the paper's models are clearly worse there.
VENTRICLES_SHARE: Final = 1 / 3
# The paper's accuracy of 78.6 %, precision of 84.1 % and F1 of 76.1 % leave a recall of 69.5 %: so
# many infected patients show little, and this keeps the reachable accuracy near the paper's.
HARDLY_ANY: Final = 0.25
FAINT: Final = 0.1  # share of the effect that these show

DIMMING: Final = (0.03, 0.08)
GRAIN: Final = 13.0  # percent of the signal of fluid, at an effect of 1
MORE_SPACES: Final = 6.0  # per side, at an effect of 1
WIDER_SPACES: Final = 0.4  # at an effect of 1


@dataclass(frozen=True)
class FluidSigns:
    """What infection changes below the lentiform nucleus; VENTRICLES_SHARE of it in ventricles.

    Attributes:
        dimming: share of its signal that fluid loses.
        grain: deviation of added texture, percent of the signal of fluid.
        spaces: perivascular spaces of either side; ventricles have none.
        space_mm: their mean radius.
    """

    dimming: float
    grain: float
    spaces: int
    space_mm: float


@dataclass(frozen=True)
class InfectionCase:
    """One synthetic patient, as an axial T2 shows them.

    Attributes:
        head: whose head it is, with its signs of hypotension, if any.
        positive: has an infection, whether the MRI shows it or not.
        usual: how fluid would look in health.
        shown: how it does look.
    """

    head: Case
    positive: bool
    usual: FluidSigns
    shown: FluidSigns

    @property
    def seed(self) -> int:
        """Of head and signs."""
        return self.head.seed

    def healthy(self) -> "InfectionCase":
        """The same head without infection."""
        return dataclasses.replace(self, shown=self.usual)


def draw_infection(
    seed: int, positive: bool, severity: float = 1.0, head: Case | None = None
) -> InfectionCase:
    """Draw a patient.

    Args:
        seed: decides everything that is random about the case.
        positive: whether the patient has an infection.
        severity: factor on the effect.
        head: whose head it is; without, one of this seed without signs of hypotension.
    """
    rng = np.random.default_rng([seed, INFECTION_STREAM])
    usual = FluidSigns(
        dimming=0.0,
        grain=float(abs(rng.normal(0, 0.8))),
        spaces=int(rng.poisson(4)),
        space_mm=float(rng.uniform(0.6, 0.9)),
    )
    effect = float(rng.beta(2, 1.6))
    share = severity * (FAINT if rng.random() < HARDLY_ANY else 1.0)
    shown = _infected(usual, effect, share)
    case = draw_case(seed, positive=False) if head is None else head
    return InfectionCase(case, positive, usual, shown if positive else usual)


def _infected(usual: FluidSigns, effect: float, share: float) -> FluidSigns:
    """How fluid looks with an effect of 0 to 1, of which a share is seen."""
    least, most = DIMMING
    return FluidSigns(
        dimming=share * (least + (most - least) * effect),
        grain=float(np.hypot(usual.grain, GRAIN * share * effect)),
        spaces=usual.spaces + round(MORE_SPACES * share * effect),
        space_mm=usual.space_mm * (1 + WIDER_SPACES * share * effect),
    )
