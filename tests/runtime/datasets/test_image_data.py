"""CIFAR-10 batches and class folders: small files in the published layouts, damaged and hostile ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, manifest_text
from dualsmooth.runtime.datasets.dataset import load_dataset
from dualsmooth.runtime.datasets.imagefolder import ImageFiles, random_box
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import read_results
from dualsmooth.runtime.files import sha256_of


def text(value: bytes) -> bytes:
    """A string as Python 2 pickles it."""
    return b"U" + bytes([len(value)]) + value


def python2_batch(images: np.ndarray, labels: list[int], *, names: str = "numpy.core.multiarray") -> bytes:
    """The bytes of a CIFAR-10 batch as its authors' Python 2 wrote them: protocol 2, byte strings, the old NumPy."""
    raw = images.reshape(len(images), -1).tobytes()
    array = (
        f"c{names}\n_reconstruct\ncnumpy\nndarray\n".encode() + b"K\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01J" + len(images).to_bytes(4, "little") + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    files = b"](" + b"".join(text(b"x.png") for _ in labels) + b"e"
    items = text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + numbers
    return b"\x80\x02}(" + items + text(b"data") + array + text(b"filenames") + files + b"u."


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 3, 32, 32), np.uint8)


def cifar(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(python2_batch(PIXELS + np.uint8(number), [number, 0, 9, 3]))
    (folder / "test_batch").write_bytes(python2_batch(PIXELS, [8, 7, 6, 5]))
    return root


def test_cifar10_as_its_authors_wrote_it(tmp_path: Path) -> None:
    test = load_dataset("cifar10", data_dir=cifar(tmp_path))
    np.testing.assert_array_equal(test.images, PIXELS)
    assert test.labels.tolist() == [8, 7, 6, 5]
    assert test.classes[8] == "ship"
    train = load_dataset("cifar10", split="train", data_dir=tmp_path / "cifar-10-batches-py")
    assert train.images.shape == (20, 3, 32, 32)
    assert train.labels[[0, 4, 8]].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(train.images[16:], PIXELS + np.uint8(5))


def test_our_reading_of_a_python2_batch_is_that_of_pickle() -> None:
    values = pickle.loads(python2_batch(PIXELS, [8, 7, 6, 5]), encoding="bytes")
    np.testing.assert_array_equal(values[b"data"].reshape(PIXELS.shape), PIXELS)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar10_written_again_by_python3(tmp_path: Path, protocol: int) -> None:
    values = {"data": PIXELS.reshape(4, -1), "labels": [1, 2, 3, 4]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(values, protocol))
    np.testing.assert_array_equal(load_dataset("cifar10", data_dir=tmp_path).images, PIXELS)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_code_in_a_batch_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Hostile(), {"data": Hostile(), "labels": [1]}, {"labels": [1], "data": eval}):
        for protocol in range(6):
            Path("test_batch").write_bytes(pickle.dumps(content, protocol))
            refused("cifar10", data_dir=tmp_path)
    for names in ("os", "builtins", "numpy.core"):
        Path("test_batch").write_bytes(python2_batch(PIXELS, [1, 2, 3, 4], names=names))
        refused("cifar10", data_dir=tmp_path)
    assert not Path("executed").exists()


