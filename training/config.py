"""The configuration of a training run: one frozen dataclass, read from TOML and flags, saved in the run.

This module needs no torch, so that `dualsmooth train --help` works without it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dualsmooth.export.onnx.normalisation import check_statistics
from dualsmooth.runtime.datasets.formats import NAMES
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.levels import require_levels, require_unit_scale


@dataclass(frozen=True)
class Gaussian:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019, section 3.3)."""

    kind: str = "gaussian"

    def check(self) -> None:
        """Nothing can be wrong."""


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy on `copies` noisy copies of each image, plus `weight` (lambda) times the mean KL divergence from
    their mean prediction, plus `eta` times the entropy of that mean (Jeong & Shin 2020, section 3.2)."""

    kind: str = "consistency"
    weight: float = 10.0
    eta: float = 0.5
    copies: int = 2

    def check(self) -> None:
        """Raise `InputError` for values that cannot be used."""
        for key in ("weight", "eta"):
            _need(getattr(self, key) >= 0, f"classifier.objective.{key} is {getattr(self, key)}", "a number from 0")
        _need(self.copies >= 2, f"classifier.objective.copies is {self.copies}", "at least 2 noise copies")


@dataclass(frozen=True)
class SmoothAdv:
    """Cross-entropy on noisy copies of an adversarial image, found by `steps` steps on the loss of the *smoothed*
    classifier with the same `copies` draws of noise (SmoothAdv, Salman et al. 2019, section 3).

    `epsilon` bounds the L2 norm of the attack, in input units, or in units of each example's own noise level where
    `relative`; it grows from epsilon / warm_up in the first epoch to epsilon in epoch `warm_up`. `attack` is "pgd"
    (steps of fixed length inside the ball) or "ddn" (Rony et al. 2019: the norm is searched for, at most epsilon).
    """

    kind: str = "smoothadv"
    attack: str = "pgd"
    epsilon: float = 0.5
    relative: bool = False
    steps: int = 4
    copies: int = 2
    warm_up: int = 3

    def check(self) -> None:
        """Raise `InputError` for values that cannot be used."""
        _need(self.attack in ("pgd", "ddn"), f"classifier.objective.attack is {self.attack!r}", "pgd or ddn")
        _need(self.epsilon > 0, f"classifier.objective.epsilon is {self.epsilon}", "a positive length")
        for key in ("steps", "copies", "warm_up"):
            _need(getattr(self, key) >= 1, f"classifier.objective.{key} is {getattr(self, key)}", "at least 1")


OBJECTIVES: dict[str, type[Gaussian] | type[Consistency] | type[SmoothAdv]] = {
    "gaussian": Gaussian,
    "consistency": Consistency,
    "smoothadv": SmoothAdv,
}


@dataclass(frozen=True)
class ClassifierConfig:
    """Stage 2: networks trained under Gaussian noise for an `objective`: one shared by all `sigmas`, or one `experts`
    network for each of them.

    `width` and `depth` are factors of our own models' sizes, `pretrained` a file of weights to start from ("" for
    none), `ema` the decay of an exponential moving average of the weights, which then is the network (0: none), and
    `clip_norm` the largest norm of a step's gradient (0: any). `tensorboard` writes curves for it into the run.

    For `model = "denoised:MODEL"` a denoiser comes first: our own, or the UNet of the diffusers folder `denoiser`, that
    stays as it is. `denoised_part` says what is trained (all, denoiser or classifier); `mse` and `stability` weigh the
    denoiser's own losses (Salman et al. 2020).
    """

    model: str = "small-cnn"
    width: float = 1.0
    experts: bool = False
    depth: float = 1.0
    pretrained: str = ""
    epochs: int = 12
    batch_size: int = 256
    lr: float = 3e-3
    weight_decay: float = 0.05
    autocast: bool = False
    ema: float = 0.0
    clip_norm: float = 0.0
    tensorboard: bool = False
    denoiser: str = ""
    denoised_part: str = "all"
    mse: float = 1.0
    stability: float = 0.0
    objective: Gaussian | Consistency | SmoothAdv = field(default_factory=Gaussian)


@dataclass(frozen=True)
class LabelConfig:
    """Labels of the estimator: R_c(x, sigma_i) from `votes` passes per level, for `images` images (0: all).

    `radii` come from "votes", bounded at `alpha` (Dual RS), or from "margins", whose mean and deviation tell in a few
    passes what takes thousands of votes. `doubt` is the error probability at which a level that cannot be the best is
    sampled no further (0: never). With `folds` >= 2 every image is labelled by classifiers that were not trained on it
    (cross-fitting).
    """

    images: int = 20_000
    votes: int = 100
    radii: str = "votes"
    alpha: float = 1e-3
    doubt: float = 0.1
    folds: int = 0
    shard: int = 250


@dataclass(frozen=True)
class EstimatorConfig:
    """Stage 1: soft or hard labels, consistency regularisation and rebalancing (Dual RS, arXiv 2512.01782).

    A level's utility is its radius, plus `worth` (input units) for being certified at all. `targets` are "soft" (the
    softmax of the utilities / `temperature`) or "hard" (the best level). An image weighs its regret, the best utility
    less the worst, to the power `regret`: images whose level does not matter do not count. `interval` weighs a second
    term: the share of images that the interval rule certifies at the `radii`, weighted by `emphasis` and made smooth
    over `softness` (input units).
    """

    model: str = "small-cnn"
    width: float = 1.0
    depth: float = 1.0
    epochs: int = 8
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    autocast: bool = False
    ema: float = 0.0
    clip_norm: float = 0.0
    tensorboard: bool = False
    targets: str = "soft"
    temperature: float = 0.05
    worth: float = 0.0
    regret: float = 0.0
    interval: float = 0.0
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5)
    emphasis: tuple[float, ...] = (5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    softness: float = 0.15
    consistency: float = 3.0
    eta: float = 0.5
    balance: float = 0.5
    copies: int = 2
    from_classifier: bool = True


@dataclass(frozen=True)
class FinetuneConfig:
    """Rounds after the first: each classifier is trained further on the images that the router sends to its levels.

    An image is drawn for a level in proportion to (1 - everywhere) times its share of `votes` votes of the smoothed
    estimator, plus everywhere / K.
    """

    epochs: int = 4
    lr: float = 1e-3
    votes: int = 32
    everywhere: float = 0.3


@dataclass(frozen=True)
class MetricsConfig:
    """What is measured on the validation split: `images` images, `votes` passes of each base model and level."""

    images: int = 500
    votes: int = 200


@dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run.

    `sigma_e` = 0 stands for max(sigmas); `validation` images are held out of the training images; `augment` turns the
    data set's augmentation on. `rounds` counts estimators: between two of them, the classifiers are trained further on
    the images that the router sends to them (the alternation of Dual RS). `experts` are ONNX files from anywhere, one
    for each level ("0.25=a.onnx"): then only the estimator is trained. With `experts_arch` they are checkpoints of that
    PyTorch network; `experts_mean` and `experts_std` are put in front of experts that expect normalised images.
    `classes` name the networks' outputs, in their order; the data set's are matched to them by name. Without, they are
    those of the experts' bundle, or the data set's.
    """

    dataset: str
    data_dir: str | None = None
    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    sigma_e: float = 0.0
    seed: int = 0
    validation: int = 5_000
    augment: bool = True
    rounds: int = 1
    experts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    experts_arch: str = ""
    experts_mean: tuple[float, ...] = ()
    experts_std: tuple[float, ...] = ()
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        if self.experts:
            object.__setattr__(self, "sigmas", tuple(sigma for sigma, _ in self.expert_files()))
            _need(self.rounds == 1 and self.labels.folds == 0, "experts are given, with rounds or folds", "neither")
        told = bool(self.experts_arch or self.experts_mean or self.experts_std)
        _need(bool(self.experts) or not told, "experts_arch, _mean or _std is given without experts", "experts too")
        if self.experts_mean or self.experts_std:
            check_statistics(self.experts_mean or None, self.experts_std or None, whose="--experts-")
        levels = self.sigmas
        require_levels(levels)
        require_unit_scale([self.sigma_e], "sigma_e")
        _need(self.sigma_e >= 0, f"sigma_e is {self.sigma_e}", "a positive noise level, or 0 for max(sigmas)")
        object.__setattr__(self, "sigma_e", self.sigma_e or max(levels))
        _need(self.seed >= 0, f"seed is {self.seed}", "an integer from 0")
        _need(self.validation >= 1, f"validation is {self.validation}", "at least 1 image")
        for name in ("classifier", "estimator"):
            stage: ClassifierConfig | EstimatorConfig = getattr(self, name)
            for key in ("epochs", "batch_size"):
                _need(getattr(stage, key) >= 1, f"{name}.{key} is {getattr(stage, key)}", "at least 1")
            for key in ("width", "depth"):
                _need(getattr(stage, key) > 0, f"{name}.{key} is {getattr(stage, key)}", "a positive factor")
            _need(stage.lr > 0, f"{name}.lr is {stage.lr}", "a positive number")
            _need(stage.weight_decay >= 0, f"{name}.weight_decay is {stage.weight_decay}", "a number from 0")
            _need(0 <= stage.ema < 1, f"{name}.ema is {stage.ema}", "a decay from 0 (none) to below 1, e.g. 0.999")
            _need(stage.clip_norm >= 0, f"{name}.clip_norm is {stage.clip_norm}", "a number from 0")
        classifier = self.classifier
        classifier.objective.check()
        for key in ("mse", "stability"):
            _need(getattr(classifier, key) >= 0, f"classifier.{key} is {getattr(classifier, key)}", "a number from 0")
        part, own = classifier.denoised_part, classifier.model.startswith("denoised:")
        _need(part in ("all", "denoiser", "classifier"), f"classifier.denoised_part is {part!r}",
              "all, denoiser or classifier")  # fmt: skip
        _need(own or (part == "all" and not classifier.denoiser), f"model {classifier.model!r} has no denoiser",
              'classifier.model = "denoised:MODEL"')  # fmt: skip
        _need(not self.estimator.model.startswith("denoised:"), "estimator.model has a denoiser", "a plain model")
        labels, estimator = self.labels, self.estimator
        _need(labels.images >= 0, f"labels.images is {labels.images}", "a number of images, 0 for all")
        _need(labels.votes >= 1 and labels.shard >= 1, "labels.votes or labels.shard is below 1", "at least 1")
        _need(labels.radii in ("votes", "margins"), f"labels.radii is {labels.radii!r}", "votes or margins")
        enough = labels.radii == "votes" or labels.votes >= 4
        _need(enough, f"labels.votes is {labels.votes} with radii from margins", "at least 4")
        _need(0 <= labels.doubt < 0.5, f"labels.doubt is {labels.doubt}", "0 (draw every vote) to below 0.5")
        _need(labels.folds == 0 or labels.folds >= 2, f"labels.folds is {labels.folds}", "0 (none) or at least 2 folds")
        _need(self.rounds >= 1, f"rounds is {self.rounds}", "at least 1")
        finetune = self.finetune
        _need(
            finetune.epochs >= 1 and finetune.votes >= 1, "finetune.epochs or finetune.votes is below 1", "at least 1"
        )
        _need(finetune.lr > 0, f"finetune.lr is {finetune.lr}", "a positive number")
        _need(0 <= finetune.everywhere <= 1, f"finetune.everywhere is {finetune.everywhere}", "a share from 0 to 1")
        _need(0 < labels.alpha < 1, f"labels.alpha is {labels.alpha}", "0 < alpha < 1")
        _need(estimator.temperature > 0, f"estimator.temperature is {estimator.temperature}", "a positive number")
        _need(estimator.targets in ("soft", "hard"), f"estimator.targets is {estimator.targets!r}", "soft or hard")
        _need(estimator.softness > 0, f"estimator.softness is {estimator.softness}", "a positive length")
        pairs = len(estimator.radii), len(estimator.emphasis)
        _need(pairs[0] == pairs[1] > 0, f"estimator.radii and .emphasis have {pairs} values", "as many of both")
        _need(min(estimator.emphasis) >= 0 < sum(estimator.emphasis), "estimator.emphasis is negative", "from 0")
        for key in ("worth", "regret", "interval", "consistency", "eta", "balance"):
            _need(getattr(estimator, key) >= 0, f"estimator.{key} is {getattr(estimator, key)}", "a number from 0")
        _need(estimator.copies >= 1, f"estimator.copies is {estimator.copies}", "at least 1 noise copy")
        plain = dataclasses.replace(classifier, model=classifier.model.removeprefix("denoised:"))
        same = all(getattr(estimator, key) == getattr(plain, key) for key in ("model", "width", "depth"))
        _need(
            same or not estimator.from_classifier,
            "estimator.from_classifier is true but the two networks differ",
            "equal model, width and depth, or from_classifier = false",
        )
        metrics = self.metrics
        _need(metrics.images >= 1 and metrics.votes >= 1, "metrics.images or metrics.votes is below 1", "at least 1")

    def expert_files(self) -> tuple[tuple[float, Path], ...]:
        """Level and ONNX file of each of the given `experts`."""
        files = []
        for text in self.experts:
            sigma, equals, path = text.partition("=")
            try:
                files.append((float(sigma), Path(path)))
            except ValueError:
                equals = ""
            _need(bool(equals and path), f"expert {text!r} is not understood", "SIGMA=FILE.onnx, e.g. 0.25=a.onnx")
        return tuple(files)

    def to_toml(self) -> str:
        """The configuration as TOML; `config_from` reads it back unchanged."""
        return _toml(dataclasses.asdict(self))


