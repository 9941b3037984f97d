#!/usr/bin/env bash
# Builds a source distribution and a wheel from it, installs the wheel into an empty environment outside the checkout, and
# uses it there: transcribe, evaluate, and a dry run of training (with the libraries of the test environment).
#
#   .ci/check_wheel.sh VENV     VENV is the test environment, which has `build`
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git ls-files -z | xargs -0 cp --parents --no-dereference -t "$work" 2>/dev/null || { echo 'cannot copy the checkout'; exit 1; }
mkdir "$work/dist"
(cd "$work" && "$venv/bin/python" -m build --outdir dist . > build.log 2>&1) || { tail -20 "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)

python3 -m venv "$work/env"
"$work/env/bin/python" -m pip --disable-pip-version-check -q install "$wheel"
mkdir "$work/user"
cd "$work/user"
"$venv/bin/python" - <<'PYTHON'
import numpy as np
import soundfile

time = np.arange(3 * 16000) / 16000
soundfile.write('song.wav', 0.3 * np.sin(2 * np.pi * 440 * time), 16000)
PYTHON
MRMT3_CACHE="$work/cache" "$work/env/bin/mrmt3" transcribe song.wav -o song.mid --quiet
MRMT3_CACHE="$work/cache" "$work/env/bin/mrmt3" evaluate song.mid song.mid > scores.txt
grep -q 'onset' scores.txt

mkdir "$work/unpacked"
"$venv/bin/python" -m zipfile -e "$wheel" "$work/unpacked"
PYTHONPATH="$work/unpacked" "$venv/bin/mrmt3" dataset build data --recipe demo --pieces 2 --seconds 4 > build.txt
PYTHONPATH="$work/unpacked" "$venv/bin/python" -m mrmt3.train --gin_file=runs/demo.gin --gin.MODEL_DIR="'model'" \
  --gin.DATA_DIR="'data'" --dry_run > train.txt
PYTHONPATH="$work/unpacked" "$venv/bin/python" -c 'import mrmt3; print(mrmt3.__file__)' | grep -q "$work/unpacked"
echo "wheel: $(basename "$wheel"), $(stat -c %s "$wheel") bytes"
