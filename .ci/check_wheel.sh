#!/usr/bin/env bash
# Builds the source distribution and, from it, the wheel; installs the wheel in an empty environment outside the checkout,
# and transcribes a small file with it. The environment's packages come from the package index.
#   .ci/check_wheel.sh PYTHON
set -euo pipefail
python=$(realpath -s "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
"$python" -m venv build
build/bin/python -m pip --disable-pip-version-check -q install build
# A copy of what git tracks: building leaves files behind, and files that git does not know must not help.
mkdir checkout
git -C "$root" ls-files -z | tar -C "$root" --null -T - -cf - | tar -C checkout -xf -
build/bin/python -m build --outdir dist checkout >build.log || { cat build.log; exit 1; }
wheel=$(echo dist/mrmt3-*.whl)

# Every gin file and template of the checkout is in the wheel, and nothing of the tests.
"$python" - "$wheel" "$root" <<'PYTHON'
import pathlib, sys, zipfile

names, root = set(zipfile.ZipFile(sys.argv[1]).namelist()), pathlib.Path(sys.argv[2])
wanted = {f'mrmt3/{path.relative_to(root).as_posix()}' for path in (root / 'gin').glob('*/*.gin')}
wanted |= {f'mrmt3/{path.relative_to(root).as_posix()}' for path in (root / 'tasks').glob('*.py')}
for pattern in ('*/templates/*', 'weights/*/*', '**/*.py'):
  wanted |= {path.relative_to(root).as_posix() for path in (root / 'mrmt3').glob(pattern) if path.is_file()}
missing = sorted(wanted - names)
extra = sorted(name for name in names if name.startswith(('tests/', 'gin/', 'tasks/')))
assert len(wanted) > 100 and not missing and not extra, f'missing in the wheel: {missing}; not wanted: {extra}'
print(f'{sys.argv[1]}: {len(names)} files')
PYTHON

"$python" -m venv empty
empty/bin/python -m pip --disable-pip-version-check -q install "$wheel"
mkdir elsewhere
cd elsewhere
unset PYTHONPATH
cp "$root/tests/golden/songs/song1.flac" song.flac
../empty/bin/mrmt3 transcribe song.flac -o song.mid
../empty/bin/python - <<'PYTHON'
import mido, mrmt3

assert '/empty/' in mrmt3.__file__, mrmt3.__file__
notes = sum(message.type == 'note_on' and message.velocity > 0 for message in mido.MidiFile('song.mid'))
assert notes > 5, f'{notes} notes'
print(f'the installed wheel transcribed a file: {notes} notes')
PYTHON
../empty/bin/mrmt3 evaluate song.mid song.mid

# Gin files, tasks and the training's modules come from the wheel; their libraries are the test environment's.
"$python" -m zipfile -e "../$wheel" ../unpacked
export PYTHONPATH="$work/unpacked"
"$python" -c 'import mrmt3; print(mrmt3.__file__)' | grep "$work/unpacked"
"$python" -m mrmt3 dataset build data --recipe demo --pieces 2 --seconds 4 >build.txt
"$python" -m mrmt3.train --gin_file=runs/demo.gin --gin.MODEL_DIR="'model'" --gin.DATA_DIR="'data'" --dry_run >train.txt
