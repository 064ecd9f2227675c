"""Pictures in folders: every mode of Pillow, transparency, turns, wide pixels, animations."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from vaekernels.training import load_images

COLOUR = (200, 60, 30)
GREY = 98  # of COLOUR, by ITU-R 601-2


def save(folder, image, name="a.png", **options):
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)
    return folder


def pixels(folder, **options):
    """(H, W, C) of the only image."""
    return load_images(folder, **options).images[0].permute(1, 2, 0).numpy().astype(int)


def in_mode(mode):
    """A picture of COLOUR, or where the mode is grey of GREY, in ``mode``."""
    if mode == "F":
        return Image.fromarray(np.full((6, 8), GREY / 255, np.float32))
    if mode == "I":
        return Image.fromarray(np.full((6, 8), GREY, np.int32))
    if mode.startswith("I;16"):
        wide = Image.fromarray(np.full((6, 8), GREY * 257, np.uint16))
        if mode == "I;16":
            return wide
        order = "big" if mode == "I;16B" else "little"
        return Image.frombytes(mode, (8, 6), (GREY * 257).to_bytes(2, order) * 48)
    colour = Image.new("RGB", (8, 6), COLOUR)
    if mode == "1":
        return Image.new("1", (8, 6), 1)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(colour, *profiles, outputMode="LAB")
    if mode == "RGBX":
        return Image.merge("RGBX", (*colour.split(), Image.new("L", (8, 6), 7)))
    if mode == "La":
        return colour.convert("LA").convert("La")
    if mode in ("P", "PA"):
        return colour.convert("P", palette=Image.Palette.ADAPTIVE).convert(mode)
    if mode == "RGBa":
        return colour.convert("RGBA").convert("RGBa")
    return colour.convert(mode)


MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
    *("HSV", "I", "F", "I;16", "I;16B", "I;16L"),
)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(tmp_path, monkeypatch, mode, channels):
    # No format holds some of them: they come from no file.
    (tmp_path / "a.tif").touch()
    monkeypatch.setattr(Image, "open", lambda file: in_mode(mode))
    data = load_images(tmp_path, channels=channels)
    grey = mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")
    assert data.shape == (channels or (1 if grey else 3), 6, 8)
    expected = 255 if mode == "1" else GREY if grey or channels == 1 else COLOUR
    tolerance = {"LAB": 3, "HSV": 4, "YCbCr": 2}.get(mode, 1)  # rounded on their way
    assert abs(pixels(tmp_path, channels=channels) - expected).max() <= tolerance


def transparent(kind, hidden):
    """A picture with one visible pixel; ``hidden`` is the colour below the others."""
    rgba = Image.new("RGBA", (6, 6), (*hidden, 0))
    rgba.putpixel((2, 3), (200, 200, 200, 255))
    rgba.putpixel((0, 0), (100, 100, 100, 128))
    if kind in ("RGBA", "webp", "tif"):
        return rgba
    if kind == "LA":
        return rgba.convert("LA")
    rgba.putpixel((0, 0), (*hidden, 0))  # one colour or another, no blends
    if kind == "palette":
        image = Image.new("P", (6, 6), 1)
        image.putpalette([200, 200, 200, *hidden])
        image.putpixel((2, 3), 0)
        image.info["transparency"] = 1
        return image
    return rgba.convert("RGB" if kind == "RGB key" else "L")


@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "webp", "tif", "palette", "gif", "RGB key", "L key"]
)
@pytest.mark.parametrize("channels", [None, 1])
def test_what_is_below_transparent_pixels_does_not_show(tmp_path, kind, channels):
    read = []
    for number, hidden in enumerate([(0, 0, 0), (240, 30, 10)]):
        image = transparent("palette" if kind == "gif" else kind, hidden)
        name = f"a.{kind}" if kind in ("webp", "tif", "gif") else "a.png"
        options = {"lossless": True, "exact": True} if kind == "webp" else {}
        if "key" in kind:
            options["transparency"] = hidden if kind == "RGB key" else image.getpixel((5, 5))
        read.append(pixels(save(tmp_path / str(number), image, name, **options), channels=channels))
    assert np.array_equal(*read)
    assert (read[0][3, 2] == 200).all()
    assert (read[0][5, 5] == 255).all()  # white shows through
    if kind in ("RGBA", "LA", "webp", "tif"):
        assert abs(read[0][0, 0] - (100 * 128 + 255 * 127) / 255).max() <= 1


def test_transparent_grey_of_sixteen_bits(tmp_path):
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = np.array([[7, 257 * 9], [257 * 200, 7]], ">u2")
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    content += chunk(b"tRNS", struct.pack(">H", 7))
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    (tmp_path / "a.png").write_bytes(content + chunk(b"IEND", b""))
    assert pixels(tmp_path).flatten().tolist() == [255, 9, 200, 255]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_turns_of_exif_are_made(tmp_path, suffix, turn):
    right = np.zeros((16, 24), np.uint8)
    right[:8, :8], right[8:, 16:] = 255, 120
    # What is stored, so that the turn gives ``right`` (the EXIF standard, tag 0x0112).
    stored = {
        1: right,
        2: right[:, ::-1],
        3: right[::-1, ::-1],
        4: right[::-1],
        5: right.T,
        6: np.rot90(right),
        7: right[::-1, ::-1].T,
        8: np.rot90(right, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    save(tmp_path, Image.fromarray(stored.copy()), f"a.{suffix}", exif=exif, **options)
    assert abs(pixels(tmp_path, channels=1)[..., 0] - right).max() <= 8


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 128], [129, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[257 * 7 - 128, 257 * 7 + 128], [257 * 7 + 129, 256]], np.uint16), [7, 7, 8, 1]),
        (np.array([[0, 200], [255, 1]], np.int32), [0, 200, 255, 1]),
        (np.array([[0.0, 0.5], [1.0, 0.999]], np.float32), [0, 128, 255, 255]),
    ],
)
def test_wide_pixels(tmp_path, array, expected):
    save(tmp_path, Image.fromarray(array), "a.tif")
    assert pixels(tmp_path).flatten().tolist() == expected


@pytest.mark.parametrize("suffix", ["pgm", "png", "tif"])
def test_sixteen_bits_of_every_format(tmp_path, suffix):
    image = Image.fromarray(np.array([[0, 200], [257 * 128, 65535]], np.uint16))
    save(tmp_path, image, f"a.{suffix}")
    assert pixels(tmp_path).flatten().tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((4, 4), 500.0, np.float32),
            r"floating pixels must lie in \[0, 1\]; got \[500, 500",
        ),
        (np.full((4, 4), -0.1, np.float32), r"must lie in \[0, 1\]; got \[-0.1, -0.1\]"),
        (np.full((4, 4), np.nan, np.float32), r"got \[nan, nan\]"),
        (np.full((4, 4), np.inf, np.float32), r"got \[inf, inf\]"),
        (np.full((4, 4), 256, np.int32), r"32 bits must lie in \[0, 255\]; got \[256, 256\]"),
        (np.full((4, 4), -1, np.int32), r"32 bits must lie in \[0, 255\]; got \[-1, -1\]"),
    ],
)
def test_wide_pixels_out_of_range_are_refused(tmp_path, array, message):
    save(tmp_path, Image.fromarray(array), "a.tif")
    with pytest.raises(ValueError, match=rf"a\.tif: .*{message}"):
        load_images(tmp_path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (value, value, value)) for value in (200, 90, 10)]
    options = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with pytest.warns(
        UserWarning, match=rf"1 of 1 files have several frames .* a\.{suffix}; the f"
    ):
        data = load_images(tmp_path)
    assert data.images.shape[0] == 1
    assert set(data.images.flatten().tolist()) == {200}


def test_still_pictures_warn_of_nothing(tmp_path):
    for mode in ("L", "RGB", "P"):
        for suffix in ("gif", "png", "tif"):
            save(tmp_path, in_mode(mode), f"{mode}.{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of broken metadata
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif", "ppm"])
def test_cut_files_are_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    save(tmp_path, Image.fromarray(noise), f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    for size in (0, 3, 10, 60, len(whole) // 2):
        (tmp_path / f"a.{suffix}").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"a\.{suffix}: (not an image|cannot be read)"):
            load_images(tmp_path)
