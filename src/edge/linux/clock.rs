//! Whether the wall clock can be believed.

use std::mem::MaybeUninit;

/// True when the kernel has been told the time by something that keeps it (adjtimex(2), `STA_UNSYNC` not set), as every
/// NTP client does. A gateway without a battery starts in 1970 or at the time of its last shutdown, unsynchronised.
pub fn is_set() -> bool {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeroes is a timex, whose `modes` of 0 makes this a read; the kernel writes into our structure alone.
    #[allow(unsafe_code)]
    let (code, status) = unsafe {
        let code = libc::adjtimex(state.as_mut_ptr());
        (code, state.assume_init().status)
    };
    code >= 0 && status & libc::STA_UNSYNC == 0
}
