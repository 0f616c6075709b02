require ${@bb.utils.contains('DISTRO_FEATURES', 'pyvorin-recovery', 'u-boot-pyvorin.inc', '', d)}
