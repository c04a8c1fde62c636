"""Off-the-shelf experts: ONNX classifiers from anywhere, copied into the run; only the estimator is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualsmooth.export.onnx_files import load_onnx
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line
from dualsmooth.runtime.files import write_atomically
from dualsmooth.training.config import Config
from dualsmooth.training.labels import Voter
from dualsmooth.training.record import classifier_names


def adopt_experts(root: Path, config: Config, classes: int, input_shape: tuple[int, int, int]) -> list[Voter]:
    """Copy the files of `config.experts` into the run directory `root`, once, and return a voter for each level.

    An expert takes float32 [N,C,H,W] in [0, 1] plus noise, unnormalised, optionally a scalar `sigma`, and gives one
    output [N,classes]; it is brought to the bundle's contract as `dualsmooth export` does (names, dynamic batch).
    Raises `InputError` or `BundleError` for a file that cannot serve.
    """
    voters = []
    for (sigma, source), name in zip(config.expert_files(), classifier_names(config), strict=True):
        if not (root / name).exists():
            graph = load_onnx(source, input_shape)
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
