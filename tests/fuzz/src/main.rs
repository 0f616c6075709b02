//! libFuzzer's entry. `FUZZ_TARGET` names the target; with `FUZZ_SEEDS` the made inputs are written there instead.
#![no_main]

use std::sync::OnceLock;

use pyvorin_recovery_fuzz::{Target, run, seeds, target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is not a target"))
    })
}

fn begin() {
    let target = chosen();
    let Ok(dir) = std::env::var("FUZZ_SEEDS") else { return };
    for (i, seed) in seeds::seeds(target.name).iter().enumerate() {
        std::fs::write(format!("{dir}/seed-{i}"), seed).unwrap_or_else(|e| panic!("{dir}: {e}"));
    }
    println!("-max_len={}", target.max_len);
    std::process::exit(0);
}

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    run(chosen(), data);
});
