"""Stored pixel values of an image object, whatever its transfer syntax, without dying of it.

Only decoders with licences that fit are used (no pylibjpeg-libjpeg, which is GPL). GDCM is the one
that reads lossless JPEG; it calls abort() on some broken streams, which no Python handler catches,
so it works in a process of its own, started when first needed and kept for the series. That process
may also be killed for want of memory, which says nothing about the stream: what ends two of them is
what counts as broken.
"""

import ctypes
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import RLELossless

from listener.series import BROKEN, Header, may_pass

Stored: TypeAlias = NDArray[np.integer[Any]]

# Tried in this order, as far as they are installed and know the transfer syntax.
PLUGINS: Final = ("pydicom", "pylibjpeg", "pyjpegls", "pillow", "gdcm")
DIES_OF_BROKEN_STREAMS: Final = frozenset({"gdcm"})
UNDECODABLE: Final = (*BROKEN, BrokenProcessPool, RuntimeError)

# A decoder that takes this long over one object hangs: 500 frames take some ten seconds.
OBJECT_SECONDS: Final = 300.0

# prctl(2): the signal that the kernel sends to this process when its parent dies.
PR_SET_PDEATHSIG: Final = 1


class Undecodable(Exception):
    """No decoder could read the pixels of an object."""


class Decoder:
    """Decodes the objects of one series; to be closed, since it may hold a process."""

    def __init__(self) -> None:
        self._aside: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._aside is not None:
            self._aside.shutdown(wait=False)  # one that hangs must not hold us up

    def stored_values(self, dataset: Dataset) -> list[Stored]:
        """One (rows, columns) array of stored values (PS3.5 8.1.1) for each frame, in file order.

        Raises:
            Undecodable: no decoder succeeded; the message names the last error's type.
            OSError: no process can be started at present.
        """
        failure: Exception = NotImplementedError()
        for plugin in _plugins(dataset):
            try:
                return self._decoded(dataset, plugin)
            except UNDECODABLE as error:
                if may_pass(error):
                    raise
                failure = error
        raise Undecodable(type(failure).__name__) from failure

    def _decoded(self, dataset: Dataset, plugin: str) -> list[Stored]:
        if plugin not in DIES_OF_BROKEN_STREAMS:
            return _frames(dataset, plugin)
        pixels = dataset.group_dataset(0x0028)
        pixels.PixelData = dataset.PixelData
        pixels["PixelData"].is_undefined_length = True
        pixels.file_meta = dataset.file_meta
        try:
            return self._decoded_aside(pixels, plugin)
        except BrokenProcessPool:
            self._aside = None
            return self._decoded_aside(pixels, plugin)

    def _decoded_aside(self, pixels: Dataset, plugin: str) -> list[Stored]:
        if self._aside is None:
            # Not forked: a copy of a process with warm networks and threads may deadlock.
            self._aside = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_end_with_parent
            )
        return self._aside.submit(_frames, pixels, plugin).result(OBJECT_SECONDS)


def _end_with_parent() -> None:
    """Leave no decoder behind when the worker is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _plugins(dataset: Dataset) -> tuple[str, ...]:
    """The decoders to try; the empty name stands for pixels that need none."""
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        installed = get_decoder(syntax).available_plugins if syntax.is_compressed else ("",)
    except UNDECODABLE:
        return ()
    return tuple(plugin for plugin in ("", *PLUGINS) if plugin in installed)


def _frames(dataset: Dataset, plugin: str) -> list[Stored]:
    frames = iter_pixels(dataset, decoding_plugin=plugin)
    return [_used_bits(dataset, frame) for frame in frames]


def _used_bits(dataset: Dataset, cells: Stored) -> Stored:
    """Pixel cells without what lies above the high bit: old scanners kept overlays there.

    Compressed cells, RLE apart, hold nothing else than values.
    """
    header = Header(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    used = header.whole("BitsStored") or 0
    spare = (header.whole("BitsAllocated") or 0) - used
    as_stored = syntax == RLELossless or not syntax.is_compressed
    if not as_stored or header.whole("HighBit") != used - 1 or spare <= 0:
        return cells
    values: Stored = (cells << spare) >> spare
    return values
