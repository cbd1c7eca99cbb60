# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by every script here: where things are, and how progress is shown.
# shellcheck shell=bash

LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$LAB")
BUILD=$LAB/.build                  # this checkout's: ssh configuration, key
CACHE=$ROOT/.cache/lab             # boxes; a box is named for what it was built from
STATE=/run/exfil-guard-lab         # this machine's: daemons that we started, and whose lab is up
NETWORK=exfil-guard
PREFIX=exfil-guard-                # of libvirt's domains
MACHINES=(web1 db1 outside)
export LIBVIRT_DEFAULT_URI=qemu:///system VAGRANT_CWD=$LAB VAGRANT_DEFAULT_PROVIDER=libvirt
export VAGRANT_HOME=${VAGRANT_HOME:-/root/.vagrant.d}  # also under sudo: what root makes is root's
export VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_BOX_UPDATE_CHECK_DISABLE=1 VAGRANT_NO_PLUGINS_CHECK=1

LAB_STARTED=$SECONDS
say() { printf '[%4ds] lab: %s\n' "$((SECONDS - LAB_STARTED))" "$*" >&2; }
fail() { printf 'lab: %s\n' "$*" >&2; exit 1; }

# quietly LOG COMMAND...: the output goes to the log, and is shown when the command fails.
quietly() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; fail "this failed: $* (all of its output: $log)"; }
}

hardware_virtualisation() { grep -qE '\b(vmx|svm)\b' /proc/cpuinfo; }  # /dev/kvm may exist and not work

box_digest() {
    (cd "$LAB/box" && find . -type f -printf '%P %m\n' | LC_ALL=C sort | while read -r file mode; do
        printf '%s %s ' "$file" "$mode"
        sha256sum <"$file"
    done) | sha256sum | cut -c1-12
}