def config_from(values: Mapping[str, Any], source: str) -> Config:
    """Build a `Config` from nested values, as TOML gives them; `source` is named in errors. Raises `InputError`."""
    config: Config = _build(Config, values, source, "")
    return config


def read_toml(path: str | Path) -> dict[str, Any]:
    """The nested values of a TOML file; raises `InputError`."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass the path of a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {str(error)[:200]}; correct the file") from error


def difference(a: Config, b: Config) -> str | None:
    """The first key in which two configurations differ, as text; the data folder may move and does not count."""
    left, right = (_toml(dataclasses.asdict(dataclasses.replace(c, data_dir=None))).splitlines() for c in (a, b))
    pairs = itertools.zip_longest(left, right, fillvalue="nothing")
    return next((f"{x} against {y}" for x, y in pairs if x != y), None)


def _need(ok: bool, found: str, expected: str) -> None:
    if not ok:
        raise InputError(f"{found}; expected {expected}; change it in the configuration")


def _build(cls: type[Any], values: Mapping[str, Any], source: str, prefix: str) -> Any:
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{source}: {prefix}{unknown[0]} is unknown; expected one of {', '.join(sorted(hints))}")
    if cls is Config and "dataset" not in values:
        raise InputError(f"{source}: no dataset is given; pass --dataset {NAMES}")
    return cls(**{key: _convert(hints[key], value, source, prefix + key) for key, value in values.items()})


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return _build(kind, value, source, f"{key}.")
    if kind == Gaussian | Consistency | SmoothAdv:
        return _objective(value, source, key)
    if get_origin(kind) is UnionType:
        return None if value is None else _convert(get_args(kind)[0], value, source, key)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(kind)[0], item, source, key) for item in value)
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and _storable(value):
        return value
    item = "texts" if get_args(kind)[:1] == (str,) else "numbers"
    name = f"a list of {item}" if get_origin(kind) is tuple else {float: "a finite number"}.get(kind, kind.__name__)
    shown = repr(value) if _storable(value) else "too large a number, or no Unicode text"
    raise InputError(f"{source}: {key} is {shown}; expected {name}")


def _storable(value: Any) -> bool:
    """Whether TOML can hold a number or text: 64 bits, and no halves of characters."""
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value)


def _objective(value: Any, source: str, key: str) -> Any:
    """An objective from its name, or from a table whose `kind` is the name."""
    if type(value) in OBJECTIVES.values():
        return value
    values = {"kind": value} if isinstance(value, str) else value
    kind = values.get("kind", "gaussian") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in OBJECTIVES:
        raise InputError(f"{source}: {key} is {value!r}; expected one of {', '.join(OBJECTIVES)}, or a table with kind")
    return _build(OBJECTIVES[kind], values, source, f"{key}.")


def _toml(values: Mapping[str, Any], prefix: str = "") -> str:
    lines = [f"{k} = {_toml_value(v)}" for k, v in values.items() if v is not None and not isinstance(v, Mapping)]
    text = "\n".join(lines) + "\n" if lines or not prefix else ""
    for name, section in values.items():
        if isinstance(section, Mapping):
            text += f"\n[{prefix}{name}]\n" + _toml(section, f"{prefix}{name}.")
    return text


def _toml_value(value: Any) -> str:
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # which JSON leaves as it is, and TOML does not know
