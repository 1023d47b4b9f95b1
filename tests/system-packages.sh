#!/usr/bin/env bash
# Debian packages that some tests drive for real; without them those tests are skipped with their reason.
# A line each: the program that shows it is there, then the package. Needs root or sudo, and does nothing
# where everything is there already.
set -euo pipefail

needed="
chromium      chromium
chromedriver  chromium-driver
pg_ctlcluster postgresql
"

missing=()
while read -r program package; do
	if [ -n "$program" ] && ! command -v "$program" >/dev/null; then
		missing+=("$package")
	fi
done <<<"$needed"

if [ "${#missing[@]}" -eq 0 ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "no apt-get here: install ${missing[*]} by hand, or their tests are skipped" >&2
	exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo)
fi
"${as_root[@]}" apt-get update -q
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
