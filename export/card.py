"""The model card: README.md in a bundle, generated from the manifest, for people. No program reads it."""

from __future__ import annotations

import json
from typing import Any

from dualsmooth.runtime.bundle.describing import cost, describe, pictures, size
from dualsmooth.runtime.bundle.reading import Bundle

CARD = "README.md"


def model_card(bundle: Bundle, version: str) -> str:
    """Markdown about `bundle`: what it is for, how to use it, what is known about it, and what is not."""
    facts = describe(bundle)
    provenance = facts["provenance"]
    channels, height, width = facts["input_shape"]
    classes = ", ".join(_plain(name) for name in facts["classes"][:20])
    more = f", … ({len(facts['classes'])} in all)" if len(facts["classes"]) > 20 else ""
    router = [("variance estimator", facts["estimator"])] if facts["estimator"] else []
    stages = [*router, *(("classifier", level) for level in facts["levels"])]
    kind = "dual randomized" if router else "randomized"
    rows = [
        f"| {role} | {stage['sigma']:g} | {', '.join(stage['members'])} | "
        f"{cost(stage['multiply_adds'], stage['uncounted'])} |"
        for role, stage in stages
    ]
    files = [f"| {name} | {size(f['bytes'])} | `{f['sha256']}` |" for name, f in facts["files"].items()]
    return "\n".join(
        [
            "# Model card",
            "",
            f"A bundle of dualsmooth {version}: an image classifier with certified L2 robustness, by {kind}",
            "smoothing. A certificate is about exactly the files below, in this precision.",
            "",
            f"- input: {channels} x {height} x {width}, pixels in [0, 1], not normalised",
            f"- pictures: {pictures(facts)}",
            f"- classes: {classes}{more}",
            f"- precision: {facts['precision']}",
            f"- manifest SHA-256: `{facts['manifest_sha256']}`",
            "",
            "```sh",
            "dualsmooth inspect .",
            "dualsmooth certify . image.png",
            "```",
            "",
            "## Networks",
            "",
            "| role | noise level | files | cost of a pass |",
            "| --- | ---: | --- | --- |",
            *rows,
            "",
            "| file | size | SHA-256 |",
            "| --- | ---: | --- |",
            *files,
            "",
            *_measured(provenance),
            *_origin(provenance),
            "## Limits",
            "",
            "Certificates bound changes of the image in the L2 norm only, and say that the label stays the same, not",
            "that it is right. They hold with the confidence that each of them states. Accuracy and radii on other",
            "data than the above are not known.",
            "",
            "This file is generated and is not covered by the manifest's hashes; `manifest.json` is what counts.",
            "",
        ]
    )


def _measured(provenance: dict[str, Any]) -> list[str]:
    lines = []
    precision = provenance.get("precision")
    if isinstance(precision, dict):
        lines += [
            f"Arg-max agreement with fp32 under noise, on {precision.get('measured_on')} images of "
            f"{_plain(str(precision.get('images')))} at each level (floor {precision.get('floor')}):",
            "",
            *(
                f"- {name}: " + ", ".join(f"{share:.1%} at {level}" for level, share in levels.items())
                for name, levels in precision.get("agreement", {}).items()
            ),
            "",
        ]
    metrics = provenance.get("metrics")
    found = metrics.get("certified_accuracy") if isinstance(metrics, dict) else None
    if isinstance(found, dict) and isinstance(metrics, dict):
        radii = metrics.get("radii", [])
        lines += [
            f"Certified accuracy on {metrics.get('images')} validation images, {metrics.get('votes')} votes, "
            f"alpha {metrics.get('alpha')} (measured during training, on the PyTorch side):",
            "",
            "| rule | " + " | ".join(f"r = {r:g}" for r in radii) + " |",
            "| --- |" + " ---: |" * len(radii),
            *(f"| {rule} | " + " | ".join(f"{share:.1%}" for share in row) + " |" for rule, row in found.items()),
            "",
        ]
    return ["## Measured", "", *lines] if lines else []


def _origin(provenance: dict[str, Any]) -> list[str]:
    kept = {k: v for k, v in provenance.items() if k not in ("metrics", "precision")}
    text = json.dumps(kept, indent=2, ensure_ascii=False).replace("```", "'''")
    return ["## Provenance", "", "```json", text, "```", ""]


def _plain(text: str) -> str:
    """Text of others inside of Markdown: one line, nothing that formats."""
    return " ".join("".join(c if c.isalnum() or c in " .,:+-/()'" else " " for c in text).split())[:80]
