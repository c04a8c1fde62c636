"""Other people's smoothed classifiers to a bundle: the same network, levels and classes, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dualsmooth as ds
from dualsmooth.export import export_smoothed
from dualsmooth.runtime.bundle.reading import Bundle

Make = Callable[..., nn.Module]
IMAGES = np.random.default_rng(0).random((5, 1, 6, 6), np.float32)


class Smooth:
    """The attributes of Cohen et al.'s class (locuslab/smoothing, code/core.py)."""

    def __init__(self, base_classifier: nn.Module, num_classes: int, sigma: float) -> None:
        self.base_classifier, self.num_classes, self.sigma = base_classifier, num_classes, sigma


def logits(bundle: Bundle) -> Any:
    with ds.load(bundle.path, threads=1) as smoother:
        (name,) = bundle.files
        return smoother.engine.logits(name, IMAGES, bundle.sigmas[0], len(bundle.classes))


def test_cohens_smooth(probe: Make, tmp_path: Path) -> None:
    theirs = Smooth(probe(3), 3, 0.5)
    bundle = export_smoothed(theirs, tmp_path / "b", input_shape=(1, 6, 6))
    assert (bundle.sigmas, bundle.classes, bundle.estimator) == ((0.5,), ("0", "1", "2"), None)
    with torch.no_grad():
        assert np.allclose(logits(bundle), theirs.base_classifier.eval()(torch.from_numpy(IMAGES)), atol=1e-4)
    named = export_smoothed(theirs, tmp_path / "c", sigma=0.25, input_shape=(1, 6, 6), classes=("a", "b", "c"))
    assert (named.sigmas, named.classes) == ((0.25,), ("a", "b", "c"))
    with pytest.raises(ds.InputError, match=r"Smooth has no input_shape; pass it, e\.g\. input_shape=\(3, 32, 32\)"):
        export_smoothed(theirs, tmp_path / "d")


def art_like(model: nn.Module, **more: Any) -> SimpleNamespace:
    facts = {"model": model, "nb_classes": 3, "input_shape": (1, 6, 6), "scale": 0.25, "clip_values": (0.0, 1.0)}
    return SimpleNamespace(**facts | more)


@pytest.mark.parametrize("shown", [lambda m, s: (m, s), lambda m, s: SimpleNamespace(mean=m, std=s)])
def test_what_art_puts_before_the_network_goes_into_it(probe: Make, tmp_path: Path, shown: Callable[..., Any]) -> None:
    network = probe(3)
    bundle = export_smoothed(art_like(network, preprocessing=shown(0.4, 0.2)), tmp_path / "b")
    with torch.no_grad():
        expected = network.eval()((torch.from_numpy(IMAGES) - 0.4) / 0.2)
    assert np.allclose(logits(bundle), expected, atol=1e-4)
    assert bundle.sigmas == (0.25,)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"clip_values": (0, 255)}, "expected images in"),
        ({"preprocessing_defences": ["jpeg"]}, "has preprocessing_defences"),
        ({"postprocessing_defences": ["round"]}, "has postprocessing_defences"),
        ({"channels_first": False}, "takes channels last"),
        ({"preprocessing": "whiten"}, r"expected \(mean, std\)"),
        ({"input_shape": (36,)}, r"expected images \[C,H,W\]"),
        ({"scale": None}, "has no sigma"),
    ],
)
def test_what_would_be_another_classifier_is_refused(
    probe: Make, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(ds.InputError, match=said):
        export_smoothed(art_like(probe(3), **more), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_is_neither_is_refused(probe: Make, tmp_path: Path) -> None:
    with pytest.raises(ds.InputError, match="is no smoothed classifier"):
        export_smoothed(probe(3), tmp_path / "b")


@pytest.mark.filterwarnings("ignore")  # those of ART
def test_an_estimator_of_art_itself(probe: Make, tmp_path: Path) -> None:
    pytest.importorskip("art", reason="IBM's Adversarial Robustness Toolbox is not installed")
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    theirs = PyTorchRandomizedSmoothing(
        probe(3), nn.CrossEntropyLoss(), (1, 6, 6), 3, clip_values=(0.0, 1.0), preprocessing=(0.4, 0.2),
        device_type="cpu", scale=0.5,
    )  # fmt: skip
    bundle = export_smoothed(theirs, tmp_path / "b")
    assert (bundle.sigmas, len(bundle.classes)) == ((0.5,), 3)
    expected = theirs._predict_classifier(IMAGES, batch_size=5, training_mode=False)
    assert np.allclose(logits(bundle), expected, atol=1e-4)
