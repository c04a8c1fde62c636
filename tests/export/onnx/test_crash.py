"""A network of which ONNX Runtime's optimiser dies, end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dualsmooth as ds
from dualsmooth.export.bundle import export_bundle


@pytest.mark.slow
def test_a_vision_transformer_in_halves_is_exported_and_runs(tmp_path: Path) -> None:
    """onnxruntime 1.32 dies of LayerNormalization before attention in fp16, with all optimisations."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=3
    )
    router = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 1))
    bundle = export_bundle(
        tmp_path / "b", estimator=router, classifiers=[network], sigmas=[0.25], sigma_e=0.25, classes=["a", "b", "c"],
        input_shape=(3, 32, 32), precision="fp16", floor=0.0,
    )  # fmt: skip
    assert bundle.precision == "fp16"
    certificate = ds.load(tmp_path / "b").certify(np.full((3, 32, 32), 0.5, np.float32), budget=ds.Fixed(20), seed=0)
    assert certificate.artefact.precision == "fp16"
