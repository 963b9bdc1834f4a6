#!/bin/sh
# `make setup`: .venv with this project, its development extra, and the exact versions of constraints.txt.
# PYTHON names the interpreter; without it the first that will do of those below. Nothing is made before one is found.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
done_mark=$venv/.installed
range=$(sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.\([0-9]*\)"$/\1 \2/p' pyproject.toml)
lowest=${range% *}
above=${range#* }

# Says in half a sentence what is wrong with a Python; nothing if it will do. Any Python 3 can read it.
problem_of() {
  "$1" -c "
import sys
if not (3, $lowest) <= sys.version_info[:2] < (3, $above):
    sys.exit('is Python %d.%d.%d' % sys.version_info[:3])
import platform
if sys.platform == 'darwin' and platform.machine() != 'arm64':
    sys.exit('is a Python for Intel, which torch and ONNX Runtime have left')
" 2>&1 || :
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :; }

# What is there is kept if it works, is of the version that was asked for, and can be installed into.
works() {
  [ -n "$(version_of $venv/bin/python)" ] && [ -z "$(problem_of $venv/bin/python)" ] || return 1
  [ -z "${PYTHON:-}" ] || [ "$(version_of $venv/bin/python)" = "$(version_of "$PYTHON")" ]
}
can_install() { command -v uv >/dev/null || $venv/bin/python -m pip --version >/dev/null 2>&1; }
unchanged() { [ -e $done_mark ] && [ ! pyproject.toml -nt $done_mark ] && [ ! constraints.txt -nt $done_mark ]; }

find_python() {
  tried=
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    problem=$(problem_of "$python")
    if [ -z "$problem" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      problem="lacks the module venv or ensurepip (Debian, Ubuntu: apt install python3-venv)"
    fi
    [ -n "$problem" ] || return 0
    [ -z "$(version_of "$python")" ] && problem="is not there"
    tried="$tried
  $python $problem"
  done
  cat >&2 <<END
error: this needs Python 3.$lowest to 3.$((above - 1)) with the module venv:$tried
Install one:
  with Homebrew:  brew install python@3.$((above - 1)), then make setup PYTHON=python3.$((above - 1))
  with uv:        uv python install 3.$((above - 1)), then make setup PYTHON="\$(uv python find 3.$((above - 1)))"
END
  exit 2
}

if works; then
  ! unchanged || exit 0
fi
if ! works || ! can_install; then
  find_python
  "$python" -m venv --clear $venv
fi

# uv if it is there or can be had, plain pip otherwise: the same packages, minutes apart.
rm -f $done_mark
if command -v uv >/dev/null; then
  uv pip install --quiet --python $venv/bin/python --constraint constraints.txt --editable '.[dev]'
elif $venv/bin/python -m pip install --quiet --disable-pip-version-check uv; then
  $venv/bin/uv pip install --quiet --python $venv/bin/python --constraint constraints.txt --editable '.[dev]'
else
  $venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
fi
touch $done_mark
