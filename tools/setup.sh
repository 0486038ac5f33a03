#!/usr/bin/env bash
# Makes this clone ready: Debian's packages, a virtual environment, the compiled runtime.
# Does only what is missing, so that a second run takes no time. Asks for sudo only for packages.
#
#   tools/setup.sh packages [browser] [go] [qemu] [containers] [cross] [free-threaded] Debian's packages
#   tools/setup.sh venv                      .venv with the pinned versions
#   tools/setup.sh build                     the runtime and the analysis's pass, compiled in place
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "not root and no sudo: as root, run: $*"
    fi
}

have_package() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

packages() {
    command -v dpkg-query >/dev/null || {
        say "Not a Debian: install bcc's Python package, kernel headers and gcc by your own means"
        return
    }
    local missing=() wanted=(python3-bpfcc "linux-headers-$(dpkg --print-architecture)" gcc libc6-dev) asked package python
    python=$(find_python) || wanted+=(python3)
    # Python's own headers and venv come apart on Debian, and only for Debian's Python.
    if [ -z "${python:-}" ] || [ "$("$python" -c 'import sys; print(sys.base_prefix)')" = /usr ]; then
        wanted+=(python3-dev python3-venv)
    fi
    for asked in "$@"; do
        case $asked in
        browser) wanted+=(chromium chromium-driver) ;;
        go) wanted+=(golang-1.19-go binutils) ;;
        containers) wanted+=(podman runc) ;;
        cross) wanted+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
        free-threaded) wanted+=(g++ make xz-utils dpkg-dev libffi-dev zlib1g-dev libssl-dev) ;;
        qemu) wanted+=(qemu-system-x86 qemu-system-arm busybox-static debootstrap kmod xz-utils zstd) ;;
        *) fail "no such set of packages: $asked" ;;
        esac
    done
    for package in "${wanted[@]}"; do
        have_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing Debian's packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# A long step's output matters only if it fails.
quietly() {
    "$@" >setup.log 2>&1 || {
        tail -n 30 setup.log >&2
        fail "failed: $*; the whole output is in setup.log"
    }
    rm -f setup.log
}

venv() {
    local python stamp=.venv/installed
    if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then
        return 0
    fi
    python=$(find_python) || fail "no Python from 3.11 on: install one, or name it in PYTHON"
    say "Making .venv with $("$python" --version)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    quietly .venv/bin/pip install -q --disable-pip-version-check -U -c constraints.txt \
        setuptools wheel mypy
    # mypyc's compiler is in the environment already: an isolated build would fetch it again.
    # The runtime is compiled by 'build', which looks at what changed. mypyc's library is a module
    # beside the packages, and only the mode "compat" puts their folder on the path.
    PRETAKE_NO_COMPILE=1 quietly .venv/bin/pip install -q --disable-pip-version-check \
        -c constraints.txt --no-build-isolation --config-settings editable_mode=compat \
        -e '.[test,lint,wheels]'
    touch "$stamp"
}

# compile NAME STAMP LIBRARY SOURCE...: one group of modules, if it is not there, or a source is newer
# than its stamp.
compile() {
    local name=$1 stamp=$2 library=$3
    shift 3
    # Not setup.py: it is both groups', and a module that it lists anew is a new file.
    if [ -e "$stamp" ] && compgen -G "./${library}__mypyc*.so" >/dev/null && [ -z "$(find "$@" \
        \( -name '*.py' -o -name '*.c' -o -name '*.h' \) -newer "$stamp" -print -quit)" ]; then
        return 0
    fi
    say "Compiling the $name (about a minute, once)"
    find "${@: -1}" -name '*.so' -delete # the last source is the group's folder
    rm -f ./"$library"__mypyc*.so
    PRETAKE_BUILD=$name quietly .venv/bin/python setup.py -q build_ext --inplace --force
    touch "$stamp"
}

build() {
    compile runtime .venv/built reference_runtime tracer/trace/words.py reference_runtime
    compile engine .venv/built-engine analysis_ptime analysis/ptime/engine
}

step=${1:-}
[ $# -gt 0 ] && shift
case $step in
packages | venv | build) "$step" "$@" ;;
*) fail "say one of: packages, venv, build" ;;
esac
