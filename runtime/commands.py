"""The runtime's commands: demo, certify, predict, evaluate, report, plan, triton, verify."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualsmooth.runtime.budgets import Adaptive, AtRadius, Fixed, parse_budget
from dualsmooth.runtime.certificate import Certificate
from dualsmooth.runtime.client import connect, is_url
from dualsmooth.runtime.curves import RADII, average_certified_radius, certified_accuracy, certified_radii, expand_rules
from dualsmooth.runtime.datasets import Dataset, load_dataset
from dualsmooth.runtime.demo import run_demo
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluate import evaluate
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.images import read_image
from dualsmooth.runtime.planner import plan
from dualsmooth.runtime.report import html_report, markdown_table, plot_curves
from dualsmooth.runtime.results import Result, read_results
from dualsmooth.runtime.smoother import Smoother, load
from dualsmooth.runtime.triton import fill_repository

SOURCE = "a bundle's folder, or a Triton server: grpc://host:8001, http://host:8000"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the runtime's commands to the command line."""
    demo = commands.add_parser("demo", help="certify real images with the bundle that ships in the package")
    demo.add_argument("--images", type=int, default=20, help="how many of the shipped test images (default 20)")
    demo.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the plot and the report")
    _engine_options(demo)
    _sampling_options(demo, Adaptive(10_000, 0.0))
    demo.set_defaults(run=_demo)

    certify = commands.add_parser("certify", help="certificates for PNG, JPEG or NPY images")
    certify.add_argument("bundle", type=_source, help=SOURCE)
    certify.add_argument("images", nargs="+", metavar="image", type=Path)
    certify.add_argument("--json", action="store_true", help="one certificate a line, as JSON")
    _engine_options(certify)
    _sampling_options(certify, Fixed(10_000))
    certify.set_defaults(run=_certify)

    predict = commands.add_parser("predict", help="labels without radii")
    predict.add_argument("bundle", type=_source, help=SOURCE)
    predict.add_argument("images", nargs="+", metavar="image", type=Path)
    predict.add_argument("-n", type=int, default=1_000, help="passes a stage and level (default 1000)")
    predict.add_argument("--rule", default="interval", help="interval (default) or paper")
    predict.add_argument("--alpha", type=float, default=1e-3)
    predict.add_argument("--seed", type=int)
    predict.add_argument("--json", action="store_true", help="one prediction a line, as JSON")
    _engine_options(predict)
    predict.set_defaults(run=_predict)

    run = commands.add_parser("evaluate", help="certify a data set; appends, resumes after a kill")
    run.add_argument("bundle", type=_source, help=SOURCE)
    run.add_argument("--dataset", required=True, help="fashion-mnist or npz:PATH")
    run.add_argument("--data-dir", type=Path, help="folder of the data set's files")
    run.add_argument("--split", default="test", help="test (default) or train")
    run.add_argument("--out", type=Path, required=True, help="results file (JSON Lines)")
    run.add_argument("--skip", type=int, default=1, help="every SKIP-th image (default 1: all)")
    run.add_argument("--max", type=int, help="only images with an index below MAX")
    run.add_argument("--indices", help="comma-separated indices instead of --skip and --max")
    run.add_argument("--all-levels", action="store_true", help="sample every level in full, to compare rules offline")
    _engine_options(run)
    _sampling_options(run, Fixed(10_000))
    run.set_defaults(run=_evaluate)

    report = commands.add_parser("report", help="certified accuracy of results files")
    report.add_argument("results", nargs="+", type=Path)
    report.add_argument(
        "--rule", action="append", help="recompute from the votes: interval, paper, multiscale, single, oracle"
    )
    report.add_argument("--route", help="median or mode, for recomputing")
    report.add_argument("--alpha", type=float, help="recompute at another alpha")
    report.add_argument("--radii", default=",".join(f"{r:g}" for r in RADII), help="comma-separated")
    report.add_argument("--out", type=Path, help="write an .html page or a .png plot")
    report.add_argument("--json", action="store_true")
    report.set_defaults(run=_report)

    planner = commands.add_parser("plan", help="predict certified accuracy at other N from a pilot (approximate)")
    planner.add_argument("results", type=Path, help="results of a Fixed budget")
    planner.add_argument("--passes", default="1000,10000,100000", help="comma-separated passes a stream")
    planner.add_argument("--json", action="store_true")
    planner.set_defaults(run=_plan)

    triton = commands.add_parser("triton", help="fill a Triton model repository from a bundle")
    triton.add_argument("bundle", type=Path)
    triton.add_argument("--out", type=Path, required=True, help="new folder for the model repository")
    triton.add_argument(
        "--engine",
        default="in-process",
        help="in-process (default): dual_smoothing runs the networks; bls: through the base models on the same server",
    )
    _engine_options(triton)
    triton.set_defaults(run=_triton)

    verify = commands.add_parser("verify", help="recompute a certificate from its counts and check its hashes")
    verify.add_argument("certificate", type=Path, help="a JSON certificate, or one a line")
    verify.add_argument("--bundle", type=Path, help="check that it is about this bundle")
    verify.add_argument("--replay", type=Path, metavar="IMAGE", help="draw the votes again for this image")
    verify.add_argument("--json", action="store_true")
    _engine_options(verify)
    verify.set_defaults(run=_verify)


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", default="cpu", help="execution provider (default cpu)")
    parser.add_argument("--threads", type=int, default=0, help="engine threads (default: the engine's choice)")
    parser.add_argument("--batch-size", type=int, default=256, help="passes per engine call (default 256)")


