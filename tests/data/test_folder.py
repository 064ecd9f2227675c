"""Pictures in folders: every mode of Pillow, transparency, turns, wide pixels, animations."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vaekernels.data.decode import Decoding, decode
from vaekernels.data.folder import scan_folder
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


@pytest.mark.parametrize(
    ("background", "colour"),
    [("black", (0, 0, 0)), ("#0a141e", (10, 20, 30)), ("#0a141e00", (10, 20, 30))],
)
@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "RGB key", "L key"])
def test_transparent_pixels_show_the_background(tmp_path, background, colour, kind):
    hidden = (240, 240, 240)
    image = transparent(kind, hidden)
    key = {"RGB key": hidden, "L key": 240}.get(kind)
    folder = save(tmp_path, image, **({} if key is None else {"transparency": key}))
    read = pixels(folder, background=background, channels=3)
    assert read[5, 5].tolist() == list(colour)
    assert (read[3, 2] == 200).all()
    if kind in ("RGBA", "LA"):
        assert abs(read[0, 0] - (100 * 128 + np.array(colour) * 127) / 255).max() <= 1


def test_decode_reads_files_and_bytes(tmp_path):
    picture = transparent("RGBA", (0, 0, 0))
    content = io.BytesIO()
    picture.save(content, "png")
    path = save(tmp_path, picture) / "a.png"
    for how in (Decoding(), Decoding(channels=1, size=(3, 4), background="red")):
        image = decode(path, how)
        assert image.shape == (how.channels, *(how.size or (6, 6)))
        assert image.equal(decode(content.getvalue(), how))
    with pytest.raises(ValueError, match="^shard 3, b.png: cannot be read as an image"):
        decode(content.getvalue()[:-30], Decoding(), "shard 3, b.png")
    with pytest.raises(ValueError, match="^picture: not an image that Pillow can read"):
        decode(b"", Decoding())


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("crop", [[100] * 4] * 4),
        ("pad", [[255] * 4, [0, 100, 100, 200], [0, 100, 100, 200], [255] * 4]),
        ("stretch", [[0, 100, 100, 200]] * 4),
    ],
)
def test_how_a_picture_becomes_its_size(tmp_path, fit, expected):
    wide = np.repeat([[0, 100, 100, 200]], 8, 0).repeat(4, 1).astype(np.uint8)  # 8 x 16
    path = save(tmp_path, Image.fromarray(wide)) / "a.png"
    how = Decoding(channels=1, size=(4, 4), fit=fit, resample="box")
    assert decode(path, how)[0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 4}, "1 or 3 channels; got 4"),
        ({"fit": "cover"}, "fit must be one of crop, pad, stretch; got 'cover'"),
        ({"resample": "best"}, "resample must be one of nearest, .*; got 'best'"),
        ({"background": "#12"}, "background must be a colour such as .*; got '#12'"),
    ],
)
def test_decodings_that_do_not_exist(values, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**values)


def broken_folder(folder):
    """Two pictures, and much that is none."""
    save(folder, Image.new("L", (8, 8), 30), "good 1.png")
    (folder / "notes.txt").write_text("text")
    (folder / ".hidden.png").write_text("text")
    (folder / "text.png").write_text("text")
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    save(folder, Image.fromarray(noise), "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:70])
    save(folder, Image.fromarray(np.full((8, 8), 2.0, np.float32)), "wide.tif")
    (folder / "link.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "empty").mkdir()
    save(folder, Image.new("L", (8, 8), 40), "good 2.png")
    return folder


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_left_out_and_said(tmp_path, lazy, workers):
    folder = broken_folder(tmp_path)
    with pytest.warns(UserWarning, match=r"7 left out: link\.png .* and 4 more") as caught:
        data = load_images(folder, strict=False, lazy=lazy, workers=workers)
    assert len(caught) == 1
    assert data.files == ("good 1.png", "good 2.png")
    read = data.get(data.ids)
    assert read.x[:, 0, 0, 0].tolist() == [30, 40]
    assert read.ids.tolist() == [0, 1]
    assert not data.options["strict"]


def test_why_files_are_left_out(tmp_path):
    with pytest.warns(UserWarning, match="7 left out"):
        data = scan_folder(broken_folder(tmp_path), strict=False)
    reasons = dict(each.rstrip(")").split(" (", 1) for each in data.skipped)
    assert reasons.keys() == {
        *("wide.tif", "torn.png", "text.png", "notes.txt", "link.png", "loop.png", "up")
    }
    assert reasons["wide.tif"].startswith("floating pixels must lie in [0, 1]")
    assert reasons["torn.png"].startswith("cannot be read as an image")
    assert reasons["text.png"] == "not an image that Pillow can read"
    assert reasons["notes.txt"] == "not named as an image"
    assert reasons["link.png"] == reasons["loop.png"] == "not a file, or a broken link"
    assert reasons["up"] == "a link to a folder"


@pytest.mark.filterwarnings("ignore:data .* left out")
def test_broken_pictures_are_errors_if_strict(tmp_path):
    folder = broken_folder(tmp_path)
    with pytest.raises(ValueError, match=r"text\.png: not an image that Pillow can read"):
        scan_folder(folder)
    (folder / "text.png").unlink()
    data = scan_folder(folder)  # the headers of the others are as they should be
    for name, message in (("torn.png", "cannot be read"), ("wide.tif", "floating pixels")):
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            data.get(data.ids[data.files.index(name)][None])
    for path in (*folder.glob("good*"), folder / "wide.tif"):
        path.unlink()
    with pytest.raises(ValueError, match="none of its 1 images can be read"):
        scan_folder(folder, strict=False)


@pytest.mark.parametrize("lazy", [False, True])
def test_names_of_every_kind(tmp_path, lazy):
    names = ["a.PNG", "b/a.png", "b/é 日本.png", "b/c/a.png", "b/e\u0301.png", "line\nbreak.png"]
    if os.name == "posix":
        names.append(os.fsdecode(b"c/\xff.png"))  # not UTF-8
    for number, name in enumerate(sorted(names)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    (tmp_path / "z.png").symlink_to("a.PNG")  # one picture under two names
    data = load_images(tmp_path, lazy=lazy)
    assert data.files == (*sorted(names), "z.png")
    got = data.get(torch.arange(len(data))).x[:, 0, 0, 0].tolist()
    assert got == [*range(len(names)), 0]
    assert len(data.fingerprint()) > 64


def test_a_subfolder_that_cannot_be_read(tmp_path, monkeypatch):
    save(tmp_path / "a", Image.new("L", (4, 4)))
    original = os.scandir

    def scandir(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match=str(tmp_path / "a")):
        load_images(tmp_path)
