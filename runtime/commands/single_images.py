"""The runtime's commands on single images and bundles: demo, certify, predict, inspect, triton, doctor, verify.
Those on data sets: dataset_commands."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.describing import describe, sentences
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.commands.demo import DEFAULT_OUT, run_demo
from dualsmooth.runtime.commands.doctor import BAD, examine
from dualsmooth.runtime.datasets.single_images import read_image
from dualsmooth.runtime.engine.providers import parse_options
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.streams import NOISE_FORMS, Noise, parse_noise
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.serving.client import connect, is_url
from dualsmooth.runtime.serving.repository import fill_repository
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.smoother import Smoother, load
from dualsmooth.runtime.statistics.budgets import Adaptive, AtRadius, Fixed, parse_budget
from dualsmooth.runtime.statistics.rules.plan import ROUTES

SOURCE = "a bundle's folder, or a Triton server: grpc://host:8001, http://host:8000"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the runtime's commands to the command line."""
    demo = commands.add_parser("demo", help="certify real images with the bundle that ships in the package")
    demo.add_argument("--images", type=int, default=20, help="how many of the shipped test images (default 20)")
    demo.add_argument("--out", type=Path, help=f"folder for the plot and the report (default {DEFAULT_OUT})")
    demo.add_argument("--force", action="store_true", help="write over a plot and a report that exist in --out")
    engine_options(demo)
    sampling_options(demo, Adaptive(10_000, 0.0))
    demo.set_defaults(run=_demo)

    certify = commands.add_parser("certify", help="certificates for PNG, JPEG or NPY images")
    certify.add_argument("bundle", type=source, help=SOURCE)
    certify.add_argument("images", nargs="+", metavar="image", type=Path)
    certify.add_argument("--json", action="store_true", help="one certificate a line, as JSON")
    engine_options(certify)
    sampling_options(certify, Fixed(10_000))
    certify.set_defaults(run=_certify)

    predict = commands.add_parser("predict", help="labels without radii")
    predict.add_argument("bundle", type=source, help=SOURCE)
    predict.add_argument("images", nargs="+", metavar="image", type=Path)
    predict.add_argument("-n", type=int, default=1_000, help="passes a stage and level (default 1000)")
    predict.add_argument("--rule", default="interval", help="interval (default) or paper")
    predict.add_argument("--route", help=f"{ROUTES} (default: the rule's)")
    predict.add_argument("--alpha", type=float, default=1e-3)
    predict.add_argument("--seed", type=int)
    noise_option(predict)
    predict.add_argument("--json", action="store_true", help="one prediction a line, as JSON")
    engine_options(predict)
    predict.set_defaults(run=_predict)

    inspect = commands.add_parser("inspect", help="what a bundle is: levels, files, hashes, provenance, cost of a pass")
    inspect.add_argument("bundle", type=Path)
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(run=_inspect)

    from dualsmooth.runtime.commands import data_sets as dataset_commands  # it shares the options below

    dataset_commands.register(commands)

    triton = commands.add_parser("triton", help="fill a Triton model repository from a bundle")
    triton.add_argument("bundle", type=Path)
    triton.add_argument("--out", type=Path, required=True, help="new folder for the model repository")
    triton.add_argument(
        "--engine",
        default="in-process",
        help="in-process (default): dual_smoothing runs the networks; bls: through the base models on the same server",
    )
    triton.add_argument(
        "--allow-seed",
        action="store_true",
        help="let clients choose the noise, for tests (default: refused)",
    )
    engine_options(triton)
    triton.set_defaults(run=_triton)

    doctor = commands.add_parser("doctor", help="what this machine can do, what is wrong, and how to mend it")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor)

    verify = commands.add_parser("verify", help="recompute a certificate from its counts and check its hashes")
    verify.add_argument("certificate", type=Path, help="a JSON certificate, or one a line")
    verify.add_argument("--bundle", type=Path, help="check that it is about this bundle")
    verify.add_argument("--replay", type=Path, metavar="IMAGE", help="draw the votes again for this image")
    verify.add_argument(
        "--strict",
        action="store_true",
        help="also refuse fixed seeds, shared noise and noise used twice; needs --bundle",
    )
    verify.add_argument("--json", action="store_true")
    engine_options(verify)
    verify.set_defaults(run=_verify)


ENGINE_DEFAULTS: dict[str, Any] = {"provider": "cpu", "threads": 0, "batch_size": 256}


