"""One HTML page with what came back: text, figures, and the overlays to leaf through."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from deploy.answer import Answered


def write_page(path: Path, answered: Sequence[Answered]) -> Path:
    """Write the page, self-contained: pictures are within it."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape()
    )
    studies = [
        {
            "title": f"{each.title}; {each.analysis}",
            "probability": each.probability,
            "text": each.text,
            "seconds": each.seconds,
            "overlays": [_png(overlay) for overlay in each.overlays],
        }
        for each in answered
    ]
    path.write_text(templates.get_template("page.html").render(studies=studies))
    return path


def _png(overlay: Path) -> str:
    """The picture of a Secondary Capture instance as base64 PNG."""
    stream = BytesIO()
    Image.fromarray(pydicom.dcmread(overlay).pixel_array).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
