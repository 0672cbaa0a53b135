#!/usr/bin/env bash
# Installs the package in fresh environments and, in each, trains for two epochs and runs the tests
# of the bijectors: on Python 3.11, 3.12 and 3.13 with the newest releases that setup.cfg allows,
# and on Python 3.11 with the lowest.
#
#     tests/matrix.sh                     # all four; about ten minutes each on two cores
#     tests/matrix.sh 3.12 3.11-lowest    # the ones named
#
# Needs python3.11, python3.12 and python3.13 on PATH. Prints a table at the end and exits with 1 if
# anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."

all=(3.11 3.12 3.13 3.11-lowest)
[ $# -gt 0 ] || set -- "${all[@]}"
for name in "$@"; do
    case " ${all[*]} " in
        *" $name "*) ;;
        *) echo "No environment is called $name: choose from ${all[*]}." >&2; exit 2 ;;
    esac
    command -v "python${name%-lowest}" >/dev/null || {
        echo "python${name%-lowest} is not on PATH: install it, or name other environments." >&2
        exit 2
    }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Every lower bound of setup.cfg as a pin, for pip's --constraint: "keras>=3.12,<4" is "keras==3.12".
lowest() {
    "$1" - <<'PYTHON'
import configparser
import re

setup = configparser.ConfigParser()
setup.read("setup.cfg")
extras = setup["options.extras_require"]
for line in (setup["options"]["install_requires"] + "\n" + extras["test"]).split("\n"):
    if requirement := line.strip():
        name, bound = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)(?:,.*)?", requirement).groups()
        print(f"{name}=={bound}")
PYTHON
}

# The versions that the table shows.
versions() {
    "$1" - <<'PYTHON'
from importlib.metadata import version
from platform import python_version

names = ("tensorflow", "keras", "tensorflow-probability", "numpy")
print(" | ".join((python_version(), *map(version, names))))
PYTHON
}

# Adds a row to the table; the steps after an install that failed are not run.
check() {
    local name=$1 interpreter=python${1%-lowest} venv=$work/venv run=$work/$1 told="- | - | - | - | -"
    local install=failed train="not run" tests="not run"
    printf '\n== %s: install (%ss)\n' "$name" "$SECONDS"
    : >"$work/constraints.txt"
    if { [[ $name != *-lowest ]] || lowest "$interpreter" >"$work/constraints.txt"; } &&
        "$interpreter" -m venv --clear "$venv" &&
        "$venv/bin/pip" install -q --constraint "$work/constraints.txt" -e ".[test]" &&
        told=$(versions "$venv/bin/python"); then
        install=passed train=failed tests=failed
        printf '\n== %s: train (%ss)\n' "$name" "$SECONDS"
        "$venv/bin/python" train.py --flow iaf --epochs 2 --output "$run" && train=passed
        printf '\n== %s: the tests of the bijectors (%ss)\n' "$name" "$SECONDS"
        "$venv/bin/python" -m pytest tests/bijectors 2>&1 | tee "$work/tests.txt" && tests=passed
        tests+=" ($(tail -n 1 "$work/tests.txt" | tr -d '=' | xargs))"
    fi
    echo "| $name | $told | $install | $train | $tests |" >>"$work/table"
    [[ $install = passed && $train = passed && $tests = passed* ]]
}

failed=0
for name in "$@"; do
    check "$name" || failed=1
done
printf '\n| environment | Python | TensorFlow | Keras | TFP | NumPy | install | train | tests |\n'
printf '|---|---|---|---|---|---|---|---|---|\n'
cat "$work/table"
exit "$failed"
