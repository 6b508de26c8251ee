#!/usr/bin/env bash
# bash scripts/docs.sh: builds the documentation into outputs/docs/site; a public name without a docstring fails it.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup docs
cd "$ROOT" || exit
"$PYTHON" scripts/docs.py || die "the pages could not be written, for the reason above."
"$PYTHON" -m mkdocs build --quiet --strict --config-file scripts/mkdocs.yml || die "the documentation has warnings, see above."
echo "dsnn: outputs/docs/site/index.html"
