#!/bin/sh
# Regenerates zsys_linux_*.go from the kernel headers that gen/headers.pin names.
#   mkall.sh          write the files, and prove them
#   mkall.sh -check   change nothing, fail if a file is stale or proved wrong
#   mkall.sh -latest  move the pin to Debian's current headers first
# Needs Go, apt-get, dpkg, and clang 16 or later (root gets it installed). Keeps what it fetches in $SYSFD_CACHE.
set -eu
cd "$(dirname "$0")"
case $# in 0) mode= ;; 1) mode=$1 ;; *) mode=bad ;; esac
case $mode in '' | -check | -latest) ;; *) echo 'usage: mkall.sh [-check | -latest]' >&2; exit 2 ;; esac
cache=${SYSFD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sysfd}
mkdir -p "$cache/lists/partial" "$cache/archives/partial"
. gen/headers.pin

# apt-get with lists of its own, of Debian's newest suite: the machine's stay as they are.
sid() {
	apt-get -qq -o Dir::Etc::sourcelist="$cache/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$cache/lists" \
		-o Dir::Cache="$cache" -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root -o APT::Update::Post-Invoke-Success= "$@"
}
update() {
	[ -z "${updated-}" ] || return 0
	for uri in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian'; \
		apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages'); do
		echo "deb $uri sid main" >"$cache/sources.list"
		if sid update 2>"$cache/log" && sid download --print-uris linux-libc-dev >"$cache/uris" 2>>"$cache/log"; then updated=yes; return 0; fi
	done
	cat "$cache/log" >&2; echo 'mkall.sh: apt-get knows no archive with a suite "sid"' >&2; exit 1
}
# get VERSION: the headers as $cache/linux-libc-dev_VERSION_all.deb, empty VERSION = the current one.
get() { update && (cd "$cache" && sid download "linux-libc-dev${1:+=$1}"); }
deb() { echo "$cache/linux-libc-dev_${version}_all.deb"; }
sum() { sha256sum "$(deb)" | cut -d' ' -f1; }

for clang in clang clang-22 clang-21 clang-20 clang-19 clang-18 clang-17 clang-16 ''; do
	[ -z "$clang" ] || { command -v $clang >/dev/null && [ "$($clang -dumpversion | cut -d. -f1)" -ge 16 ] && break; } # 16: loong64
done
if [ -z "$clang" ]; then
	[ "$(id -u)" = 0 ] || { echo 'mkall.sh: clang 16 or later is needed' >&2; exit 1; }
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends clang-16 >&2
	clang=clang-16
fi

moved=
if [ "$mode" = -latest ] || { [ ! -f "$(deb)" ] && ! get "$version" 2>/dev/null; }; then
	update && latest=$(sed 's/.* linux-libc-dev_\([^ ]*\)_all.deb .*/\1/' "$cache/uris") && get "$latest"
	case $mode in
	'') echo "mkall.sh: the archive has $latest and no longer $version: run mkall.sh -latest" >&2; exit 1 ;;
	-check) moved=-moved; echo "mkall.sh: the archive has moved on from $version, checking against $latest" ;;
	esac
	version=$latest && sha256=$(sum)
fi
[ "$(sum)" = "$sha256" ] || { echo "mkall.sh: $(deb) is not the package that gen/headers.pin names" >&2; exit 1; }
[ -d "$cache/$version" ] || { rm -rf "$cache/new" && dpkg -x "$(deb)" "$cache/new" && mv "$cache/new" "$cache/$version"; }
if [ ! -d "$cache/libc" ]; then
	update && rm -rf "$cache/new" && (cd "$cache" && for arch in amd64 arm64 armhf i386; do sid download libc6-dev-$arch-cross; done &&
		for f in libc6-dev-*-cross_*.deb; do dpkg -x "$f" new; done) && mv "$cache/new" "$cache/libc"
fi
check=; [ "$mode" != -check ] || check=-check
(cd gen && GOWORK=off go run . -clang "$clang" -headers "$cache/$version/usr/include" -libc "$cache/libc/usr" $check $moved)
[ "$mode" != -latest ] || sed -i "s/^version=.*/version=$version/; s/^sha256=.*/sha256=$sha256/" gen/headers.pin