def _sampling_options(parser: argparse.ArgumentParser, budget: object) -> None:
    parser.add_argument(
        "--alpha", type=float, default=1e-3, help="failure probability of a certificate (default 0.001)"
    )
    parser.add_argument(
        "--budget", default=str(budget), help=f"fixed:N, adaptive:N:TOL or at-radius:R:N (default {budget})"
    )
    parser.add_argument("--rule", default="interval", help="interval (default), paper, multiscale or single:SIGMA")
    parser.add_argument("--route", help="median or mode (default: the rule's)")
    parser.add_argument("--seed", type=int, help="fixed seed (default: the operating system's entropy)")


def _source(text: str) -> Path | str:
    return text if is_url(text) else Path(text)


def _smoother(args: argparse.Namespace) -> Smoother:
    if is_url(args.bundle):
        return connect(args.bundle)
    return load(args.bundle, args.provider, threads=args.threads, batch_size=args.batch_size)


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "alpha": args.alpha,
        "budget": parse_budget(args.budget),
        "rule": args.rule,
        "route": args.route,
        "seed": args.seed,
    }


def _demo(args: argparse.Namespace) -> int:
    engine = {"provider": args.provider, "threads": args.threads, "batch_size": args.batch_size}
    run_demo(args.out, count=args.images, engine=engine, sampling=_sampling(args))
    return 0


def _certify(args: argparse.Namespace) -> int:
    sampling = _sampling(args)
    smoother = _smoother(args)
    smoother.terms(**{k: v for k, v in sampling.items() if k != "seed"})
    images = [smoother.check_image(read_image(path, smoother.bundle.input_shape)) for path in args.images]
    for path, certificate in zip(args.images, smoother.certify_many(images, **sampling), strict=True):
        print(certificate.to_json() if args.json else _sentence(path, smoother, certificate), flush=True)
    return 0


def _sentence(path: Path, smoother: Smoother, certificate: Certificate) -> str:
    cost = f"{certificate.passes} passes, confidence {1 - certificate.alpha:g}"
    budget = certificate.terms.budget
    if isinstance(budget, AtRadius):
        cost = f"certified at {budget.r:g}: {'yes' if certificate.radius >= budget.r else 'no'}, {cost}"
    if certificate.label is None:
        return f"{path}: abstained (sigma {certificate.sigma:g}, {cost})"
    name = smoother.bundle.classes[certificate.label]
    return (
        f"{path}: {name} (class {certificate.label}), certified radius {certificate.radius:.4f} (sigma "
        f"{certificate.sigma:g}, route radius {certificate.route_radius:.4f}, class radius "
        f"{certificate.class_radius:.4f}, {cost})"
    )


def _predict(args: argparse.Namespace) -> int:
    smoother = _smoother(args)
    images = [smoother.check_image(read_image(path, smoother.bundle.input_shape)) for path in args.images]
    for path, image in zip(args.images, images, strict=True):
        found = smoother.predict(image, alpha=args.alpha, n=args.n, rule=args.rule, seed=args.seed)
        name = "abstained" if found.label is None else f"{smoother.bundle.classes[found.label]} (class {found.label})"
        print(found.to_json() if args.json else f"{path}: {name}, {found.passes} passes", flush=True)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    sampling = _sampling(args)
    dataset = load_dataset(args.dataset, split=args.split, data_dir=args.data_dir)
    indices = _indices(args, dataset)
    smoother = _smoother(args)
    start = time.perf_counter()

    def progress(result: Result, done: int, total: int) -> None:
        if sys.stderr.isatty() or done % 25 == 0 or done == total:
            line = f"{done}/{total} images, {time.perf_counter() - start:.0f} s, radius {result.certificate.radius:.3f}"
            print(line, end="\r" if sys.stderr.isatty() and done < total else "\n", file=sys.stderr, flush=True)

    writer = evaluate(
        smoother, dataset, args.out, indices=indices, all_levels=args.all_levels, progress=progress, **sampling
    )
    if writer.repaired:
        print(f"{args.out}: a torn last line was cut off and its image certified again", file=sys.stderr)
    print(f"{len(writer.done)} results in {args.out}; see them with: dualsmooth report {args.out}")
    return 0


