"""`dualsmooth studio`: a page on this machine to certify pictures, watch their votes, and attack them."""

from __future__ import annotations

import argparse
import webbrowser

from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.commands.options import (
    BUNDLE_HELP,
    dataset_of,
    dataset_options,
    engine_of,
    engine_options,
    examples,
)
from dualsmooth.runtime.smoothing.smoother import load
from dualsmooth.runtime.studio.pictures import Pictures
from dualsmooth.runtime.studio.server import StudioServer
from dualsmooth.runtime.studio.studio import Studio


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth studio",
        "dualsmooth studio fashion-mnist --port 8500 --no-browser",
    )
    default = SHIPPED_BUNDLE.name
    parser.add_argument("bundle", nargs="?", default=default, help=f"{BUNDLE_HELP} (default {default})")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1 (default 0: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    dataset_options(parser, required=False, use="; its first pictures are offered (default: those that ship)")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    dataset = dataset_of(args) if args.dataset else None
    try:
        with load(args.bundle, **engine_of(args)) as smoother:
            _serve(Studio(smoother, Pictures.of(smoother, dataset)), args.port, browser=not args.no_browser)
    except KeyboardInterrupt:  # the way to end it
        print("the studio is closed")
    return 0


def _serve(studio: Studio, port: int, *, browser: bool) -> None:
    with StudioServer(studio, port) as server:
        print(f"the studio of {studio.smoother.bundle.path.name}, until Ctrl-C: {server.address}", flush=True)
        if browser:
            webbrowser.open(server.address)
        server.serve_forever()
