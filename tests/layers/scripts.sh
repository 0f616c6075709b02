#!/bin/sh
# Every shell script of the tree through shellcheck, found by its first line rather than by its name, and a control: a
# script with a planted defect must be found.
set -eu

cd "$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)"
command -v shellcheck > /dev/null 2>&1 || { echo 'scripts: shellcheck is missing; next: make setup' >&2; exit 8; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2016 # the text of a script
printf '#!/bin/sh\nrm -rf $1/*\n' > "$work/planted.sh"
if shellcheck "$work/planted.sh" > /dev/null 2>&1; then
    echo 'scripts: the planted defect was not found' >&2
    exit 1
fi

git ls-files -z --cached --others --exclude-standard |
    xargs -0 grep -lEIs -m 1 '^#!/(bin/(ba)?sh|usr/bin/env (ba)?sh)' > "$work/list" || :
# A name says nothing; the first line does.
while read -r file; do
    if head -n 1 "$file" | grep -qE '^#!/(bin/(ba)?sh|usr/bin/env (ba)?sh)$'; then
        printf '%s\0' "$file"
    fi
done < "$work/list" > "$work/scripts"
xargs -0 shellcheck < "$work/scripts"
echo "scripts: $(tr '\0' '\n' < "$work/scripts" | wc -l) clean"
