"""What the documents tell a reader to type: found in them, and made small by rules, so that tests can run all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = "dualsmooth|python3?|make|pip|apt|apt-get|torchrun|docker|tritonserver|curl|export|cd|build/[^ ]+/bin/[^ ]+"
SHELLS = ("sh", "bash", "console")
COMMAND = re.compile(rf"(?:{PROGRAMS})(?: |$)")

TOGETHER = ("docs/tutorial.md",)
"""Pages whose commands and Python go on with what the blocks before them have made."""

SERVER = re.compile(r"(?:grpc|http)://[^ \"']+")
ELSEWHERE = {
    r"^(docker|tritonserver) ": "a container or a server of one's own; tests/triton runs Triton",
    SERVER.pattern: "asks a server: tests/triton/test_documents.py runs it on a real one",
    r"^nvidia-smi": "needs a device, as do the tests that `make gpu` runs",
    r"^(pip|apt|apt-get) ": "changes the machine; make's targets install what they need",
    r"^python scripts/": "measures for minutes to hours; each script has tests of its own",
}
"""Commands that no test of the documents runs, and why. Their options are compared with what there is all the same."""

SMALLER = {
    r"\bBUNDLE\b": "runtime/data/fashion-mnist",
    r"\bIMAGE\b(\.\.\.)?": "image.png",
    r"fixed:\d+": "fixed:50",
    r"adaptive:\d+": "adaptive:200",
    r"(at-radi\w+:[\d.,]+):\d+": r"\1:200",
    r"imagefolder:([^@ ]+)(?= )": r"imagefolder:\1@32",
    r"--max \d+": "--max 4",
    r"--skip \d+": "--skip 1",
    r"--provider (cuda|tensorrt|openvino)": "--provider cpu",
    r"\bresnet(110|50-224)\b": "resnet20",
    r"--device cuda": "--device cpu",
    r"--nproc-per-node \d+": "--nproc-per-node 2",
    r"--port \d+": "--port 0",
    r"^dualsmooth studio\b": "timeout --foreground --preserve-status --signal INT 20 dualsmooth studio --no-browser",
    r"^make ": "make -n ",
    r"^python (?!-)": "python -W error ",
}
"""What is printed, and what is run in its place: smaller, on any machine."""

USUAL = {
    "demo": "--images 2 --budget fixed:50",
    "certify": "--budget fixed:50",
    "evaluate": "--max 4 --budget fixed:50",
    "bench": "--seconds 0.05 --turns 1 --batch-size 16",
    "train": "--validation 20 --labels 10 --votes 20 --classifier-epochs 1 --estimator-epochs 1 --threads 1 "
    "--set classifier.experts=false --set classifier.batch_size=16 --set estimator.batch_size=16 "
    "--set metrics.images=2 --set metrics.votes=20",
}
"""Options that make a command small; those that a command has already are left as they are."""
INSTEAD = {
    "--at-radii": ("--budget",),
    "--experts": ("--classifier-epochs", "--set classifier.experts", "--set classifier.batch_size"),
}
"""Options that are not added beside another."""


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block of code: fenced ones, and indented ones that begin with a command (sh)."""
    for part in re.split(r"^(```.*?^```)$", path.read_text(), flags=re.M | re.S):
        if part.startswith("```"):
            language, text = part[3:-3].split("\n", 1)
            yield language.strip(), text
            continue
        for found in re.finditer(r"(?:(?<=\n\n)|\A)(?:    .*\n)+", part):
            if COMMAND.match(found[0].strip()):
                yield "sh", found[0]


def commands(path: Path) -> list[str]:
    """The commands of a document, in order, without comments."""
    return commands_in("\n".join(text for language, text in blocks(path) if language in SHELLS))


def commands_in(text: str) -> list[str]:
    """The commands of a block, without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in re.sub(r"\\\n", " ", text).splitlines())
    return [" ".join(line.removeprefix("$ ").split()) for line in lines if line]


def spans(path: Path) -> list[str]:
    """What stands in the running text as a command: `dualsmooth …`, `make …`, `scripts/NAME.py …`."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    found = re.findall(r"`((?:(?:dualsmooth|make|pip|torchrun|python) |scripts/)[^`\n]+)`", text)
    return [f"python {span}" if span.startswith("scripts/") else span for span in found]


def elsewhere(command: str) -> str | None:
    """Why the command is not run by the tests of the documents, if it is not."""
    return next((why for pattern, why in ELSEWHERE.items() if re.search(pattern, command)), None)


def subcommand(command: str) -> str | None:
    """`evaluate` of `dualsmooth evaluate …`, however dualsmooth is started."""
    found = re.search(r"(?:^|[/ ])dualsmooth ([a-z]+)\b", command)
    return found[1] if found else None


def smaller(command: str) -> str:
    """The command as it is run."""
    for pattern, instead in SMALLER.items():
        command = re.sub(pattern, instead, command)
    line, *redirected = re.split(r"(?= >)", command, maxsplit=1)
    given, added = line, []
    for option in re.findall(r"--\S+(?: [^-]\S*)?", USUAL.get(subcommand(command) or "", "")):
        name = option if option.startswith("--set") else option.split()[0]
        name = name.split("=")[0]
        barred = any(have in given and name in names for have, names in INSTEAD.items())
        if name not in given and not barred:
            added.append(option)
    return " ".join([line, *added, *redirected])


def options(command: str) -> list[str]:
    """The long options of a command."""
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", command)
