"""Stored pixel values of an image object, whatever its transfer syntax, without dying of it.

Only decoders with licences that fit are used (no pylibjpeg-libjpeg, which is GPL). GDCM is the one
that reads lossless JPEG; it calls abort() on some broken streams, which no Python handler catches,
so it works in a process of its own, started when first needed and kept for the series. That process
may also be killed for want of memory, which says nothing about the stream: what ends two of them is
what counts as broken.
"""

import ctypes
import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from math import ceil
from multiprocessing import get_context
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import RLELossless

from listener.series import BROKEN, Header, may_pass
from worker.codestream import Claim, claim
from worker.limits import LIMITS

Stored: TypeAlias = NDArray[np.integer[Any]]

# Tried in this order, as far as they are installed and know the transfer syntax.
PLUGINS: Final = ("pydicom", "pylibjpeg", "pyjpegls", "pillow", "gdcm")
DIES_OF_BROKEN_STREAMS: Final = frozenset({"gdcm"})
# Its Rust panics at a broken stream, which is no Exception and would end the worker.
PANICS: Final = {RLELossless: frozenset({"pylibjpeg"})}
UNDECODABLE: Final = (*BROKEN, BrokenProcessPool, RuntimeError)

# Of a compressed frame, against its pixels uncompressed: no codec makes noise larger by half.
LARGEST_RATIO: Final = 2
LARGEST_OVERHEAD_BYTES: Final = 1 << 20

# Of the process aside: 2048 x 2048 pixels of 500 frames, and what libraries map without using it.
ADDRESS_BYTES: Final = 8 << 30

# prctl(2): the signal that the kernel sends to this process when its parent dies.
PR_SET_PDEATHSIG: Final = 1


class Undecodable(Exception):
    """No decoder could read the pixels of an object, or may try."""


class Decoder:
    """Decodes the objects of one series; to be closed, since it may hold a process.

    Args:
        seconds: for all of them.
    """

    def __init__(self, seconds: float = LIMITS.decode_seconds) -> None:
        self._until = monotonic() + seconds
        self._seconds = seconds
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
        try:
            _require_time(self._until)
            _disbelieve(dataset)
            return self._decoded_by_any(dataset)
        except TimeoutError as error:
            raise Undecodable(f"they take longer than {self._seconds:g} s") from error

    def _decoded_by_any(self, dataset: Dataset) -> list[Stored]:
        failure: Exception = NotImplementedError()
        for plugin in _plugins(dataset):
            try:
                return self._decoded(dataset, plugin)
            except TimeoutError:
                raise
            except UNDECODABLE as error:
                if may_pass(error):
                    raise
                failure = error
        raise Undecodable(type(failure).__name__) from failure

    def _decoded(self, dataset: Dataset, plugin: str) -> list[Stored]:
        if plugin not in DIES_OF_BROKEN_STREAMS:
            return _frames(dataset, plugin, self._until)
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
                1,
                mp_context=get_context("spawn"),
                initializer=_confine,
                initargs=(ceil(self._seconds),),
            )
        return self._aside.submit(_frames, pixels, plugin, self._until).result(
            max(0.0, self._until - monotonic())
        )


def _confine(seconds: int) -> None:
    """Leave no decoder behind that hangs, or whose worker was killed; and bound its memory."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))


def _disbelieve(dataset: Dataset) -> None:
    """Keep from the decoders what claims to be larger than the header says.

    Raises:
        Undecodable: it does.
    """
    header = Header(dataset)
    rows, columns = header.whole("Rows") or 0, header.whole("Columns") or 0
    size = rows * columns * max(1, (header.whole("BitsAllocated") or 0) // 8)
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed or syntax.is_deflated:
            return
        frames = header.whole("NumberOfFrames") or 1
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            found = claim(frame, syntax)
            if found not in (None, Claim(rows, columns, 1)):
                raise Undecodable(
                    f"a codestream of {found.rows} x {found.columns} pixels in {found.samples} "
                    f"component(s) where the header says {rows} x {columns} in 1"
                )
            if len(frame) > LARGEST_RATIO * size + LARGEST_OVERHEAD_BYTES:
                raise Undecodable(f"a codestream of {len(frame)} bytes for {size} bytes of pixels")
    except UNDECODABLE as error:
        raise Undecodable(type(error).__name__) from error


def _plugins(dataset: Dataset) -> tuple[str, ...]:
    """The decoders to try; the empty name stands for pixels that need none."""
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        installed = get_decoder(syntax).available_plugins if syntax.is_compressed else ("",)
    except UNDECODABLE:
        return ()
    trusted = set(installed) - PANICS.get(syntax, frozenset())
    return tuple(plugin for plugin in ("", *PLUGINS) if plugin in trusted)


def _frames(dataset: Dataset, plugin: str, until: float) -> list[Stored]:
    """All frames of an object, one after another while there is time.

    Raises:
        TimeoutError: they were not done in time, by the clock that all processes share.
    """
    found = []
    for frame in iter_pixels(dataset, decoding_plugin=plugin):
        _require_time(until)
        found.append(_used_bits(dataset, frame))
    return found


def _require_time(until: float) -> None:
    if monotonic() > until:
        raise TimeoutError


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