def refused(name: str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_batches_are_refused(tmp_path: Path) -> None:
    whole = python2_batch(PIXELS, [1, 2, 3, 4])
    path = tmp_path / "test_batch"
    assert "no test_batch" in refused("cifar10", data_dir=tmp_path)
    assert "--data-dir" in refused("cifar10")
    good = {"data": PIXELS.reshape(4, -1), "labels": [1, 2, 3, 4]}
    contents = [
        b"", b"junk", whole[:100], whole[:-200], whole.replace(b"M\x00\x0c", b"M\x01\x0c"), b"\x80\x02].",
        *(pickle.dumps({**good, **change}) for change in (
            {"labels": [1, 2, 3]}, {"labels": [1, 2, 3, 10]}, {"labels": [1, 2, 3, "4"]}, {"labels": None},
            {"data": PIXELS.reshape(4, -1).astype(np.int64)}, {"data": PIXELS}, {"data": [1]},
            {"data": np.asfortranarray(PIXELS.reshape(4, -1))},
        )),
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        assert "is not a CIFAR-10 batch" in refused("cifar10", data_dir=tmp_path)


def picture(path: Path, width: int, height: int, color: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), color, np.uint8)
    pixels[: height // 2, :, 0] = 200
    Image.fromarray(pixels).save(path)
    return pixels


def imagenet(root: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(("n01440764", "n02102040")):
            for number in range(count):
                picture(root / split / wnid / f"{wnid}_{number}.JPEG", 320 - 40 * number, 260, 50 + 100 * label)
    return root


def test_imagenet_in_torchvisions_layout(tmp_path: Path) -> None:
    train = load_dataset("imagenet", split="train", data_dir=imagenet(tmp_path))
    assert train.images.shape == (6, 3, 224, 224)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.classes == ("n01440764", "n02102040")
    test = load_dataset("imagenet", data_dir=tmp_path)
    assert len(test) == len(test.images) == 4
    image = test.images[2]
    assert image.shape == (3, 224, 224)
    assert image.dtype == np.uint8
    assert abs(int(image[1, 100, 100]) - 150) < 4
    (tmp_path / "val" / "n99").mkdir()
    assert "n99" in refused("imagenet", data_dir=tmp_path)
    refused("imagenet", data_dir=tmp_path / "val")
    refused("imagenet")


def test_pixels_are_those_of_torchvisions_transforms(tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    noise = RNG.integers(0, 256, (301, 417, 3), np.uint8)
    for pixels in (noise, noise.transpose(1, 0, 2)):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        files = ImageFiles(np.array([os.fsencode(tmp_path / "a.png")]), 224, 256)
        whole = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
        expected = np.asarray(whole(Image.fromarray(pixels))).transpose(2, 0, 1)
        np.testing.assert_array_equal(files[0], expected)


def test_pictures_are_decoded_only_when_asked_for(tmp_path: Path) -> None:
    data = load_dataset("imagenet", split="train", data_dir=imagenet(tmp_path))
    (tmp_path / "train" / "n01440764" / "n01440764_1.JPEG").write_bytes(b"no picture")
    assert data.images[0].shape == (3, 224, 224)
    some = data.images[np.array([5, 1, 0])]
    assert some.shape == (3, 3, 224, 224)
    np.testing.assert_array_equal(some[2], data.images[0])
    with pytest.raises(InputError, match=r"cannot read .*n01440764_1\.JPEG"):
        some[1]
    with pytest.raises(InputError, match="cannot read"):
        np.asarray(some)
    np.testing.assert_array_equal(np.asarray(data.images[3:5])[1], data.images[4])


def folders(root: Path, *splits: str, count: int = 3) -> Path:
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                picture(root / split / name / "more" / f"{number}.png", 20, 30, 10 * label)
    return root


@pytest.mark.parametrize("other", ["val", "test"])
def test_an_image_folder_with_splits(tmp_path: Path, other: str) -> None:
    folders(tmp_path, "train", other)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    for split in ("train", "test"):
        data = load_dataset(f"imagefolder:{tmp_path}@16", split=split)
        assert data.images.shape == (6, 3, 16, 16)
        assert data.classes == ("cat", "dog")
        assert all(str(split if split == "train" else other) in str(path) for path in data.images.paths)


@pytest.mark.parametrize("inner", ["", "train"])
def test_an_image_folder_without_splits_is_divided_once_and_for_all(tmp_path: Path, inner: str) -> None:
    folders(tmp_path, inner, count=40)
    name = f"imagefolder:{tmp_path}@16"
    train, test = (set(load_dataset(name, split=s).images.paths.tolist()) for s in ("train", "test"))
    assert not train & test
    assert len(train | test) == 80
    assert 6 <= len(test) <= 28
    picture(tmp_path / inner / "cat" / "later.png", 20, 30, 0)
    again, held = (set(load_dataset(name, split=s).images.paths.tolist()) for s in ("train", "test"))
    assert train <= again
    assert test <= held


def test_folders_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    refused(f"imagefolder:{tmp_path / 'none'}")
    refused(f"imagefolder:{tmp_path}")
    refused("imagefolder:")
    refused(f"imagefolder:{tmp_path}@0")
    picture(tmp_path / "only" / "a.png", 9, 9, 0)
    refused(f"imagefolder:{tmp_path}")
    folders(tmp_path / "b", "val")
    assert "no train folder" in refused(f"imagefolder:{tmp_path / 'b'}", split="train")
    assert len(load_dataset(f"imagefolder:{tmp_path / 'b'}")) == 6


def touch(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_nothing_vanishes_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path, "train", "val")
    load_dataset(f"imagefolder:{tmp_path}@16")
    assert capsys.readouterr().err == ""
    for name in ("a.heic", "b.HEIC", "notes.txt", "no_suffix", ".DS_Store", ".hidden.png", "deep/er/x.avif"):
        touch(tmp_path / "val" / "cat" / name)
    picture(tmp_path / "val" / "stray.png", 9, 9, 0)
    picture(tmp_path / "annotations" / "a.png", 9, 9, 0)
    data = load_dataset(f"imagefolder:{tmp_path}@16")
    said = capsys.readouterr().err
    assert len(data) == 6
    assert len(said.splitlines()) == 1
    for part in (".heic (2)", ".txt (1)", "no suffix (1)", "hidden (2)", ".avif (1)", "class folders (1)",
                 "the folder annotations beside"):  # fmt: skip
        assert part in said, part


@pytest.mark.parametrize("suffix", [".heic", ".txt", ""])
def test_a_class_without_pictures_is_named(tmp_path: Path, suffix: str) -> None:
    folders(tmp_path, "val")
    touch(tmp_path / "val" / "eel" / f"a{suffix}")
    (tmp_path / "val" / "fox").mkdir()
    assert "no pictures in eel, fox (2 of 4 class folders)" in refused(f"imagefolder:{tmp_path}@16")


def test_pictures_outside_of_class_folders_are_no_data_set(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "val" / f"ILSVRC2012_val_{number}.JPEG", 9, 9, 0)
    assert "val holds no class folders" in refused("imagenet", data_dir=tmp_path)
    assert "val holds no class folders" in refused(f"imagefolder:{tmp_path}")
    assert "0 class folders, and 3 pictures outside of them" in refused(f"imagefolder:{tmp_path / 'val'}")
    folders(tmp_path, "train")
    assert "val holds no class folders" in refused(f"imagefolder:{tmp_path}", split="train")
    folders(tmp_path, "valid")
    assert len(load_dataset(f"imagefolder:{tmp_path}")) == 6


def test_numbered_folders_sort_as_numbers(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / "val" / str(number) / "a.png", 9, 9, number)
    data = load_dataset(f"imagefolder:{tmp_path}@9")
    assert data.classes == tuple(map(str, range(12)))
    assert [int(image[2, 8, 8]) for image in data.images] == list(range(12))


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Val"), ("training", "validation"), ("train", "valid"), ("TRAIN", "Testing")]
)
def test_splits_by_other_names(tmp_path: Path, train: str, val: str) -> None:
    folders(tmp_path, train, val)
    for split, name in (("train", train), ("test", val)):
        data = load_dataset(f"imagefolder:{tmp_path}@16", split=split)
        assert data.classes == ("cat", "dog")
        assert all(f"/{name}/" in os.fsdecode(path) for path in data.images.paths)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        picture(tmp_path / name / "a.png", 9, 9, 0)
    whole = [load_dataset(f"imagefolder:{tmp_path}@9", split=s) for s in ("train",)]
    assert whole[0].classes == ("bus", "train")


def test_links_are_followed_once_and_hidden_folders_are_not(tmp_path: Path) -> None:
    folders(tmp_path / "real", "", count=4)
    root = tmp_path / "linked"
    root.mkdir()
    for name in ("cat", "dog"):
        (root / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real" / "cat")
    (tmp_path / "elsewhere").mkdir()
    picture(tmp_path / "elsewhere" / "x.png", 9, 9, 0)
    (tmp_path / "real" / "dog" / "link").symlink_to(tmp_path / "elsewhere")
    picture(tmp_path / "real" / "dog" / ".ipynb_checkpoints" / "0-checkpoint.png", 9, 9, 0)
    (root / ".ipynb_checkpoints").mkdir()
    name = f"imagefolder:{root}@9"
    assert sum(len(load_dataset(name, split=s)) for s in ("train", "test")) == 9
    (root / "eel").symlink_to(tmp_path / "nowhere")
    assert "is a link to nothing" in refused(name)


def test_grey_networks_read_grey_pictures(tmp_path: Path) -> None:
    folders(tmp_path, "val")
    data = load_dataset(f"imagefolder:{tmp_path}@9")
    assert data.fitted(("cat", "dog"), (1, 9, 9)).images[0].shape == (1, 9, 9)
    with pytest.raises(InputError, match=r"images of 3 channels, 9 pixels high.*pass imagefolder:.*@32"):
        data.fitted(("cat", "dog"), (3, 32, 32))


def test_training_may_have_more_classes_than_the_test_and_the_bundle(tmp_path: Path) -> None:
    folders(tmp_path, "train", "val")
    picture(tmp_path / "train" / "bee" / "a.png", 9, 9, 0)
    data = load_dataset(f"imagefolder:{tmp_path}@9")
    assert data.classes == ("bee", "cat", "dog")
    assert set(data.fitted(("dog", "cat"), (3, 9, 9)).labels.tolist()) == {0, 1}


def test_random_crops_stay_inside_and_have_their_area_and_shape(tmp_path: Path) -> None:
    boxes = np.array([random_box((100, 60), 0.3, np.random.default_rng(seed)) for seed in range(300)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 100
    assert boxes[:, 3].max() <= 60
    assert (width * height / 6000).min() > 0.28
    assert (width * height / 6000).std() > 0.1
    assert 0.7 < (width / height).min() < 0.9 < 1.2 < (width / height).max() < 1.4
    left, top, right, bottom = random_box((400, 10), 0.9, np.random.default_rng(0))
    assert (right - left, bottom - top) == (pytest.approx(40 / 3), 10)
    picture(tmp_path / "a.png", 50, 40, 9)
    files = ImageFiles(np.array([os.fsencode(tmp_path / "a.png")]), 16, 16)
    assert files.decode(str(tmp_path / "a.png"), np.random.default_rng(0), 0.3).shape == (3, 16, 16)


def network(outputs: int) -> bytes:
    """logits = mean of the red, green and blue values (as many as `outputs`), for x [N,3,4,4]."""
    weights = np.zeros((48, outputs), np.float32)
    for channel in range(outputs):
        weights[16 * channel : 16 * (channel + 1), channel] = 1 / 16
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["logits"])],
        "main",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", outputs])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_a_folder_is_certified_without_being_loaded(tmp_path: Path) -> None:
    for label, name in enumerate(("blue", "red")):
        for number in range(3):
            (tmp_path / "data" / "val" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((7, 9, 3), np.uint8)
            pixels[..., 2 - 2 * label] = 250
            Image.fromarray(pixels).save(tmp_path / "data" / "val" / name / f"{number}.png")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    files = {"estimator.onnx": network(2), "classifier.onnx": network(3)}
    for name, content in files.items():
        (bundle / name).write_bytes(content)
    text = manifest_text(
        sigmas=(0.25, 0.5), sigma_e=0.5, classes=("red", "green", "blue"), input_shape=(3, 4, 4),
        estimator=BaseModel(("estimator.onnx",)), classifiers=(BaseModel(("classifier.onnx",)),) * 2,
        precision="fp32", files={name: sha256_of(bundle / name) for name in files}, provenance={},
    )  # fmt: skip
    (bundle / "manifest.json").write_text(text)
    data = load_dataset(f"imagefolder:{tmp_path / 'data'}@4")
    assert data.classes == ("blue", "red")
    (tmp_path / "data" / "val" / "blue" / "0.png").write_bytes(b"not needed")
    budget = ds.Fixed(200, 50)
    evaluate(ds.load(bundle), data, tmp_path / "r.jsonl", indices=[1, 5], budget=budget, seed=1)
    results = {result.index: result for result in read_results(tmp_path / "r.jsonl")}
    assert [results[i].true_label for i in (1, 5)] == [2, 0]  # counting the bundle's classes, not the folders
    assert [results[i].certificate.label for i in (1, 5)] == [2, 0]
    assert min(result.certificate.radius for result in results.values()) > 0.2
