"""Fetch a headless Chromium into a folder, without root: for the tests of the report where none is installed.

The npm registry's package `@sparticuz/chromium` carries the browser itself, compressed, with the libraries that bare
machines lack. Needs npm and node. Does nothing where a Chromium is installed; where none can be had it says so, and
succeeds.

    python scripts/fetch_browser.py build/browser
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@147.0.0"
INSTALLED = ("chromium", "chromium-browser", "google-chrome")
UNPACK = """
const zlib = require("zlib"), fs = require("fs"), path = require("path");
for (const name of ["chromium", "al2023.tar", "fonts.tar", "swiftshader.tar"])
  fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(path.join("package", "bin", name + ".br"))));
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{0}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{0}/fonts-cache</cachedir></fontconfig>
"""
START = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/lib:$here" FONTCONFIG_FILE="$here/fonts.conf" HOME="${HOME:-$here}"
exec "$here/chromium-bin" "$@"
"""


def main() -> None:
    folder = Path(sys.argv[1])
    target = folder / "chromium"
    found = next((path for path in map(shutil.which, INSTALLED) if path and Path(path).stat().st_size), None)
    if found or target.exists():
        print(f"browser: {found or target}")
        return
    if not (shutil.which("npm") and shutil.which("node")):
        print("browser: none here, and no npm to fetch one; tests of the report in a browser are skipped")
        return
    work = folder / "part"
    shutil.rmtree(folder, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=work, check=True, timeout=300, capture_output=True)
        with tarfile.open(next(work.glob("*.tgz"))) as archive:
            archive.extractall(work, filter="data")
        subprocess.run(["node", "-e", UNPACK], cwd=work, check=True)
        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(work / name) as archive:
                archive.extractall(folder, filter="data")
    except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError) as error:
        print(f"browser: cannot be fetched ({error}); tests of the report in a browser are skipped")
        return
    (work / "chromium").rename(folder / "chromium-bin")
    (folder / "chromium-bin").chmod(0o755)
    shutil.rmtree(work)
    (folder / "fonts.conf").write_text(FONTS.format(folder.resolve()))
    target.write_text(START)
    target.chmod(0o755)
    print(f"browser: {target}")


if __name__ == "__main__":
    main()
