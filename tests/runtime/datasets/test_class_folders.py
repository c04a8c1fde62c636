"""Class folders: what is read of them, what is left out, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from data_sets import picture
from PIL import Image

import dualsmooth as ds
from dualsmooth.runtime.bundle.reading import BaseModel, manifest_text
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.files import sha256_of


def refused(name: str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    results = {result.index: result for result in load_results(tmp_path / "r.jsonl")}
    assert [results[i].true_label for i in (1, 5)] == [2, 0]  # counting the bundle's classes, not the folders
    assert [results[i].certificate.label for i in (1, 5)] == [2, 0]
    assert min(result.certificate.radius for result in results.values()) > 0.2
