################################################################################
#
# pyvorin-recovery
#
################################################################################

PYVORIN_RECOVERY_LICENSE = MIT or Apache-2.0, BSD-3-Clause (zstd, dalek), Unicode-3.0 (icu4x), blessing (SQLite)

ifeq ($(BR2_PACKAGE_PYVORIN_RECOVERY_PREBUILT),y)

PYVORIN_RECOVERY_VERSION = prebuilt
# No source: the binary is the input, and legal-info has nothing to save.
PYVORIN_RECOVERY_SOURCE =
PYVORIN_RECOVERY_BINARY = $(call qstrip,$(BR2_PACKAGE_PYVORIN_RECOVERY_BINARY))

ifeq ($(BR2_PACKAGE_PYVORIN_RECOVERY)$(BR_BUILDING),yy)
ifeq ($(wildcard $(PYVORIN_RECOVERY_BINARY)),)
$(error BR2_PACKAGE_PYVORIN_RECOVERY_BINARY: "$(PYVORIN_RECOVERY_BINARY)" is not there; next: make build in the source tree, and name its path)
endif
endif

else

PYVORIN_RECOVERY_VERSION = c2d5e5c528c60ae6f178e9b8fb663f28cce6ccb8
PYVORIN_RECOVERY_SITE = $(call qstrip,$(BR2_PACKAGE_PYVORIN_RECOVERY_GIT))
PYVORIN_RECOVERY_SITE_METHOD = git
PYVORIN_RECOVERY_LICENSE_FILES = LICENSE LICENSE-APACHE LICENSE-MIT
# In an initramfs it is alone: no loader, no C library.
PYVORIN_RECOVERY_CARGO_ENV = RUSTFLAGS="-C target-feature=+crt-static"
PYVORIN_RECOVERY_BINARY = $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/pyvorin-recovery

endif

define PYVORIN_RECOVERY_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(PYVORIN_RECOVERY_BINARY) \
		$(TARGET_DIR)/usr/sbin/pyvorin-recovery
endef

PYVORIN_RECOVERY_CONFIG = $(call qstrip,$(BR2_PACKAGE_PYVORIN_RECOVERY_CONFIG))

define PYVORIN_RECOVERY_INSTALL_CONFIG
	@if grep -q '^# pyvorin: unedited' $(PYVORIN_RECOVERY_CONFIG); then \
		echo "pyvorin-recovery: WARNING: $(PYVORIN_RECOVERY_CONFIG) is the example; next: set BR2_PACKAGE_PYVORIN_RECOVERY_CONFIG to your own" >&2; \
	fi
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_CONFIG) \
		$(TARGET_DIR)/etc/pyvorin/recovery.toml
endef
PYVORIN_RECOVERY_POST_INSTALL_TARGET_HOOKS += PYVORIN_RECOVERY_INSTALL_CONFIG

ifeq ($(BR2_PACKAGE_PYVORIN_RECOVERY_INIT),y)
define PYVORIN_RECOVERY_LINK_INIT
	ln -sf usr/sbin/pyvorin-recovery $(TARGET_DIR)/init
endef
PYVORIN_RECOVERY_POST_INSTALL_TARGET_HOOKS += PYVORIN_RECOVERY_LINK_INIT
endif

ifeq ($(BR2_PACKAGE_PYVORIN_RECOVERY_MONITORING),y)
PYVORIN_RECOVERY_MONITORING = $(BR2_EXTERNAL_PYVORIN_PATH)/../meta-pyvorin/files/monitoring
define PYVORIN_RECOVERY_INSTALL_MONITORING
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_MONITORING)/alerts.yml \
		$(TARGET_DIR)/usr/share/pyvorin-recovery/monitoring/alerts.yml
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_MONITORING)/dashboard.json \
		$(TARGET_DIR)/usr/share/pyvorin-recovery/monitoring/dashboard.json
endef
PYVORIN_RECOVERY_POST_INSTALL_TARGET_HOOKS += PYVORIN_RECOVERY_INSTALL_MONITORING
endif

# systemd.mount(5): a mount unit is named after its path, a dash is \x2d.
define PYVORIN_RECOVERY_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-audit.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-audit.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-backup.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-backup.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-backup.timer \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-backup.timer
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-keys.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-keys.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-metrics.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-metrics.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-metrics.timer \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-metrics.timer
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-prune.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-prune.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-prune.timer \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-prune.timer
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-queue.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-queue.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-queue.timer \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-queue.timer
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-mark-good.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-mark-good.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/pyvorin-recovery-status.service \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-recovery-status.service
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/data.mount \
		$(TARGET_DIR)/usr/lib/systemd/system/var-lib-pyvorin.mount
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/state.mount \
		'$(TARGET_DIR)/usr/lib/systemd/system/var-lib-pyvorin\x2drecovery.mount'
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/10-pyvorin-recovery.conf \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-edge-agent.service.d/10-pyvorin-recovery.conf
	$(INSTALL) -D -m 0644 $(PYVORIN_RECOVERY_PKGDIR)/10-pyvorin-recovery.conf \
		$(TARGET_DIR)/usr/lib/systemd/system/pyvorin-edge.service.d/10-pyvorin-recovery.conf
endef

define PYVORIN_RECOVERY_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(PYVORIN_RECOVERY_PKGDIR)/S03pyvorin-mounts \
		$(TARGET_DIR)/etc/init.d/S03pyvorin-mounts
	$(INSTALL) -D -m 0755 $(PYVORIN_RECOVERY_PKGDIR)/S98pyvorin-keys \
		$(TARGET_DIR)/etc/init.d/S98pyvorin-keys
	$(INSTALL) -D -m 0755 $(PYVORIN_RECOVERY_PKGDIR)/S99pyvorin-mark-good \
		$(TARGET_DIR)/etc/init.d/S99pyvorin-mark-good
endef

ifeq ($(BR2_PACKAGE_PYVORIN_RECOVERY_PREBUILT),y)
$(eval $(generic-package))
else
$(eval $(cargo-package))
endif
