"""Decoding: every mode in 8-bit RGB on white, upright, within limits, by no other program."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from hmgr_jax.data.pictures import decode
from hmgr_jax.data.pictures.decode import load_picture, to_rgb
from hmgr_jax.errors import UserError

RAMP = np.tile(np.linspace(0, 1, 17)[None], (2, 1))


def _png(path, values, depth, kind, *chunks):
    """A PNG as it stands in the specification: Pillow cannot write 16 bits of RGB."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind, channels):
    values = np.repeat(RAMP[..., None] * 65535, channels, 2)
    found = np.asarray(load_picture(_png(tmp_path / "a.png", values, 16, kind)))
    np.testing.assert_allclose(found, np.repeat(RAMP[..., None] * 255, 3, 2), atol=1)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (RAMP * 255, RAMP * 255),
        (RAMP * 65535, RAMP * 255),
        (RAMP, RAMP * 255),
        (RAMP * 1e6 - 500, RAMP * 255),  # stretched
        (np.full((2, 2), np.nan), np.zeros((2, 2))),
    ],
)
def test_floats_are_scaled_by_the_least_white_that_fits(array, wanted):
    found = np.asarray(to_rgb(Image.fromarray(array.astype(np.float32))))
    np.testing.assert_allclose(found, np.repeat(wanted[..., None], 3, 2), atol=1)


def test_32_bits_of_grey_are_scaled():
    for white in (255, 65535, 2**31 - 1):
        image = Image.fromarray((RAMP * white).astype(np.int32))
        assert image.mode == "I"
        np.testing.assert_allclose(np.asarray(to_rgb(image))[..., 0], RAMP * 255, atol=1)


RED_ON_NOTHING = np.zeros((4, 4, 4), np.uint8)
RED_ON_NOTHING[1:3, 1:3] = (255, 0, 0, 255)


def _transparent(mode):
    image = Image.fromarray(RED_ON_NOTHING)
    if mode == "P":
        image = image.convert("RGB").quantize(2)
        image.info["transparency"] = image.getpixel((0, 0))
        return image
    if mode == "RGB":
        image = image.convert("RGB")
        image.info["transparency"] = (0, 0, 0)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa", "P", "RGB"])
def test_what_is_transparent_is_white(mode):
    source = _transparent("LA" if mode == "La" else mode if mode != "PA" else "P")
    if mode == "PA":
        source = source.convert("PA")
    image = source.convert(mode) if mode == "La" else source
    assert image.mode == mode
    found = np.asarray(to_rgb(image))
    assert found.shape == (4, 4, 3)
    assert (found[0] == 255).all()
    assert (found[1:3, 1:3, 1] < 100).all()


def test_a_transparent_grey_of_16_bits_is_white(tmp_path):
    values = np.array([[0, 1000, 65535]])
    found = load_picture(
        _png(tmp_path / "a.png", values, 16, 0, (b"tRNS", struct.pack(">H", 1000)))
    )
    assert np.asarray(found)[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX", "LAB"])
def test_every_other_mode_keeps_its_colours(mode):
    image = Image.new("RGB", (3, 3), (255, 255, 255) if mode in ("1", "L") else (204, 51, 51))
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        converted = image.convert(mode)
    assert converted.mode == mode
    np.testing.assert_allclose(np.asarray(to_rgb(converted)), np.asarray(image), atol=6)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_once(tmp_path, kind, orientation):
    """The red corner is above on the left whatever the camera wrote (TIFF is Pillow's own turn)."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    turned = Image.fromarray(upright)
    if (turn := decode.TURNS.get(orientation)) is not None:
        back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        turned = turned.transpose(back.get(orientation, turn))
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    turned.save(tmp_path / f"a.{kind}", exif=exif)
    found = np.asarray(load_picture(tmp_path / f"a.{kind}")).astype(int)
    assert found.shape == upright.shape
    assert np.abs(found - upright)[..., 0].mean() < 12


@pytest.mark.parametrize("exif", [b"II*\0\x08", b"", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40])
def test_damaged_exif_counts_as_none(tmp_path, exif):
    path = _png(tmp_path / "a.png", np.full((2, 3, 3), 70), 8, 2, (b"eXIf", exif))
    assert (np.asarray(load_picture(path)) == 70).all()


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started"))
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("a.png", "a.eps"):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(UserError, match=rf"{name} is not a readable picture \(none of AVIF, "):
            load_picture(tmp_path / name)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    for side in (13_000, 30_000):  # Pillow warns of the first and refuses the second
        path = _png(tmp_path / "a.png", np.zeros((1, 1)), 8, 0)
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        for whole in (True, False):
            with pytest.raises(UserError, match=r"a\.png declares more than 89 million pixels"):
                load_picture(path, decode=whole)


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "jp2"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for part in (len(whole) // 2, 20, 0):
        path.write_bytes(whole[:part])
        with pytest.raises(UserError, match=rf"a\.{kind} is not a readable picture"):
            load_picture(path)


def test_heic_is_named(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match=r"a\.HEIC .*export HEIC as JPEG"):
        load_picture(tmp_path / "a.HEIC")
