# Everything a fresh Debian machine with git and rustup needs to be asked for. `make help` lists it.
.POSIX:
.SUFFIXES:
.PHONY: help demo test test-full test-layers bench bench-check bench-salvage bench-backup image setup build fuzz clean

help:
	@echo 'make demo    boot a gateway whose WAL was destroyed; see what SQLite keeps and what comes back'
	@echo 'make test    everything: format, lints, tests, static builds, sizes, scripts, boots in QEMU'
	@echo 'make test-layers  what checks meta-pyvorin, buildroot-ext and initramfs (part of make test)'
	@echo 'make test-full  also ten cuts of a factory reset, Debian with initramfs-tools and dracut, disks with GRUB and U-Boot, booted (as root)'
	@echo 'make bench   boot time against database size, the check, and every campaign in full (hours)'
	@echo 'make bench-check  check of a 450 MB store beside a raw read and integrity_check (part of make bench)'
	@echo 'make bench-salvage  salvage beside .recover: every damage, then a store of 500 MB'
	@echo 'make bench-backup  backup, increment and restore of a 500 MB store beside the documented script, borg and restic'
	@echo 'make image   a bootable disk image and initramfs for arm64 under target/image/'
	@echo 'make fuzz    TARGET=wal SECONDS=60: libFuzzer on one reader of outside bytes (tests/fuzz); stable Rust is enough'
	@echo 'make setup   install what is missing (as root), or say what is missing'
	@echo 'make build   the static binaries for both architectures'
	@echo 'make clean   remove what was built (.cache/, with the downloads, stays)'

setup:
	@sh tests/setup.sh
	@sh tests/qemu/fetch.sh

build: setup
	@sh tests/build.sh

demo: build
	@python3 tests/qemu/demo.py

test:
	@sh tests/all.sh

test-layers: build
	@sh tests/layers/scripts.sh
	@sh tests/layers/quick.sh

test-full: test
	@sh tests/setup.sh full
	@nice python3 tests/qemu/run.py 'factory reset'
	@nice python3 tests/layers/debian.py
	@nice python3 tests/layers/boards.py

bench: build bench-check
	@python3 tests/qemu/bench.py
	@nice cargo test --release --test queue_damage -- --ignored --nocapture
	@nice cargo test --release --test backup_command -- --ignored --nocapture
	@nice cargo test --release --test reset_kills --test reset_cuts -- --ignored --nocapture
	@nice cargo test --release --test drills -- --ignored --nocapture
	@nice cargo test --test kill_calls -- --ignored --nocapture
	@nice cargo test --release --test wal_injuries --test foreign_logs --test histories --test transfers -- --ignored --nocapture
	@nice cargo test --release --test check_injuries -- --ignored --nocapture
	@nice cargo test --release --test fat_mutations -- --ignored --nocapture
	@nice cargo test --release --test minisign -- --ignored --nocapture
	@TICKET_ROUNDS=300000 RETENTION_ROUNDS=100000 nice cargo test --release --test ticket --test retention -- --nocapture mutation histories random

bench-check:
	@nice cargo test --release --test check_bench -- --ignored --nocapture check_against

bench-salvage:
	@nice cargo test --release --test salvage_damages -- --ignored --nocapture
	@nice cargo build -q --release
	@nice python3 tests/salvage_bench.py

bench-backup: build
	@sh tests/setup.sh full
	@nice python3 tests/backup_bench.py

image: build
	@python3 tests/qemu/make_image.py target/image

fuzz:
	@sh tests/fuzz/run.sh "$(TARGET)" "$(SECONDS)"

clean:
	rm -rf target
