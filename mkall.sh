#!/bin/sh
# Regenerates zsys_linux_*.go from the kernel headers that gen/headers.pin names.
#   mkall.sh          write the files, and prove them
#   mkall.sh -check   change nothing, fail if a file is stale or proved wrong
#   mkall.sh -latest  the same as mkall.sh with Debian's current headers, and move the pin to them
# Needs Go, apt-get, dpkg, and clang 16 or later (root gets it installed). Keeps what it fetches in $SYSFD_CACHE.
set -eu
die() { echo "mkall.sh: $*" >&2; exit 1; }
case "$# ${1-}" in '0 ' | '1 -check' | '1 -latest') mode=${1-} flags=${1-} ;; *) echo 'usage: mkall.sh [-check | -latest]' >&2; exit 2 ;; esac
cache=${SYSFD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sysfd}
mkdir -p "$cache/lists/partial" "$cache/archives/partial"; cache=$(cd "$cache"; pwd)
exec 9>"$cache/lock"; flock -w 600 9 || die "another run holds $cache/lock" # one run at a time
cd "$(dirname "$0")"; . gen/headers.pin

# apt-get with lists of its own, of Debian's newest suite: the machine's stay as they are.
sid() { apt-get -qq -c "$cache/apt.conf" "$@"; }
update() {
	: >"$cache/log"; cat >"$cache/apt.conf" <<-END
		Dir::Cache "$cache"; Dir::State::lists "$cache/lists"; Dir::State::status "/dev/null"; Dir::Etc::sourcelist "$cache/sources.list";
		Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
		#clear APT::Update; APT::Default-Release "sid"; APT::Sandbox::User "root"; Acquire::Check-Valid-Until "false";
	END
	for uri in $(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' | uniq); do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg target=Packages] $uri sid main" >"$cache/sources.list"
		if sid update --error-on=any 2>>"$cache/log"; then return; fi
	done
	cat "$cache/log" >&2; die 'apt-get reaches no archive with a suite "sid"'
}

for clang in clang clang-22 clang-21 clang-20 clang-19 clang-18 clang-17 clang-16 ''; do # loong64 needs 16
	if [ "$($clang -dumpversion 2>/dev/null | cut -d. -f1)" -ge 16 ] 2>/dev/null; then break; fi
done
if [ -z "$clang" ]; then
	[ "$(id -u)" = 0 ] || die 'clang 16 or later is needed'
	apt-get -qq update
	if apt-cache show clang-16 >/dev/null 2>&1; then clang=clang-16; else clang=clang; fi # Debian 12's clang is 14
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $clang >&2
fi

if [ "$mode" = -latest ] || [ ! -d "$cache/$sha256" ]; then
	update
	set -- $(sid download --print-uris linux-libc-dev | sed -n 's/.* linux-libc-dev_\(.*\)_all\.deb .* SHA256:\([0-9a-f]*\)$/\1 \2/p')
	[ $# = 2 ] || die 'apt-get does not tell the version and SHA-256 of linux-libc-dev'
	case $mode/$1/$2 in
	-latest/*) flags= version=$1 sha256=$2 ;;
	*/"$version/$sha256") ;;
	*/"$version"/*) die "gen/headers.pin: the sha256 of $version is $2" ;;
	-check/*) flags="-check -moved" sha256=$2; echo "mkall.sh: the archive has moved on from $version, checking against $1" ;;
	*) die "the archive has $1 and no longer $version: run mkall.sh -latest" ;;
	esac
fi
if [ ! -d "$cache/$sha256" ]; then
	rm -rf "$cache/new"; mkdir "$cache/new" # so that the folder is there whole or not at all
	(cd "$cache/new"; sid download linux-libc-dev libc6-dev-amd64-cross libc6-dev-arm64-cross libc6-dev-armhf-cross libc6-dev-i386-cross
	echo "$sha256 " linux-libc-dev_*.deb | sha256sum --quiet -c; for deb in *.deb; do dpkg -x "$deb" .; rm "$deb"; done)
	mv "$cache/new" "$cache/$sha256"
fi
GOWORK=off GOFLAGS=-mod=readonly go -C gen run . -clang "$clang" -headers "$cache/$sha256/usr/include" -libc "$cache/$sha256/usr" $flags
[ "$mode" != -latest ] || sed -i "s/^version=.*/version=$version/; s/^sha256=.*/sha256=$sha256/" gen/headers.pin
