# Run by U-Boot's standard boot, which sets devtype, devnum and distro_bootpart.
# Each command that fails leads to the next line; booting does not come back.
echo pyvorin: system
setenv bootargs console=ttyAMA0 panic=10 quiet
if load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} Image; then
  if load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} initramfs; then
    booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
  fi
fi

echo pyvorin: the boot partition does not start; recovery
setenv bootargs console=ttyAMA0 panic=10 pyvorin.recovery
if part number ${devtype} ${devnum} recovery pyvorin_part; then
  load ${devtype} ${devnum}:${pyvorin_part} ${kernel_addr_r} Image
  load ${devtype} ${devnum}:${pyvorin_part} ${ramdisk_addr_r} initramfs
  booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
fi
echo pyvorin: nothing starts from this device
