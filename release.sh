#!/bin/bash
# Prepares a release. It tags nothing, pushes nothing, and changes no file that git knows.
#   release.sh v1.2.3     check the tree, and put what is to be published into .release/v1.2.3
#   release.sh -n v1.2.3  leave nothing behind; what is not ready is printed, and does not end it
# Needs git, readelf, and Go with the module proxy. All programs are built twice, in different folders.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
dry=
[ "${1-}" != -n ] || { dry=1; shift; }
version=${1-}
[[ $# = 1 && $version =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] ||
	{ echo 'usage: release.sh [-n] v1.2.3' >&2; exit 2; }

# The bytes of a program depend on the toolchain and on these settings.
export GOTOOLCHAIN=go1.26.8 GOWORK=off GOFLAGS= GOEXPERIMENT= CGO_ENABLED=0 GOOS=linux
export GOAMD64=v1 GOARM64=v8.0 GOARM=6 GO386=sse2 GORISCV64=rva20u64 GOMIPS=softfloat
arches='amd64 arm64 arm 386 riscv64 mipsle'

module=$(go list -m)
repository=$PWD
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
die() { echo "release.sh: $*" >&2; exit 1; }
# unready is for what a person has to do first.
unready() { [ -n "$dry" ] || die "$*"; echo "not ready: $*"; }

echo '== the tree'
[ -z "$(git status --porcelain)" ] || unready 'the tree has changes, or files that git does not know'
for tag in "$version" "examples/$version" "sysfdvet/$version"; do
	! git rev-parse -q --verify "refs/tags/$tag" >/dev/null || unready "there is a tag $tag"
done
[ -n "$dry" ] || [ ! -e ".release/$version" ] || die ".release/$version is there already"
! grep -q '^replace' go.mod || die 'go.mod has a replace: nobody could install the command'
[ -f cmd/sysfd/sysfd.1 ] || unready 'there is no man page cmd/sysfd/sysfd.1'

echo '== the changelog'
notes=$(sed -n "/^## \[${version#v}\] - 20[0-9][0-9]-[01][0-9]-[0-3][0-9]\$/,/^## \[[0-9]\|^\[/p" CHANGELOG.md | sed '1d; /^\(## \)\?\[/d')
[[ $notes == *'- '* ]] || unready "CHANGELOG.md has no section \"## [${version#v}] - YYYY-MM-DD\" with entries"
[[ $(sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/p' CHANGELOG.md) != *$'\n- '* ]] || unready 'CHANGELOG.md has entries under [Unreleased]'

echo '== the API'
.ci/api
if last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
	[ "$(printf '%s\n' "$last" "$version" | sort -V | tail -n 1)" = "$version" ] || unready "$version is older than $last"
	# What is compatible with a version has the same first number, and before v1 the same two.
	like() { case $1 in v0.*) echo "${1%.*}" ;; *) echo "${1%%.*}" ;; esac; }
	if [ "$(like "$last")" = "$(like "$version")" ] && [ -n "$(.ci/api -incompatible)" ]; then
		unready "the API is incompatible with $last, which $version promises not to be"
	fi
fi

# build FOLDER CACHE builds all programs in a clone. The tag is set there alone, so that their build
# information has the version, as if the repository had the tag.
build() {
	local arch
	git clone -q --no-hardlinks "$repository" "$1" # hard links fail if git is used in it meanwhile
	git -C "$1" checkout -q --detach "$(git rev-parse HEAD)"
	git -C "$1" tag -f "$version" >/dev/null
	for arch in $arches; do
		(cd "$1" && GOCACHE=$2 GOARCH=$arch go build -trimpath -buildvcs=true -ldflags=-s -o "$1-programs/sysfd-$version-linux-$arch" ./cmd/sysfd)
	done
}
echo "== $arches, with $GOTOOLCHAIN"
first=$scratch/first second=$scratch/a/second/folder
build "$first" "$(go env GOCACHE)"
echo '== the same in another folder, with an empty cache'
build "$second" "$scratch/cache"
for program in "$first-programs"/*; do
	name=${program##*/}
	cmp "$program" "$second-programs/$name" || die "$name comes out otherwise when it is built again"
	[[ $(go version -m "$program") == *$'\t'mod$'\t'$module$'\t'$version$'\t'* ]] || die "$name does not know that it is $version"
	[[ $(readelf -lW "$program") != *INTERP* ]] || die "$name is not static"
done

echo '== what is installed from outside'
# With an empty module cache, and with the first clone in the place of the published repository.
outside() {
	env -u GOOS GOMODCACHE="$scratch/modules" GOBIN="$scratch/bin" GOPRIVATE="$module" GOFLAGS=-modcacherw \
		GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$first.insteadOf" GIT_CONFIG_VALUE_0="https://$module" "$@"
}
(
	cd "$first/examples"
	go mod edit -dropreplace="$module" -require="$module@$version"
	outside go mod tidy
	outside go vet ./...
	git -c user.name="$(git log -1 --format=%cn)" -c user.email="$(git log -1 --format=%ce)" commit -qam "examples: use $version of the package

For the tag examples/$version: what has a replace cannot be installed."
	git tag -f "examples/$version" >/dev/null
	git tag -f "sysfdvet/$version" "$version" >/dev/null
)
(
	cd "$scratch" # in no module
	outside go install "$module/cmd/sysfd@$version"
	[[ $("$scratch/bin/sysfd" version) =~ ^sysfd\ +"$version"$'\n' ]] || die "sysfd version does not say $version"
	outside go install "$module/examples/...@$version"
	outside go install "$module/sysfdvet/cmd/sysfdvet@$version"
)

out=$scratch/out
[ -n "$dry" ] || out=.release/$version
mkdir -p "$out"
cp "$first-programs"/* LICENSE-MIT LICENSE-APACHE "$out"
cp "$(go env GOROOT)/LICENSE" "$out/LICENSE-GO" # of what is linked in: the runtime, the standard library, golang.org/x/sys
for page in cmd/sysfd/sysfd.{1,bash}; do
	[ ! -f "$page" ] || cp "$page" "$out"
done
(cd "$out" && sha256sum -- * >"$scratch/sums" && mv "$scratch/sums" SHA256SUMS && sha256sum --quiet -c SHA256SUMS)
cat "$out/SHA256SUMS"
[ -z "$dry" ] || exit 0
printf '%s\n' "$notes" >"$out/notes.md"
git fetch -q --no-tags "$first" "+HEAD:refs/heads/examples-$version"
cat <<END
.release/$version has the files to publish, and notes.md their description. .ci/run has to pass first. Then:
	git tag -s $version && git tag -s sysfdvet/$version && git tag -s examples/$version examples-$version
	git push origin $version sysfdvet/$version examples/$version
END