def engine_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs base models."""
    parser.set_defaults(**ENGINE_DEFAULTS)
    parser.add_argument("--provider", help="cpu (default), cuda, tensorrt or openvino")
    parser.add_argument("--threads", type=int, help="engine threads (default: the cores of this process)")
    parser.add_argument(
        "--batch-size", type=_batch_size, help="passes per engine call (default 256); auto: measured once"
    )
    parser.add_argument(
        "--provider-option", action="append", default=[], metavar="NAME=VALUE", help="see docs/engines.md; repeatable"
    )


def _batch_size(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def engine_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load` that `engine_options` gave."""
    return {
        "provider": args.provider,
        "threads": args.threads,
        "batch_size": args.batch_size,
        "provider_options": parse_options(args.provider_option),
    }


def sampling_options(parser: argparse.ArgumentParser, budget: object) -> None:
    parser.add_argument(
        "--alpha", type=float, default=1e-3, help="failure probability of a certificate (default 0.001)"
    )
    parser.add_argument(
        "--budget", default=str(budget), help=f"fixed:N, adaptive:N:TOL or at-radius:R:N (default {budget})"
    )
    parser.add_argument("--rule", default="interval", help="interval (default), paper, multiscale or single:SIGMA")
    parser.add_argument("--route", help=f"{ROUTES}; quantiles move between small and large radii (default: the rule's)")
    parser.add_argument("--seed", type=int, help="fixed seed (default: the operating system's entropy)")
    noise_option(parser)


def noise_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--noise", default=str(Noise()), help=f"{NOISE_FORMS} (default {Noise()})")


def source(text: str) -> Path | str:
    return text if is_url(text) else Path(text)


def open_smoother(args: argparse.Namespace) -> Smoother:
    """The bundle's networks here, or a server's; what is asked of the engine is never silently left out."""
    if is_url(args.bundle):
        for name, usual in (*ENGINE_DEFAULTS.items(), ("provider_option", [])):
            if (given := getattr(args, name)) != usual:
                raise InputError(
                    f"--{name.replace('_', '-')} {' '.join(given) if isinstance(given, list) else given} with "
                    f"{args.bundle}, whose networks run as the server's config.pbtxt says; set it there with "
                    "`dualsmooth triton`, or pass a bundle"
                )
        return connect(args.bundle)
    return load(args.bundle, **engine_of(args))


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "alpha": args.alpha,
        "budget": parse_budget(args.budget),
        "rule": args.rule,
        "route": args.route,
        "seed": args.seed,
        "noise": parse_noise(args.noise),
    }


def _demo(args: argparse.Namespace) -> int:
    own = args.out is None
    run_demo(
        args.out or DEFAULT_OUT,
        force=own or args.force,
        count=args.images,
        engine=engine_of(args),
        sampling=sampling_of(args),
    )
    return 0


def _certify(args: argparse.Namespace) -> int:
    sampling = sampling_of(args)
    smoother = open_smoother(args)
    smoother.terms(**{k: v for k, v in sampling.items() if k not in ("seed", "noise")})
    images = [smoother.check_image(read_image(path, smoother.bundle.input_shape)) for path in args.images]
    for path, certificate in zip(args.images, smoother.certify_many(images, **sampling), strict=True):
        print(certificate.to_json() if args.json else _sentence(path, smoother, certificate), flush=True)
    return 0


def _sentence(path: Path, smoother: Smoother, certificate: Certificate) -> str:
    cost = f"{certificate.passes} passes, confidence {confidence(certificate.alpha)}"
    budget = certificate.terms.budget
    if isinstance(budget, AtRadius):
        cost = f"certified at {budget.r:g}: {'yes' if certificate.radius >= budget.r else 'no'}, {cost}"
    cost += (", fixed seed" if certificate.seed.fixed else "") + (
        ", shared noise" if certificate.seed.noise.shared else ""
    )
    if certificate.label is None:
        return f"{path}: abstained (sigma {certificate.sigma:g}, {cost})"
    name = smoother.bundle.classes[certificate.label]
    return (
        f"{path}: {name} (class {certificate.label}), certified radius {shown(certificate.radius, 4)} (sigma "
        f"{certificate.sigma:g}, route radius {shown(certificate.route_radius, 4)}, class radius "
        f"{shown(certificate.class_radius, 4)}, {cost})"
    )


