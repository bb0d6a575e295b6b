#!/usr/bin/env bash
# Coq 8.16 and mathcomp 1.15 from Debian's packages, where they are missing and may be installed.
set -euo pipefail

probe() { echo 'From mathcomp Require Import all_algebra ring.' >"$1/probe.v" && coqc -q "$1/probe.v" >/dev/null 2>&1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if command -v coqc >/dev/null && probe "$folder"; then
    exit 0
fi
packages="coq libcoq-mathcomp-algebra libcoq-mathcomp-algebra-tactics"
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    exit 0
fi
echo "error: the proofs need Coq with mathcomp; install Debian's packages: $packages" >&2
exit 2
