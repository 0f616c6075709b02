#!/usr/bin/env python3
"""Builds every test and runs the programs side by side, one for each processor: `cargo test` runs them one after the
other, and most of the long ones are one long test each. Prints what failed in full, and a line for each program."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# What takes longest begins first.
LONG = ("power_cut", "reset_cuts", "histories", "reset_kills", "drills", "kill_calls", "salvage_damages", "wal_injuries")


def built():
    """The test programs, by name."""
    done = subprocess.run(["cargo", "test", "--no-run", "--message-format=json"], cwd=TOP, text=True, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(done.returncode)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {f"{m['target']['name']} ({m['target']['kind'][0]})": m["executable"] for m in messages
            if m.get("reason") == "compiler-artifact" and m["profile"]["test"] and m["executable"]}


def run(program):
    begun = time.monotonic()
    environment = {**os.environ, "CARGO_MANIFEST_DIR": str(TOP)}
    done = subprocess.run([program], cwd=TOP, env=environment, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout, time.monotonic() - begun


def main():
    programs = built()
    if len(programs) < len(list((TOP / "tests").glob("*.rs"))):
        print(f"only {len(programs)} test programs were built", file=sys.stderr)
        return 1
    order = sorted(programs, key=lambda name: LONG.index(name.split()[0]) if name.split()[0] in LONG else len(LONG))
    failed, passed = [], 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = {pool.submit(run, programs[name]): name for name in order}
        for one in as_completed(running):
            name, (code, output, seconds) = running[one], one.result()
            results = [line for line in output.splitlines() if line.startswith("test result:")]
            passed += sum(int(line.split("ok. ")[-1].split()[0]) for line in results if "ok. " in line)
            print(f"{'FAILED' if code else 'ok':6} {seconds:6.1f} s  {name}: {' '.join(results)[:90]}", flush=True)
            if code or not results:
                failed.append(name)
                print(output, flush=True)
    print(f"tests: {len(programs)} programs, {passed} tests passed, {len(failed)} programs failed {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