def _predict(args: argparse.Namespace) -> int:
    noise = parse_noise(args.noise)
    smoother = open_smoother(args)
    images = [smoother.check_image(read_image(path, smoother.bundle.input_shape)) for path in args.images]
    for path, image in zip(args.images, images, strict=True):
        found = smoother.predict(
            image, noise=noise, alpha=args.alpha, n=args.n, rule=args.rule, route=args.route, seed=args.seed
        )
        name = "abstained" if found.label is None else f"{smoother.bundle.classes[found.label]} (class {found.label})"
        print(found.to_json() if args.json else f"{path}: {name}, {found.passes} passes", flush=True)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    findings = examine()
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for found in findings:
            print(
                f"{found.state:5}{found.subject:12}{found.text}" + (f"\n{'':17}fix: {found.fix}" if found.fix else "")
            )
    return 1 if any(found.state == BAD for found in findings) else 0


def _inspect(args: argparse.Namespace) -> int:
    facts = describe(read_bundle(args.bundle))
    print(json.dumps(facts, indent=2) if args.json else sentences(facts))
    return 0


def _triton(args: argparse.Namespace) -> int:
    models = fill_repository(args.bundle, args.out, engine=args.engine, allow_seed=args.allow_seed, **engine_of(args))
    print(f"{args.out}: {', '.join(models)}; serve it with: tritonserver --model-repository={args.out}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.bundle is None and (args.replay is not None or args.strict):
        why = "--replay needs the bundle that drew the votes" if args.replay else "--strict checks against your bundle"
        raise InputError(f"{why}; add --bundle BUNDLE")
    try:
        lines = _certificates(args.certificate.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {args.certificate} ({error}); expected a JSON certificate") from error
    if not lines:
        raise InputError(f"{args.certificate} is empty; expected a JSON certificate")
    smoother = open_smoother(args) if args.bundle is not None else None
    seen: dict[tuple[int, int], int] = {}
    for number, line in enumerate(lines, 1):
        try:
            certificate = Certificate.from_json(line)
            if smoother is not None:
                smoother.verify(certificate)
            if args.strict:
                _strict(certificate, strict_json.loads(line)["radius"], seen, number)
            if smoother is not None and args.replay is not None:
                smoother.replay(certificate, read_image(args.replay, smoother.bundle.input_shape))
            word = _word(certificate, smoother, replayed=args.replay is not None)
        except CertificateError as error:
            raise CertificateError(f"{args.certificate}, line {number}: {error}") from error
        checked = ["radius follows from the votes"]
        checked += ["files match the bundle"] if smoother else []
        checked += ["own noise from the system's entropy"] if args.strict else []
        checked += ["replayed votes are identical"] if args.replay else []
        notes = [*certificate.caveats(), *word]
        result = {
            "valid": True, "strict": args.strict, "label": certificate.label, "radius": certificate.radius,
            "checked": checked, "notes": notes,
        }  # fmt: skip
        text = "; ".join([*checked, *(f"note: {note}" for note in notes)])
        print(json.dumps(result) if args.json else f"valid: radius {shown(certificate.radius, 6)}; {text}")
    return 0


def _certificates(text: str) -> list[str]:
    """One JSON object, on however many lines, or one a line."""
    try:
        strict_json.loads(text)
    except ValueError:
        return [line for line in text.splitlines() if line.strip()]
    return [text]


def _word(certificate: Certificate, smoother: Smoother | None, *, replayed: bool) -> list[str]:
    """What no check here can show, so that it is the issuer's word."""
    stated = certificate.artefact
    notes = [] if replayed else ["the votes are the issuer's word (no --replay)"]
    if smoother is None or not replayed:
        notes.append(f"so is that they were drawn by {stated.provider}, {stated.engine}")
    elif (stated.provider, stated.engine) != (smoother.engine.provider, smoother.engine.name):
        notes.append(
            f"that they were drawn by {stated.provider}, {stated.engine} is the issuer's word: replayed on "
            f"{smoother.engine.provider}, {smoother.engine.name}"
        )
    if not replayed or certificate.version != version("dualsmooth"):
        notes.append(f"that version {certificate.version} of dualsmooth issued it is the issuer's word")
    return notes


def _strict(certificate: Certificate, radius: float, seen: dict[tuple[int, int], int], line: int) -> None:
    """What `verify --strict` asks beyond `verify --bundle`: no caveats, no stated radius above the recomputed one, and
    no noise used twice in the file."""
    if radius > certificate.radius:
        raise CertificateError(f"radius is stated as {radius}, but the votes give {certificate.radius} at most")
    for caveat in certificate.caveats():
        raise CertificateError(f"{caveat}; --strict expects own noise, from the system's entropy, for these terms")
    seed = certificate.seed
    other = seen.setdefault((seed.entropy, seed.index), line)
    if other != line:
        raise CertificateError(f"its noise is that of line {other}; --strict expects own noise for each certificate")
