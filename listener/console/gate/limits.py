"""How fast somebody may ask, and what wrong guesses cost.

Strangers choose their addresses and the names that they try, so what is remembered is bounded: the
one that was heard of longest ago is forgotten. All of this belongs to one event loop.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

MOST_REMEMBERED: Final = 10_000

V6_NETWORK_BITS: Final = 64
"""One subscriber has at least so many IPv6 addresses: they count as one."""

FORGET_SECONDS: Final = 3600.0
"""Without a wrong guess for this long, the earlier ones are forgotten."""

USUAL_SECONDS: Final = 30 * 86400.0
"""For which a place counts as one that somebody signs in from."""

Value = TypeVar("Value")


class Pace:
    """So many at once, and so many in a second from then on.

    Args:
        burst: at once.
        per_second: later.
        clock: seconds, of any beginning.

    >>> now = [0.0]
    >>> pace = Pace(2, 0.5, lambda: now[0])
    >>> [pace.wait("10.0.0.5") for _ in range(3)]
    [0.0, 0.0, 2.0]
    >>> now[0] = 2.0
    >>> pace.wait("10.0.0.5")
    0.0
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float]) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left = _Recent[tuple[float, float]]()

    def wait(self, whom: str) -> float:
        """Seconds until somebody may ask again; 0: now, and it is counted."""
        now = self._clock()
        left, at = self._left.get(whom) or (self._burst, now)
        left = min(self._burst, left + max(0.0, now - at) * self._per_second)
        wait = max(0.0, (1 - left) / self._per_second)
        self._left.put(whom, (left if wait else left - 1, now))
        return wait


class Pauses:
    """Pauses that double with every wrong guess, once some were free.

    Args:
        free: wrong guesses without a pause: people mistype.
        first_seconds: of the pauses.
        longest_seconds: of the pauses.
        clock: seconds, of any beginning.

    >>> now = [0.0]
    >>> pauses = Pauses(1, 2.0, 60.0, lambda: now[0])
    >>> pauses.note("anna"); pauses.left("anna")
    0.0
    >>> pauses.note("anna"); pauses.left("anna")
    2.0
    >>> pauses.note("anna"); now[0] = 1.0; pauses.left("anna")
    3.0
    """

    def __init__(
        self,
        free: int,
        first_seconds: float,
        longest_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._free, self._clock = free, clock
        self._first_seconds, self._longest_seconds = first_seconds, longest_seconds
        self._wrong = _Recent[tuple[int, float]]()

    def left(self, whom: str) -> float:
        """Seconds until somebody may guess again; 0: now."""
        wrong, at = self._noted(whom)
        if wrong <= self._free:
            return 0.0
        doublings = min(wrong - self._free - 1, 30)
        pause = min(self._first_seconds * 2.0**doublings, self._longest_seconds)
        # A clock that was set back makes no pause longer.
        return min(pause, max(0.0, at + pause - self._clock()))

    def note(self, whom: str) -> None:
        """Count a guess; noted before it is looked at, so that many at once are many."""
        wrong, _ = self._noted(whom)
        self._wrong.put(whom, (wrong + 1, self._clock()))

    def take_back(self, whom: str) -> None:
        """The guess that was noted last was right: it does not count."""
        wrong, at = self._noted(whom)
        self._wrong.put(whom, (max(0, wrong - 1), at))

    def forgive(self, whom: str) -> None:
        """Forget all wrong guesses."""
        self._wrong.drop(whom)

    def _noted(self, whom: str) -> tuple[int, float]:
        now = self._clock()
        wrong, at = self._wrong.get(whom) or (0, now)
        return (0, now) if now - at >= FORGET_SECONDS else (wrong, at)


class Usual:
    """Who signed in from where lately; in a month it is forgotten.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = _Recent[float]()

    def note(self, whom: str) -> None:
        """They signed in."""
        self._at.put(whom, self._clock())

    def has(self, whom: str) -> bool:
        """Whether they did lately."""
        at = self._at.get(whom)
        return at is not None and self._clock() - at < USUAL_SECONDS


class _Recent(Generic[Value]):
    """The values that were put last."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        return self._values.get(key)

    def put(self, key: str, value: Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > MOST_REMEMBERED:
            self._values.popitem(last=False)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)


def subscriber(address: str) -> str:
    """What counts as one address.

    >>> subscriber("2001:db8:1:2:3:4:5:6")
    '2001:db8:1:2::/64'
    >>> subscriber("10.0.0.5")
    '10.0.0.5'
    """
    try:
        if ipaddress.ip_address(address).version == 4:
            return address
        return str(ipaddress.ip_network(f"{address}/{V6_NETWORK_BITS}", strict=False))
    except ValueError:
        return address
