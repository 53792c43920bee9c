#!/usr/bin/env bash
# perform.sh STEP: does one step of `make setup`, whatever its state. Started by run_step, which bounds and logs it.
set -euo pipefail
# shellcheck source=scripts/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=/dev/null
. "$STEPS/$1.sh"
set -x
perform
