//! What the child may ask of the kernel: seccomp(2) with a filter of classic BPF, written out because it has thirty
//! lines. Everything that is not named kills the process.
//!
//! Memory can be had (but not of a file, and never executable), the descriptors it was born with can be read and
//! written, and it can end. Nothing can be opened, no signal sent, no process made; abort(3) therefore ends it too, by
//! SIGSYS.

use super::confine::Access;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Offsets in `struct seccomp_data`: the number, the architecture, and the low halves of the third and fifth argument
/// (both architectures are little-endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const PROTECTION: u32 = 16 + 2 * 8;
const DESCRIPTOR: u32 = 16 + 4 * 8;

const ALWAYS: [libc::c_long; 14] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];
const WRITING: [libc::c_long; 4] = [libc::SYS_pwrite64, libc::SYS_fdatasync, libc::SYS_fsync, libc::SYS_fadvise64];

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

fn op(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The program for an architecture.
fn program(architecture: u32, access: Access) -> Vec<libc::sock_filter> {
    let kill = op(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    let allow = op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let executable = u32::try_from(libc::PROT_EXEC).unwrap_or(4);
    // Another architecture has other numbers: they are not looked at. Those of x32 are none of the ones below.
    let mut all = vec![op(LOAD, ARCH, 0, 0), op(EQUAL, architecture, 1, 0), kill, op(LOAD, NUMBER, 0, 0)];
    let more: &[libc::c_long] = if access == Access::Write { &WRITING } else { &[] };
    for call in ALWAYS.iter().chain(more) {
        all.extend([op(EQUAL, number(*call), 0, 1), allow]);
    }
    // mmap: no descriptor (-1), then as mprotect: not executable.
    all.extend([
        op(EQUAL, number(libc::SYS_mprotect), 3, 0),
        op(EQUAL, number(libc::SYS_mmap), 0, 4),
        op(LOAD, DESCRIPTOR, 0, 0),
        op(EQUAL, u32::MAX, 0, 2),
        op(LOAD, PROTECTION, 0, 0),
        op(ANY_BIT, executable, 0, 1),
        kill,
        allow,
    ]);
    all
}

/// Puts the filter on the calling thread, for good. Needs `no_new_privs`. An error says why there is none: a kernel
/// without it, or an architecture that is not described here.
pub fn install(access: Access) -> Result<(), String> {
    let architecture = ARCHITECTURE.ok_or("no system call filter for this architecture")?;
    let mut all = program(architecture, access);
    let len = u16::try_from(all.len()).map_err(|e| e.to_string())?;
    let program = libc::sock_fprog { len, filter: all.as_mut_ptr() };
    // SAFETY: the kernel copies the program, whose length and pointer are those of `all`, which outlives the call.
    #[allow(unsafe_code)]
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(format!("no system call filter: {}", std::io::Error::last_os_error())) }
}
