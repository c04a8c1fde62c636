"""The sections of a configuration. Each checks itself: what cannot be used raises `InputError`. Needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from dualsmooth.training.checks import need, need_from, need_share
from dualsmooth.training.objectives import Objective, objective_class

AUTO, BF16, OFF = "auto", "bf16", "off"
"""Whether a network is trained in bfloat16: where the processor is faster so, always, or never."""

ADAMW, MUON = "adamw", "muon"
"""What changes the weights; see `training.loop.optimizer`."""

DENOISED = "denoised:"
PARTS = ("all", "denoiser", "classifier")


def _gaussian() -> Objective:
    return objective_class("gaussian")()


@dataclass(frozen=True)
class ClassifierConfig:
    """Stage 2: networks trained under Gaussian noise for an `objective`: one shared by all `sigmas`, or one `experts`
    network for each of them. With `chain` the first is trained afresh for `epochs` and each other one for `chain`
    epochs from the trained one of the level below (0: all afresh): what is learnt under little noise serves under more.
    `lowest` is an objective for the expert of the lowest level, where accuracy is worth more than radii that the next
    level serves better, and `highest` one for that of the highest, which serves what reaches far (none: `objective`, as
    for the others). `seed` draws the classifiers anew and nothing else of the run (0: its own seed decides): with equal
    held-out images, networks of several runs can be one ensemble.

    `width` and `depth` are factors of our own models' sizes, `pretrained` a file of weights to start from ("" for
    none), `ema` the decay of an exponential moving average of the weights, which then is the network (0: none), and
    `clip_norm` the largest norm of a step's gradient (0: any). `autocast` says whether passes are computed in bfloat16:
    "bf16", "off", or "auto", where the processor is faster so; a run keeps what it began with. `tensorboard` writes
    curves for it into the run.

    For `model = "denoised:MODEL"` a denoiser comes first: our own, or the UNet of the diffusers folder `denoiser`, that
    stays as it is. `denoised_part` says what is trained (all, denoiser or classifier); `mse` and `stability` weigh the
    denoiser's own losses (Salman et al. 2020).
    """

    model: str = "small-cnn"
    width: float = 1.0
    experts: bool = False
    chain: int = 0
    seed: int = 0
    depth: float = 1.0
    pretrained: str = ""
    epochs: int = 12
    batch_size: int = 256
    lr: float = 3e-3
    weight_decay: float = 0.05
    optimizer: str = ADAMW
    autocast: str | bool = AUTO
    ema: float = 0.0
    clip_norm: float = 0.0
    tensorboard: bool = False
    denoiser: str = ""
    denoised_part: str = "all"
    mse: float = 1.0
    stability: float = 0.0
    objective: Objective = field(default_factory=_gaussian)
    lowest: Objective | None = None
    highest: Objective | None = None

    def __post_init__(self) -> None:
        _check_training("classifier", self)
        self.objective.check()
        for name, apart in (("lowest", self.lowest), ("highest", self.highest)):
            if apart is not None:
                apart.check(f"classifier.{name}")
                need(self.experts, f"classifier.{name} is given without experts", "experts = true too")
        need_from("classifier", self, 0, "mse", "stability")
        part, denoised = self.denoised_part, self.model.startswith(DENOISED)
        need_from("classifier", self, 0, "chain", "seed")
        need(self.experts or not self.chain, f"classifier.chain is {self.chain} without experts", "experts = true too")
        need(part in PARTS, f"classifier.denoised_part is {part!r}", "all, denoiser or classifier")
        plain = part == "all" and not self.denoiser
        need(denoised or plain, f"model {self.model!r} has no denoiser", 'classifier.model = "denoised:MODEL"')

    def at(self, level: int, levels: int) -> ClassifierConfig:
        """The settings of the first training of the network of `level`, counted from 0, of so many `levels`."""
        epochs = self.chain if level and self.chain else self.epochs
        apart = self.lowest if level == 0 else self.highest if level == levels - 1 else None
        return dataclasses.replace(self, epochs=epochs, objective=apart or self.objective)


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

    def __post_init__(self) -> None:
        need(self.images >= 0, f"labels.images is {self.images}", "a number of images, 0 for all")
        need_from("labels", self, 1, "votes", "shard")
        need(self.radii in ("votes", "margins"), f"labels.radii is {self.radii!r}", "votes or margins")
        enough = self.radii == "votes" or self.votes >= 4
        need(enough, f"labels.votes is {self.votes} with radii from margins", "at least 4")
        need(0 < self.alpha < 1, f"labels.alpha is {self.alpha}", "0 < alpha < 1")
        need(0 <= self.doubt < 0.5, f"labels.doubt is {self.doubt}", "0 (draw every vote) to below 0.5")
        need(self.folds == 0 or self.folds >= 2, f"labels.folds is {self.folds}", "0 (none) or at least 2 folds")


@dataclass(frozen=True)
class EstimatorConfig:
    """Stage 1: soft or hard labels, consistency regularisation and rebalancing (Dual RS, arXiv 2512.01782).

    A level's utility is its radius, plus `worth` (input units) for being certified at all. `targets` are "soft" (the
    softmax of the utilities / `temperature`) or "hard" (the best level). An image weighs its regret, the best utility
    less the worst, to the power `regret`: images whose level does not matter do not count. `interval` weighs a second
    term: the share of images that the interval rule certifies at the `radii`, weighted by `emphasis` and made smooth
    over `softness` (input units); `utility` weighs a third: the same share if the level that a vote names served the
    image at all radii, which pulls a vote however far it is from the best level. Both see the softmax of the logits
    times `sharpness`: votes, which are arg maxes, are more of one mind than the softmax that they come from.
    """

    model: str = "small-cnn"
    width: float = 1.0
    depth: float = 1.0
    epochs: int = 8
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    optimizer: str = ADAMW
    autocast: str | bool = AUTO
    ema: float = 0.0
    clip_norm: float = 0.0
    tensorboard: bool = False
    targets: str = "soft"
    temperature: float = 0.05
    worth: float = 0.0
    regret: float = 0.0
    interval: float = 0.0
    utility: float = 0.0
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5)
    emphasis: tuple[float, ...] = (5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    softness: float = 0.15
    sharpness: float = 1.0
    consistency: float = 3.0
    eta: float = 0.5
    balance: float = 0.5
    copies: int = 2
    from_classifier: bool = True

    def __post_init__(self) -> None:
        _check_training("estimator", self)
        need(not self.model.startswith(DENOISED), "estimator.model has a denoiser", "a plain model")
        need(self.temperature > 0, f"estimator.temperature is {self.temperature}", "a positive number")
        need(self.targets in ("soft", "hard"), f"estimator.targets is {self.targets!r}", "soft or hard")
        need(self.softness > 0, f"estimator.softness is {self.softness}", "a positive length")
        need(self.sharpness > 0, f"estimator.sharpness is {self.sharpness}", "a positive factor")
        pairs = len(self.radii), len(self.emphasis)
        need(pairs[0] == pairs[1] > 0, f"estimator.radii and .emphasis have {pairs} values", "as many of both")
        need(min(self.emphasis) >= 0 < sum(self.emphasis), "estimator.emphasis is negative", "from 0")
        need_from("estimator", self, 0, "worth", "regret", "interval", "utility", "consistency", "eta", "balance")
        need_from("estimator", self, 1, "copies")


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

    def __post_init__(self) -> None:
        need_from("finetune", self, 1, "epochs", "votes")
        need(self.lr > 0, f"finetune.lr is {self.lr}", "a positive number")
        need_share("finetune", self, "everywhere")


@dataclass(frozen=True)
class MetricsConfig:
    """What is measured on the validation split: `images` images, `votes` passes of each base model and level."""

    images: int = 500
    votes: int = 200

    def __post_init__(self) -> None:
        need_from("metrics", self, 1, "images", "votes")


def _check_training(section: str, settings: ClassifierConfig | EstimatorConfig) -> None:
    """What the training of both networks asks for; `autocast` may be said with true and false, as of old."""
    if isinstance(settings.autocast, bool):
        object.__setattr__(settings, "autocast", BF16 if settings.autocast else OFF)
    need(settings.autocast in (AUTO, BF16, OFF), f"{section}.autocast is {settings.autocast!r}", "auto, bf16 or off")
    need(settings.optimizer in (ADAMW, MUON), f"{section}.optimizer is {settings.optimizer!r}", "adamw or muon")
    need_from(section, settings, 1, "epochs", "batch_size")
    for key in ("width", "depth"):
        need(getattr(settings, key) > 0, f"{section}.{key} is {getattr(settings, key)}", "a positive factor")
    need(settings.lr > 0, f"{section}.lr is {settings.lr}", "a positive number")
    need_from(section, settings, 0, "weight_decay", "clip_norm")
    need(0 <= settings.ema < 1, f"{section}.ema is {settings.ema}", "a decay from 0 (none) to below 1, e.g. 0.999")
