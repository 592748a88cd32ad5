"""OHIF as a site would serve it: its own pages, and the archive's DICOMweb on the same origin."""

import json
from pathlib import Path

import urllib3
from anyio import from_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ISOLATED = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""OHIF's decoders share memory between threads, which browsers allow to isolated pages only."""

ARCHIVE_SECONDS = 60

PASSED_ON = ("accept", "content-type")
"""Headers of a request that the archive needs."""

SETTINGS = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 10},
    "defaultDataSourceName": "pacs",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "pacs",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "pacs",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "wadoUriRoot": "/wado",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "staticWado": False,
                "singlepart": "bulkdata,video,pdf",
                "bulkDataURI": {"enabled": False},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


class Isolated:
    """Adds the headers above to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def isolated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *ISOLATED]
            await send(message)

        await self._app(scope, receive, isolated)


def ohif(dist: Path, archive_url: str) -> Starlette:
    """The application.

    Args:
        dist: the folder of OHIF's pages.
        archive_url: where the archive's web server answers; its DICOMweb is below `/dicom-web`.
    """
    archive = urllib3.PoolManager(maxsize=8, timeout=ARCHIVE_SECONDS)

    def dicomweb(request: Request) -> Response:
        """Ask the archive, or store what the viewer saves; Starlette runs this in a thread."""
        answer = archive.request(
            request.method,
            f"{archive_url}{request.url.path}?{request.url.query}",
            body=from_thread.run(request.body),
            headers={name: request.headers[name] for name in PASSED_ON if name in request.headers},
        )
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        return Response(answer.data, answer.status, {"Content-Type": kind})

    def settings(_request: Request) -> Response:
        return Response(f"window.config = {json.dumps(SETTINGS)};", media_type="text/javascript")

    def page(request: Request) -> Response:
        """A file; for any address that OHIF routes itself, the one page that it consists of."""
        file = (dist / request.path_params["path"]).resolve()
        inside = file.is_relative_to(dist.resolve()) and file.is_file()
        return FileResponse(file if inside else dist / "index.html")

    return Starlette(
        routes=[
            Route("/dicom-web/{path:path}", dicomweb, methods=["GET", "POST"]),
            Route("/wado", dicomweb),
            Route("/app-config.js", settings),
            Route("/{path:path}", page),
        ],
        middleware=[Middleware(Isolated)],
    )
