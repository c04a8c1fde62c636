"""The studio's page: one text that holds its code, its style and what it has to know of the bundle."""

from __future__ import annotations

from typing import Any

from dualsmooth.runtime.errors import InputError, printable
from dualsmooth.runtime.report.embedding import embedded, part
from dualsmooth.runtime.smoothing.drawing import EXCLUDED, SAME, colours_css
from dualsmooth.runtime.smoothing.modes import MODES
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics import budgets
from dualsmooth.runtime.statistics.rules import RULES
from dualsmooth.runtime.studio.studio import Studio, in_base64

REPORT, ROOM = "dualsmooth.runtime.report", "dualsmooth.runtime.studio"
SCRIPTS = ("server.js", "picture.js", "votes.js", "run.js", "attack.js", "start.js")


def page_html(studio: Studio) -> str:
    """The page for a bundle. What comes from files is data, never markup; it may ask its own server and nobody else.
    Raises `InputError` for a bundle whose images are no pictures."""
    bundle, pictures = studio.smoother.bundle, studio.pictures
    channels, height, width = bundle.input_shape
    if channels not in (1, 3):
        raise InputError(f"{bundle.path} takes images of {channels} channels; the studio shows those of 1 or 3")
    data: dict[str, Any] = {
        "name": printable(bundle.path.name),
        "about": f"{bundle.summary}, {bundle.precision}",
        "classes": [printable(name) for name in bundle.classes],
        "shape": [channels, height, width],
        "sigmas": list(bundle.sigmas),
        "sigmaE": bundle.sigma_e,
        "alpha": ALPHA,
        "rule": RULE if bundle.sigma_e is not None else _rules(studio.smoother)[0]["name"],
        "rules": _rules(studio.smoother),
        "modes": [{"name": m.name, "meaning": m.meaning, "needsRadius": m.needs_radius} for m in MODES.values()],
        "budgets": budgets.FORMS,
        "groups": [
            {"name": printable(part.name), "classes": list(part.classes)}
            for part in (bundle.groups.parts if bundle.groups else ())
        ],
        "bars": [EXCLUDED, SAME],
        "pictures": [
            {"pixels": in_base64(pictures.images[place]), "name": pictures.names[place]} for place in pictures.offered
        ],
    }
    style = colours_css() + part(REPORT, "report.css") + part(ROOM, "studio.css")
    script = part(REPORT, "elements.js") + "".join(part(ROOM, name) for name in SCRIPTS)
    return embedded(part(ROOM, "studio.html"), style=style, script=script, data=data, connect="'self'")


def _rules(smoother: Smoother) -> list[dict[str, str]]:
    """The rules that this bundle can be certified by, each with what it means."""
    bundle = smoother.bundle
    return [
        {"name": name, "meaning": rule.legend.meaning}
        for rule in RULES.values()
        if bundle.sigma_e is not None or not rule.routes
        for name in rule.all_named(bundle.sigmas)
    ]
