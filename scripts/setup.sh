# Sourced by the scripts beside it: finds a Python, makes .venv, installs into it. POSIX sh.
# Gives $root (the checkout, from here on the working directory), $venv and $py (its Python), and
#   need GROUP...   have these installed: core (highmem itself) or dependency groups of pyproject.toml
#   wish GROUP      the same for a group whose absence costs only skipped tests
# What is installed already is left alone until pyproject.toml changes or the checkout moves.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd -- "$root"
venv=$root/.venv
py=$venv/bin/python
force=${force:-}
trap 'exit 130' INT

# A user's "pip install --user by default" cannot work inside a venv.
PIP_USER=0
PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_USER PIP_DISABLE_PIP_VERSION_CHECK

say() {
    printf 'highmem: %s\n' "$*" >&2
}

die() {
    say "$*"
    exit 1
}

is_new_enough() {
    "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Print the Python to build .venv with: $PYTHON if set, else python3, else the newest python3.N.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or later"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null) || found='no python3'
    die "needs Python 3.11 or later and found $found: install one, or set PYTHON to its path"
}

# A venv that an interrupted or outdated set-up of ours left behind is made anew; another's is not.
make_venv() {
    base=$(find_python)
    if [ -e "$venv" ] && [ ! -e "$venv/made-by-highmem" ]; then
        die ".venv is not from scripts/install and has no Python 3.11 or later with pip: move it away"
    fi
    rm -rf -- "$venv"
    mkdir -- "$venv"
    : >"$venv/made-by-highmem"
    : >"$venv/unfinished"
    if "$base" -I -c 'import ensurepip' >/dev/null 2>&1; then
        "$base" -m venv "$venv" >&2 || die "$base -m venv failed, see above"
    elif "$base" -m pip --version >/dev/null 2>&1; then
        # Debian without python3-venv but with python3-pip.
        "$base" -m venv --without-pip "$venv" >&2 || die "$base -m venv failed, see above"
        "$base" -m pip --python "$py" install --quiet pip >&2 || die "no pip for .venv, see above"
    else
        die "$base has neither ensurepip nor pip: install python3-venv, or set PYTHON to another Python"
    fi
    rm -- "$venv/unfinished"
}

has_pip() {
    [ ! -e "$venv/unfinished" ] && "$py" -I -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The files that an installation is made from: the project's data, and what is compiled.
depends_on() {
    cat pyproject.toml hatch_build.py src/highmem/__init__.py $(find src/highmem -name '_[a-z]*.py' | sort)
}

# What an installation depends on; the path too, because an editable installation holds it.
fingerprint() {
    printf '%s %s %s\n' "$("$py" -V)" "$(depends_on | cksum)" "$root"
}

is_stamped() {
    [ -z "$force" ] && [ "$(cat "$venv/stamp-$1" 2>/dev/null)" = "$(fingerprint)" ]
}

pip_install() {
    "$py" -m pip install --quiet --prefer-binary "$@" >&2
}

pip_install_group() {
    group=$1
    shift
    # pip reads dependency groups itself only from 25.1 on, a fresh Python 3.11 brings 22 to 24.
    "$py" scripts/groups.py "$group" >"$venv/group-$group.txt" || die "cannot read group $group"
    pip_install "$@" -r "$venv/group-$group.txt"
}

need() {
    has_pip || make_venv
    for group in "$@"; do
        is_stamped "$group" && continue
        say "installing $group into .venv"
        if [ "$group" = core ]; then
            pip_install -e .
        else
            pip_install_group "$group"
        fi || die "installing $group failed, see pip's words above"
        fingerprint >"$venv/stamp-$group"
    done
}

wish() {
    is_stamped "$1" && return
    if ! is_stamped "no-$1"; then
        say "installing $1 into .venv"
        if pip_install_group "$1" --only-binary=:all: 2>/dev/null; then
            fingerprint >"$venv/stamp-$1"
            return
        fi
        fingerprint >"$venv/stamp-no-$1"
    fi
    say "group $1 cannot be installed here, tests that need it are skipped (scripts/install retries)"
}
