"""How values are written on pages: times of the server with their zone, sizes, shares, seconds."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from markupsafe import Markup, escape

from listener.console.refusals import in_words

NOTHING: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"

BINARY_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


def when(seconds: float | None) -> Markup:
    """A time, as the server's clock has it.

    >>> str(when(None))
    '–'
    """
    if seconds is None:
        return Markup(NOTHING)
    at = datetime.fromtimestamp(seconds).astimezone()
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M:%S %Z")
    )


def size(count: float) -> str:
    """Bytes in words.

    >>> size(1536), size(12)
    ('1.5 KiB', '12 bytes')
    """
    for unit in BINARY_UNITS:
        if count < 1024 or unit == BINARY_UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 as percent.

    >>> percent(0.1234), percent(None)
    ('12.3 %', '–')
    """
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def apart(difference: float) -> str:
    """A difference of two shares of 1 in percentage points, with a sign that is read as one.

    >>> apart(-0.1234), apart(0.5), apart(-0.0001)
    ('−12.3', '+50.0', '+0.0')
    """
    points = round(100 * difference, 1) + 0.0
    return f"{points:+.1f}".replace("-", MINUS)


def seconds(span: float | None) -> str:
    """A span of time.

    >>> seconds(3.21), seconds(75), seconds(7300), seconds(None)
    ('3.2 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if span is None:
        return NOTHING
    if span < 60:
        return f"{span:.1f} s"
    minutes, rest = divmod(round(span), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def person(name: str) -> str:
    """A person name of DICOM (PS3.5 6.2.1) as people write it.

    >>> person("Doe^Jane^^Dr=...")
    'Doe, Jane, Dr'
    """
    parts = (part.strip() for part in name.partition("=")[0].split("^"))
    return ", ".join(part for part in parts if part)


def day(date: str) -> str:
    """A date of DICOM (PS3.5 6.2, DA) as ISO 8601 has it; what is no date stays as it is.

    >>> day("20260301"), day("2026"), day("")
    ('2026-03-01', '2026', '')
    """
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def plain(value: Any) -> Any:
    """A value of a summary: numbers short, lists joined.

    >>> plain(0.123456), plain([1, 2])
    ('0.1235', '1, 2')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(plain(each)) for each in value)
    return NOTHING if value is None else escape(value)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "when": when,
        "size": size,
        "percent": percent,
        "apart": apart,
        "seconds": seconds,
        "person": person,
        "day": day,
        "in_words": in_words,
        "plain": plain,
    }
)
