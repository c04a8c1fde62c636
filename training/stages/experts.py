"""Off-the-shelf experts: classifiers from anywhere, as ONNX files in the run; only the estimator is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.graph import to_model
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line
from dualsmooth.runtime.files import write_atomically
from dualsmooth.training.config import Config
from dualsmooth.training.networks.architectures import ARCHITECTURES, architecture
from dualsmooth.training.networks.published import load_checkpoint
from dualsmooth.training.networks.state_dict import is_checkpoint
from dualsmooth.training.run.record import classifier_names
from dualsmooth.training.stages.labels import Voter


def adopt_experts(root: Path, config: Config, classes: int, input_shape: tuple[int, int, int]) -> list[Voter]:
    """Copy the files of `config.experts` into the run directory `root`, once, and return a voter for each level.

    An expert takes float32 [N,C,H,W] in [0, 1] plus noise, unnormalised unless `config` has its mean and deviation,
    optionally a scalar `sigma`, and gives one output [N,classes]; it is an ONNX file, or a PyTorch checkpoint where
    `config` has its architecture, and is brought to the bundle's contract as `dualsmooth export` does.
    Raises `InputError` or `BundleError` for a file that cannot serve.
    """
    voters = []
    for (sigma, source), name in zip(config.expert_files(), classifier_names(config), strict=True):
        if not (root / name).exists():
            graph = expert_graph(source, config, classes, input_shape)
            write_atomically(root / name, graph.SerializeToString(deterministic=True))
        try:
            voter = Voter((root / name).read_bytes())
            votes = voter.votes(np.zeros(input_shape, np.uint8), sigma, 2, np.random.default_rng(0))
        except DualSmoothError:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise InputError(
                f"expert {source} does not run on images {list(input_shape)} ({one_line(error)}); expected input x "
                f"[N, {', '.join(map(str, input_shape))}] and output logits [N, {classes}]"
            ) from error
        if len(votes) != classes:
            raise InputError(f"expert {source} has {len(votes)} outputs; expected one for each of {classes} classes")
        voters.append(voter)
    return voters


def expert_graph(source: Path, config: Config, classes: int, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """The file `source` brought to the bundle's contract; raises `InputError` or `BundleError`."""
    mean, std = config.experts_mean or None, config.experts_std or None
    if not config.experts_arch:
        if source.is_file() and is_checkpoint(source):
            raise InputError(
                f"expert {source} is a PyTorch checkpoint, which holds no architecture; name it with --experts-arch: "
                f"{ARCHITECTURES}"
            )
        return load_onnx(source, input_shape, mean=mean, std=std)
    network = architecture(config.experts_arch, classes, input_shape)
    return to_model(load_checkpoint(source, network, mean=mean, std=std), input_shape)
