"""Fetch Fashion-MNIST into a folder, without root: IDX files, 31 MB, MIT licence.

From Debian's package where apt is at hand, else from where its authors put it. The files are checked against their
SHA-256. Does nothing where they are there; where they cannot be had it says so in one line and succeeds, unless
`--required` is given.

    python scripts/fetch_data.py build/data    # then: export DUALSMOOTH_DATA=build/data
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CONTENT = {
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}
"""SHA-256 of what each file holds, unpacked: the same from every source."""


def whole(folder: Path) -> bool:
    """Whether all files are there and hold what they should."""
    try:
        found = {name: hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest() for name in CONTENT}
    except (OSError, EOFError, zlib.error):
        return False
    return found == CONTENT


def from_debian(folder: Path) -> None:
    """Unpack the package, with the machine's lists of packages or, where they are missing or old, with our own."""
    work = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    own = [f"-oDir::State={work}", f"-oDir::Cache={work}/cache", "-oDir::State::status=/var/lib/dpkg/status"]
    own += ["-oAPT::Sandbox::User=root", "-qq"]

    def run(*command: str) -> None:
        subprocess.run(command, cwd=work, check=True, timeout=600, capture_output=True)

    try:
        run("apt-get", "download", PACKAGE)
    except subprocess.CalledProcessError:
        run("apt-get", *own, "update")
        run("apt-get", *own, "download", PACKAGE)
    (package,) = work.glob(f"{PACKAGE}_*.deb")
    run("dpkg", "-x", str(package), "unpacked")
    for name in CONTENT:
        shutil.copyfile(work / "unpacked" / INSTALLED.relative_to("/") / name, folder / name)
    shutil.rmtree(work)


def from_origin(folder: Path) -> None:
    """Download the files one by one."""
    for name in CONTENT:
        with urllib.request.urlopen(ORIGIN + name, timeout=60) as reply, open(folder / name, "wb") as file:
            shutil.copyfileobj(reply, file)


SOURCES: dict[str, Callable[[Path], None]] = {f"apt-get download {PACKAGE}": from_debian, ORIGIN: from_origin}


def fetch(target: Path) -> str | None:
    """Fill `target`; what went wrong with each source where none has the files."""
    part, failures = target.with_name(target.name + ".part"), []
    for name, source in SOURCES.items():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            source(part)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
            failures.append(f"{name}: {said.splitlines()[-1][:120] if said else type(error).__name__}")
            continue
        if not whole(part):
            failures.append(f"{name}: the files are not those that were published")
            continue
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        return None
    shutil.rmtree(part, ignore_errors=True)
    return "; ".join(failures)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch Fashion-MNIST into FOLDER/fashion-mnist, without root.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--required", action="store_true", help="fail where the data cannot be had")
    options = parser.parse_args(arguments)
    target: Path = options.folder.resolve() / "fashion-mnist"
    if not whole(target):
        if target.is_symlink():
            target.unlink()
        failure = None
        if whole(INSTALLED):
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(INSTALLED)
        else:
            failure = fetch(target)
        if failure:
            print(f"data: Fashion-MNIST cannot be fetched ({failure}); put its IDX files into {target}")
            return int(options.required)
    print(f"data: {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
