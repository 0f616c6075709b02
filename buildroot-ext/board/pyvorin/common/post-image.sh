#!/bin/sh
# Run by Buildroot when the root file system is made: post-image.sh IMAGES_DIR BOARD. Makes the initramfs of the
# gateway out of the target's files, then the disk with its six partitions.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

fail() {
	echo "post-image: $*" >&2
	exit 1
}

[ $# -ge 2 ] || fail "called as post-image.sh IMAGES_DIR BOARD; next: set BR2_ROOTFS_POST_SCRIPT_ARGS to the board"
images=$1
board=$here/../$2
for variable in BINARIES_DIR BUILD_DIR HOST_DIR TARGET_DIR; do
	eval "value=\${$variable:-}"
	[ -n "$value" ] || fail "$variable is not set; this script is for Buildroot to call"
done
[ -r "$board/meta" ] || fail "no board is called $2; next: name one of: $(cd "$here/.." && echo */meta)"

LOADER='' TABLE='' MODULES='' KERNEL='' CMDLINE='' BOOT_SIZE='' RECOVERY_SIZE='' STATE_SIZE='' DATA_SIZE=''
# shellcheck source=/dev/null # key=value, one of the board folders
. "$board/meta"
for key in LOADER TABLE KERNEL CMDLINE BOOT_SIZE RECOVERY_SIZE STATE_SIZE DATA_SIZE; do
	eval "value=\$$key"
	[ -n "$value" ] || fail "$board/meta does not say $key"
done
for tool in genimage mcopy mkfs.vfat mke2fs cpio gzip; do
	command -v "$tool" > /dev/null 2>&1 || fail "$tool is missing; next: select its host package in the defconfig"
done
[ -e "$images/$KERNEL" ] || fail "$images/$KERNEL is missing; KERNEL in $board/meta must name what the kernel package installs"

# shellcheck disable=SC2086 # a list of module names
"$here/make-initramfs.sh" "$TARGET_DIR" "$images/initramfs.cpio.gz" $MODULES

# What the FAT partitions hold, as genimage's "file NAME { image = PATH }"; paths are below the images directory.
file() { # name in the partition, path
	printf '\\t\\tfile %s {\\n\\t\\t\\timage = "%s"\\n\\t\\t}\\n' "$1" "$2"
}

common=$(file "$KERNEL" "$KERNEL"; file initramfs initramfs.cpio.gz)
boot_mbr=''
case $LOADER in
	grub)
		boot_type=U
		sed -e "s|@KERNEL@|$KERNEL|g" -e "s|@CMDLINE@|$CMDLINE|g" "$here/grub.cfg.in" \
			> "$images/efi-part/EFI/BOOT/grub.cfg"
		boot_files=$common$(file EFI efi-part/EFI)
		recovery_files=$common
		;;
	u-boot)
		# The legacy BIOS bootable attribute of the GPT is what U-Boot's standard boot looks for.
		boot_type=F
		boot_mbr='\t\tbootable = true'
		boot_files=$common$(file boot.scr boot.scr)
		recovery_files=$common
		;;
	rpi-firmware)
		boot_type=F
		boot_mbr='\t\tpartition-type = 0xC\n\t\tbootable = true'
		firmware=''
		for path in "$images"/*.dtb "$images"/rpi-firmware/*; do
			case $path in
				*'*'* | */cmdline.txt | */config.txt) continue ;;
			esac
			firmware=$firmware$(file "${path##*/}" "${path#"$images"/}")
		done
		cp "$board/config.txt" "$images/config.txt"
		echo "$CMDLINE" > "$images/cmdline.txt"
		echo "$CMDLINE pyvorin.recovery" > "$images/cmdline-recovery.txt"
		common=$common$firmware$(file config.txt config.txt)
		boot_files=$common$(file cmdline.txt cmdline.txt)
		recovery_files=$common$(file cmdline.txt cmdline-recovery.txt)
		;;
	*)
		fail "$board/meta: LOADER is one of grub, u-boot, rpi-firmware, not $LOADER"
		;;
esac

sed -e "s|@BOOT_FILES@|$boot_files|" -e "s|@RECOVERY_FILES@|$recovery_files|" \
	-e "s|@BOOT_SIZE@|$BOOT_SIZE|" -e "s|@RECOVERY_SIZE@|$RECOVERY_SIZE|" \
	-e "s|@STATE_SIZE@|$STATE_SIZE|" -e "s|@DATA_SIZE@|$DATA_SIZE|" \
	-e "s|@TABLE@|$TABLE|" -e "s|@BOOT_TYPE@|$boot_type|" -e "s|@BOOT_MBR@|$boot_mbr|" \
	"$here/genimage.cfg.in" > "$images/genimage.cfg"

# genimage copies its root path; an empty one spares that.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
rm -rf "$BUILD_DIR/genimage.tmp"
genimage --rootpath "$empty" --tmppath "$BUILD_DIR/genimage.tmp" --inputpath "$images" --outputpath "$images" \
	--config "$images/genimage.cfg"
