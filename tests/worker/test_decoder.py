"""Pixels decode alike in every transfer syntax, and a broken stream costs no more than itself."""

import errno
import multiprocessing
import random
import resource
import struct
import time
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from tests.fuzz import images
from worker import decoder as decoder_module
from worker.decoder import PLUGINS, Decoder, Undecodable

PLAIN, RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = "1.dcm", "4.dcm", "5.dcm", "7.dcm", "9.dcm"


@pytest.fixture
def image(shared_data):
    """One real image, by the file name of its transfer syntax."""
    return lambda name: pydicom.dcmread(shared_data / "odd" / "transfer_syntaxes_mosaic" / name)


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a second process was started")

    monkeypatch.setattr(decoder_module, "ProcessPoolExecutor", refuse)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("name", [RLE, JPEG_LS, JPEG_2000])
def test_what_others_decode_is_kept_from_the_decoder_that_may_die(image, name):
    with Decoder() as decoder:
        (plain,) = decoder.stored_values(image(PLAIN))
        (values,) = decoder.stored_values(image(name))
    np.testing.assert_array_equal(values, plain)


def test_a_stream_that_kills_its_decoder_is_refused_and_the_next_series_is_read(image):
    broken = image(JPEG_LOSSLESS)
    (stream,) = generate_frames(broken.PixelData, number_of_frames=1)
    scan = stream.index(b"\xff\xda")
    broken.PixelData = encapsulate([stream[:scan] + b"\0\0" + stream[scan:]])  # GDCM aborts on it

    with Decoder() as decoder, pytest.raises(Undecodable, match="BrokenProcessPool"):
        decoder.stored_values(broken)
    with Decoder() as decoder:
        (values,) = decoder.stored_values(image(JPEG_LOSSLESS))
        (plain,) = decoder.stored_values(image(PLAIN))
    np.testing.assert_array_equal(values, plain)


def test_a_decoder_that_something_else_killed_is_started_again(image):
    others = set(multiprocessing.active_children())
    with Decoder() as decoder:
        (plain,) = decoder.stored_values(image(JPEG_LOSSLESS))
        (child,) = set(multiprocessing.active_children()) - others
        child.kill()
        child.join()
        (values,) = decoder.stored_values(image(JPEG_LOSSLESS))
    np.testing.assert_array_equal(values, plain)


def test_a_decoder_aside_has_limits_of_its_own(image):
    others = set(multiprocessing.active_children())
    with Decoder(seconds=55.5) as decoder:
        decoder.stored_values(image(JPEG_LOSSLESS))
        (child,) = set(multiprocessing.active_children()) - others
        assert resource.prlimit(child.pid, resource.RLIMIT_CPU) == (56, 56)
        assert resource.prlimit(child.pid, resource.RLIMIT_AS)[0] == decoder_module.ADDRESS_BYTES


def test_a_machine_that_starts_no_process_says_nothing_of_the_image(image, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(decoder_module, "ProcessPoolExecutor", refuse)
    with Decoder() as decoder, pytest.raises(OSError, match="Too many open files"):
        decoder.stored_values(image(JPEG_LOSSLESS))


def test_a_decoder_that_hangs_is_given_up(image):
    with Decoder(seconds=0.05) as decoder, pytest.raises(Undecodable, match=r"longer than 0\.05 s"):
        decoder.stored_values(image(JPEG_LOSSLESS))


@pytest.mark.usefixtures("no_process")
def test_pixels_of_an_unknown_transfer_syntax_are_refused(image):
    dataset = image(PLAIN)
    dataset.file_meta.TransferSyntaxUID = "1.2.3.4"
    with Decoder() as decoder, pytest.raises(Undecodable):
        decoder.stored_values(dataset)


@pytest.mark.usefixtures("no_process")
def test_an_object_without_pixels_is_refused(image):
    dataset = image(PLAIN)
    del dataset.PixelData
    with Decoder() as decoder, pytest.raises(Undecodable):
        decoder.stored_values(dataset)


def test_the_decoder_that_may_die_is_the_last_resort():
    assert PLUGINS[-1] == "gdcm"


def test_a_stream_that_panics_its_decoder_is_refused():
    _, files = images.one(random.Random("1:75"))  # segments that are longer than the frame
    dataset = pydicom.dcmread(BytesIO(files[0]))
    assert dataset.file_meta.TransferSyntaxUID == RLELossless
    with Decoder() as decoder, pytest.raises(Undecodable):
        decoder.stored_values(dataset)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("syntax", "spoil", "message"),
    [
        (images.JPEG_2000, lambda stream: patched(stream, b"\xff\x51", 6, ">L", 60_000),
         r"48 x 60000 pixels in 1 .* says 48 x 40"),
        (images.JPEG_2000, lambda stream: patched(stream, b"\xff\x51", 38, ">H", 16384),
         r"48 x 40 pixels in 16384 .* says 48 x 40"),
        (images.JPEG_LS, lambda stream: patched(stream, b"\xff\xf7", 5, ">H", 65535),
         "65535 x 40 pixels"),
        (images.JPEG, lambda stream: patched(stream, b"\xff\xc0", 7, ">H", 65535),
         "48 x 65535 pixels"),
        (images.RLE, lambda stream: stream + b"\x81\0" * 1_000_000, "2000000 bytes for 3840 bytes"),
    ],
)  # fmt: skip
def test_a_codestream_that_is_larger_than_its_header_says_reaches_no_decoder(
    monkeypatch, syntax, spoil, message
):
    monkeypatch.setattr(decoder_module, "_frames", lambda *_: pytest.fail("it was decoded"))
    stream = spoil(images.streams()[syntax])
    dataset = pydicom.dcmread(BytesIO(images.compressed(images.sound(1), syntax, stream)))
    if syntax == images.RLE:
        message = message.replace("2000000", str(len(stream)))
    with Decoder() as decoder, pytest.raises(Undecodable, match=message):
        decoder.stored_values(dataset)


def patched(stream, mark, offset, form, value):
    """A codestream with another number in the segment that a marker begins."""
    at = stream.index(mark) + offset
    new = struct.pack(form, value)
    return stream[:at] + new + stream[at + len(new) :]


def test_codecs_that_say_what_their_header_says_are_decoded():
    for syntax in (images.JPEG_2000, images.JPEG_LS, images.RLE):
        data = images.compressed(images.sound(1), syntax, images.streams()[syntax])
        with Decoder() as decoder:
            (values,) = decoder.stored_values(pydicom.dcmread(BytesIO(data)))
        np.testing.assert_array_equal(values, images.pixels())


def test_a_series_that_is_not_decoded_in_time_is_given_up(image):
    with Decoder(seconds=0) as decoder, pytest.raises(Undecodable, match="longer than 0 s"):
        decoder.stored_values(image(PLAIN))


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("syntax", [images.JPEG_2000, images.JPEG_LS, images.RLE])
def test_an_object_of_many_frames_is_given_up_among_them(monkeypatch, syntax):
    frames = 2000
    dataset = pydicom.dcmread(
        BytesIO(images.of_frames([images.streams()[syntax]] * frames, syntax))
    )
    taken = []
    used_bits = decoder_module._used_bits

    def slow(dataset, frame):
        taken.append(frame)
        time.sleep(0.05)
        return used_bits(dataset, frame)

    monkeypatch.setattr(decoder_module, "_used_bits", slow)
    with Decoder(seconds=1) as decoder, pytest.raises(Undecodable, match="longer than 1 s"):
        decoder.stored_values(dataset)
    assert 0 < len(taken) < 40
