require ${@bb.utils.contains('DISTRO_FEATURES', 'pyvorin-recovery', 'linux-yocto-pyvorin.inc', '', d)}
