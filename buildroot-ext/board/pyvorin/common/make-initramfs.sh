#!/bin/sh
# make-initramfs.sh TARGET_DIR OUTPUT [MODULE...]: the initramfs of a gateway from the files of its root:
# pyvorin-recovery as /init, e2fsck with the libraries that it asks for, recovery.toml, kernel modules with what they
# depend on. No shell. The same target gives the same bytes.
set -eu

fail() {
	echo "make-initramfs: $*" >&2
	exit 1
}

[ $# -ge 2 ] || fail 'called as make-initramfs.sh TARGET_DIR OUTPUT.cpio.gz [MODULE...]'
target=$1
output=$2
shift 2
for tool in readelf cpio gzip fakeroot; do
	command -v "$tool" > /dev/null 2>&1 || fail "$tool is missing; next: install it on the build machine"
done

find_in() { # name, directories below the target
	name=$1
	shift
	for dir; do
		if [ -e "$target/$dir/$name" ]; then
			echo "$dir/$name"
			return 0
		fi
	done
	return 1
}

program=$(find_in pyvorin-recovery usr/sbin) ||
	fail "$target/usr/sbin/pyvorin-recovery is missing; next: select BR2_PACKAGE_PYVORIN_RECOVERY"
e2fsck=$(find_in e2fsck sbin usr/sbin) ||
	fail "e2fsck is missing in $target; next: select BR2_PACKAGE_E2FSPROGS and BR2_PACKAGE_E2FSPROGS_FSCK"
[ -r "$target/etc/pyvorin/recovery.toml" ] || fail "$target/etc/pyvorin/recovery.toml is missing"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/dev" "$root/etc/pyvorin" "$root/mnt" "$root/proc" "$root/run" "$root/sbin" "$root/sys"
# A loader is asked for by its full name, which a merged /usr reaches by a link.
for link in lib lib64; do
	if [ -L "$target/$link" ]; then
		ln -s "$(readlink "$target/$link")" "$root/$link"
		mkdir -p "$root/usr/lib" "$root/usr/lib64"
	else
		mkdir -p "$root/$link"
	fi
done

# Dynamic linking: what a file NEEDs, and the loader that it names, until nothing new turns up.
with_libraries() { # path below the target
	readelf -d -l "$target/$1" 2> /dev/null | sed -n \
		-e 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' \
		-e 's|.*program interpreter: .*/\([^]]*\)\].*|\1|p' |
		while read -r library; do
			path=$(find_in "$library" lib lib64 usr/lib usr/lib64) || fail "$1 needs $library, which is not in the target"
			[ ! -e "$root/$path" ] || continue
			mkdir -p "$root/${path%/*}"
			cp -L "$target/$path" "$root/$path"
			with_libraries "$path"
		done
}

cp -L "$target/$program" "$root/init"
cp -L "$target/$e2fsck" "$root/sbin/e2fsck"
cp "$target/etc/pyvorin/recovery.toml" "$root/etc/pyvorin/recovery.toml"
ln -s /init "$root/sbin/pyvorin-recovery"
with_libraries "$program"
with_libraries "$e2fsck"

# modprobe knows what depends on what and what is built in; it prints the files in the order in which they are loaded.
if [ $# -gt 0 ]; then
	command -v modprobe > /dev/null 2>&1 || fail "modprobe is missing; next: select BR2_PACKAGE_HOST_KMOD"
	for kernel in "$target"/lib/modules/*; do
		release=${kernel##*/}
	done
	[ -r "$target/lib/modules/$release/modules.dep" ] ||
		fail "no modules in $target/lib/modules; next: leave MODULES empty where all drivers are built in"
	for module; do
		modprobe --dirname "$target" --set-version "$release" --show-depends "$module" > "$work/depends" ||
			fail "the kernel has no module $module; next: look at MODULES in the board's meta file"
		sed -n 's/^insmod //p' "$work/depends" | sed 's/ *$//' >> "$work/all"
	done
	awk '!seen[$0]++' "$work/all" > "$work/modules"
	mkdir -p "$root/lib/modules"
	while read -r file; do
		cp "$file" "$root/lib/modules/${file##*/}"
		echo "/lib/modules/${file##*/}"
	done < "$work/modules" > "$work/load-order"
	cp "$work/load-order" "$root/lib/modules/load-order"
fi

# The kernel opens the console for PID 1 before anything can mount devtmpfs, and only root may make its node.
# shellcheck disable=SC2016 # the inner shell expands it
fakeroot sh -euc '
	cd "$1"
	mknod -m 0600 dev/console c 5 1
	find . -exec touch -h -d @0 {} +
	find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0
' sh "$root" > "$work/cpio"
gzip -9n < "$work/cpio" > "$output"
