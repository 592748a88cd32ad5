"""What browsers are told with every answer, whoever gives it and however it ends."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

STATIC: Final = "/static/"

POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What a page may load: nothing of others, and no script or style within the page."""

REPORT_POLICY: Final = "; ".join(
    (
        "sandbox",
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""What a report may do that others wrote, with styles and pictures within itself: be looked at.

It has no origin, so it runs no script, sends no form and sees nothing of the console, in a frame of
a page of ours as well as by itself."""

NO_FEATURES: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "publickey-credentials-get",
        "screen-wake-lock",
        "serial",
        "usb",
        "xr-spatial-tracking",
    )
)

ALWAYS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # Nobody else learns which study was looked at. With no-referrer, browsers would send
        # "Origin: null" with our own forms, and those could not be told from others'.
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": NO_FEATURES,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)

OF_REPORTS: Mapping[str, str] = MappingProxyType(
    {"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
)
"""What these have otherwise."""

YEAR_SECONDS: Final = 31_536_000


class Answer:
    """Sends an answer with these headers, and knows whether it was begun."""

    def __init__(self, send: Send, path: str, is_encrypted: bool) -> None:
        self._send = send
        self._headers = dict(ALWAYS)
        if not path.startswith(STATIC):
            self._headers["Cache-Control"] = "no-store"
        if is_encrypted:
            self._headers["Strict-Transport-Security"] = f"max-age={YEAR_SECONDS}"
        self.is_begun = False

    async def __call__(self, message: Message) -> None:
        """Send on what an application sends."""
        if message["type"] == "http.response.start":
            self.is_begun = True
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            is_report = headers.get("Content-Security-Policy") == REPORT_POLICY
            headers.update({**self._headers, **(OF_REPORTS if is_report else {})})
        await self._send(message)