def _indices(args: argparse.Namespace, dataset: Dataset) -> list[int]:
    if args.indices is not None:
        try:
            return list(dict.fromkeys(int(i) for i in args.indices.split(",")))
        except ValueError:
            raise InputError(f"--indices {args.indices!r}; expected comma-separated integers, e.g. 0,5,9") from None
    if args.skip < 1 or (args.max is not None and args.max < 1):
        raise InputError(f"--skip {args.skip} --max {args.max}; expected positive integers")
    return list(range(0, min(len(dataset), args.max or len(dataset)), args.skip))


def _report(args: argparse.Namespace) -> int:
    try:
        radii = [float(r) for r in args.radii.split(",")]
    except ValueError:
        raise InputError(f"--radii {args.radii!r}; expected comma-separated numbers, e.g. 0,0.5,1") from None
    if args.out is not None and args.out.suffix not in (".html", ".png"):
        raise InputError(f"--out {args.out}; expected a file that ends in .html or .png")
    curves, facts = {}, {}
    for path in args.results:
        results = read_results(path)
        first = results[0].certificate
        rules: Sequence[str | None] = expand_rules(args.rule, first.terms.sigmas) if args.rule else [None]
        for rule in rules:
            name = rule or first.terms.rule
            name = name if len(args.results) == 1 else f"{path.name}: {name}"
            curves[name] = certified_radii(results, rule=rule, route=args.route, alpha=args.alpha)
        sigmas = ", ".join(f"{s:g}" for s in first.terms.sigmas)
        facts[str(path)] = (
            f"{len(results)} images of {results[0].dataset}, budget {first.terms.budget}, alpha "
            f"{args.alpha or first.alpha:g}, sigmas {sigmas}, provider {first.artefact.provider}"
        )
    if args.json:
        print(
            json.dumps({"radii": radii, "curves": {k: list(certified_accuracy(v, radii)) for k, v in curves.items()}})
        )
    else:
        print("\n".join(f"{path}: {fact}" for path, fact in facts.items()), markdown_table(curves, radii), sep="\n\n")
    if args.out is not None and args.out.suffix == ".png":
        plot_curves(curves, args.out)
    elif args.out is not None:
        write_atomically(args.out, html_report(curves, facts, radii))
    return 0


def _plan(args: argparse.Namespace) -> int:
    try:
        passes = [int(n) for n in args.passes.split(",")]
    except ValueError:
        raise InputError(f"--passes {args.passes!r}; expected comma-separated integers, e.g. 1000,10000") from None
    forecasts = plan(read_results(args.results), passes)
    curves = {f"N = {f.n:,} (approximate)": f.radii for f in forecasts}
    if args.json:
        rows = [
            {
                "n": f.n,
                "certified_accuracy": list(certified_accuracy(f.radii)),
                "acr": average_certified_radius(f.radii),
                "acr_formula": f.formula_acr,
            }
            for f in forecasts
        ]
        print(json.dumps({"approximate": True, "radii": list(RADII), "forecasts": rows}))
    else:
        print(markdown_table(curves))
        formula = ", ".join(f"{f.formula_acr:.3f}" for f in forecasts)
        print(f"\nACR by the formula of arXiv 2404.17371: {formula}. For planning only, not certificates.")
    return 0


def _triton(args: argparse.Namespace) -> int:
    options = {"provider": args.provider, "threads": args.threads, "batch_size": args.batch_size}
    models = fill_repository(args.bundle, args.out, engine=args.engine, **options)
    print(f"{args.out}: {', '.join(models)}; serve it with: tritonserver --model-repository={args.out}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.replay is not None and args.bundle is None:
        raise InputError("--replay needs the bundle that drew the votes; add --bundle BUNDLE")
    try:
        lines = [line for line in args.certificate.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {args.certificate} ({error}); expected a JSON certificate") from error
    if not lines:
        raise InputError(f"{args.certificate} is empty; expected a JSON certificate")
    smoother = _smoother(args) if args.bundle is not None else None
    for number, line in enumerate(lines, 1):
        try:
            certificate = Certificate.from_json(line)
            if smoother is not None:
                smoother.verify(certificate)
            if smoother is not None and args.replay is not None:
                smoother.replay(certificate, read_image(args.replay, smoother.bundle.input_shape))
        except CertificateError as error:
            raise CertificateError(f"{args.certificate}, line {number}: {error}") from error
        checked = ["radius follows from the votes"]
        checked += ["files match the bundle"] if smoother else []
        checked += ["replayed votes are identical"] if args.replay else []
        checked += ["note: the seed was chosen by a person"] if certificate.seed.fixed else []
        result = {"valid": True, "label": certificate.label, "radius": certificate.radius, "checked": checked}
        print(json.dumps(result) if args.json else f"valid: radius {certificate.radius:g}; " + "; ".join(checked))
    return 0
