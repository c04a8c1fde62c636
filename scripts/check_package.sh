#!/usr/bin/env bash
# Build the sdist and, from it, the wheel; check both; install the wheel alone and run the demo and what it names.
# usage: scripts/check_package.sh FOLDER   (dist/ and the environments are made there)
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=${PYTHON:-python3}
rm -rf "$folder/dist" "$folder/source" "$folder/user" "$folder/work"
if [ ! -x "$folder/tools/bin/twine" ]; then
    "$python" -m venv "$folder/tools"
    "$folder/tools/bin/pip" install --quiet build twine check-wheel-contents
fi
mkdir -p "$folder/source" "$folder/work"
git ls-files -z | tar --null --no-recursion -T - -cf - | tar xf - -C "$folder/source"  # nothing that git does not know
"$folder/tools/bin/python" -m build --outdir "$folder/dist" "$folder/source" > "$folder/build.log"
"$folder/tools/bin/twine" check --strict "$folder"/dist/*
"$folder/tools/bin/check-wheel-contents" --config "$folder/source/pyproject.toml" "$folder"/dist/*.whl

"$python" -m venv "$folder/user"
"$folder/user/bin/pip" install --quiet "$(echo "$folder"/dist/*.whl)[cpu]"
cd "$folder/work"
export PATH="$folder/user/bin:$PATH"
unset PYTHONPATH
dualsmooth demo --images 2 --budget fixed:200 | tee demo.txt
sed -n '/^next: /,$p' demo.txt | tail -n +2 | sed 's/--max 100/--max 2 --budget fixed:200/' > next.sh
[ "$(wc -l < next.sh)" = 3 ]
bash -euxo pipefail next.sh
python -m dualsmooth --version
