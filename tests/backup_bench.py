#!/usr/bin/env python3
"""Backup, increment and restore of a store of about 500 MB, beside the documented script's pipeline (tar, gzip, gpg), borg and
restic in the same run: processor time, memory, bytes. Ratios are what counts; the machine is named with them.

usage: python3 tests/backup_bench.py [ROWS]     (Debian: gnupg borgbackup restic age)
"""
import json
import os
import pathlib
import platform
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BINARY = TOP / "target/x86_64-unknown-linux-musl/release/pyvorin-recovery"


def measured(name, *argv, env=None, cwd=None, ok=(0,), shell=False):
    """Runs a program: CPU seconds, wall seconds, peak MiB (of the shell where there is one), what it printed."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(argv[0] if shell else argv, stdout=out, stderr=err, env=env, cwd=cwd, shell=shell)
        peak, done = 0, 0
        while not done:
            # Of the program alone: what rusage calls the peak counts this interpreter too, from before the exec.
            try:
                status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
                peak = max([peak] + [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")])
            except OSError:
                pass
            done, status, used = os.wait4(child.pid, os.WNOHANG)
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode(errors="replace")
        if child.returncode not in ok:
            sys.exit(f"{name}: exit {child.returncode}: {err.read().decode(errors='replace')[-2000:]}")
    result = {"cpu": used.ru_utime + used.ru_stime, "wall": time.monotonic() - begun, "rss": peak / 1024, "out": text}
    print(f"  {name:<44} {result['cpu']:7.2f} CPU s  {result['wall']:7.2f} s  {result['rss']:6.1f} MiB", flush=True)
    return result


def fill(conn, first, count):
    rng = random.Random(first)
    sensors = [f"warehouse.{n}.temp" for n in range(20)]
    rows = (
        (sensors[n % 20], 1.7e9 + n * 0.25, 20 + rng.gauss(0, 3), "°C", json.dumps({"q": rng.randrange(100), "seq": n}))
        for n in range(first, first + count)
    )
    conn.executemany("INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES (?, ?, ?, ?, ?)", rows)
    conn.commit()


def tree(path):
    return sum(f.stat().st_size for f in pathlib.Path(path).rglob("*") if f.is_file())


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 3_900_000
    missing = [p for p in ("gpg", "borg", "restic", "age-keygen", "tar", "gzip") if not shutil.which(p)]
    if missing or not BINARY.exists():
        sys.exit(f"missing: {' '.join(missing) or BINARY}; next: make build, apt-get install gnupg borgbackup restic age")
    with tempfile.TemporaryDirectory(prefix="backup-bench", dir=os.environ.get("BENCH_DIR", "/var/tmp")) as name:
        bench(pathlib.Path(name), rows)


def bench(top, rows):
    root = top / "root"
    data = root / "var/lib/pyvorin"
    for path in (data, root / "var/lib/pyvorin-recovery"):
        path.mkdir(parents=True)
    keys = []
    for who in ("operations", "escrow"):
        made = subprocess.run(["age-keygen", "-o", top / who], capture_output=True, text=True, check=True)
        keys.append(made.stderr.split()[-1])
    config = top / "recovery.toml"
    config.write_text('[device]\nid = "GW-042"\n[state]\ndir = "/var/lib/pyvorin-recovery"\n'
                      '[[database]]\nname = "edge_store"\nkind = "store"\npath = "/var/lib/pyvorin/edge_store.db"\n'
                      f'[backup]\nrecipients = ["{keys[0]}", "{keys[1]}"]\n')
    store = data / "edge_store.db"
    conn = sqlite3.connect(store)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL, "
                 "value REAL NOT NULL, unit TEXT, metadata TEXT)")
    fill(conn, 0, rows)
    conn.execute("CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp)")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    size = store.stat().st_size
    print(f"{platform.machine()}, {os.cpu_count()} processors; {rows} rows, {size / 1e6:.0f} MB, one index; {time.strftime('%Y-%m-%d')}")
    ours = [BINARY, "--config", config, "--root", root, "--json"]
    subprocess.run([*ours, "key", "init"], check=True, capture_output=True)

    print("first backup")
    mine = measured("ours, with its proof", *ours, "backup", "create", "--full")
    told = json.loads(mine["out"])
    print(f"    of it the proof {told['proof_cpu_ms'] / 1000:.2f} CPU s, everything else {told['cpu_ms'] / 1000:.2f} CPU s")
    gnupg = dict(os.environ, GNUPGHOME=str(top / "gnupg"))
    (top / "gnupg").mkdir(mode=0o700)
    subprocess.run(["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "ops@example", "rsa3072", "encr", "never"],
                   env=gnupg, check=True, capture_output=True)
    work = top / "seed"
    work.mkdir()
    seed = measured("documented script (cp, tar czf, gpg)", f"cp {store} {work}/edge_store.db && tar czf - -C {work} edge_store.db | "
                    f"gpg --batch --trust-model always --encrypt --recipient ops@example --output {top}/seed.gpg", env=gnupg, shell=True)
    borg_env = dict(os.environ, BORG_PASSPHRASE="x", BORG_BASE_DIR=str(top / "borgbase"))
    subprocess.run(["borg", "init", "-e", "repokey", top / "borg"], env=borg_env, check=True, capture_output=True)
    borg = measured("borg, zstd 3", "borg", "create", "-C", "zstd,3", f"{top}/borg::a", store, env=borg_env)
    restic_env = dict(os.environ, RESTIC_PASSWORD="x", RESTIC_REPOSITORY=str(top / "restic"), RESTIC_CACHE_DIR=str(top / "cache"))
    subprocess.run(["restic", "init"], env=restic_env, check=True, capture_output=True)
    restic = measured("restic", "restic", "backup", store, env=restic_env)
    sizes = {"ours": told["bytes"], "seed": (top / "seed.gpg").stat().st_size, "borg": tree(top / "borg"), "restic": tree(top / "restic")}
    print("  bytes: " + ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in sizes.items()))
    own = told["cpu_ms"] / 1000
    print(f"  ratio of CPU without the proof: to the script {own / seed['cpu']:.2f} (goal 0.25), to borg {own / borg['cpu']:.2f} (goal 1), "
          f"to restic {own / restic['cpu']:.2f} (goal 1); of bytes to the script {sizes['ours'] / sizes['seed']:.3f} (goal 1.02); "
          f"memory {mine['rss']:.1f} MiB (goal 16)")

    print("after 1 % more rows")
    conn = sqlite3.connect(store)
    fill(conn, rows, rows // 100)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    more = measured("ours, increment", *ours, "backup", "create")
    grew = json.loads(more["out"])
    before = {"borg": tree(top / "borg"), "restic": tree(top / "restic")}
    measured("borg", "borg", "create", "-C", "zstd,3", f"{top}/borg::b", store, env=borg_env)
    measured("restic", "restic", "backup", store, env=restic_env)
    print(f"  bytes: ours {grew['bytes'] / 1e6:.2f} MB (goal 3), borg {(tree(top / 'borg') - before['borg']) / 1e6:.1f} MB, "
          f"restic {(tree(top / 'restic') - before['restic']) / 1e6:.1f} MB; increment: {grew['base'] is not None}")

    print("restore")
    back = measured("ours, with every check and integrity_check", *ours, "--technician", "bench", "restore", "--identity", top / "operations",
                    told["archive"], ok=(0,))
    restored = work / "restored"
    restored.mkdir()
    peer = measured("documented script (gpg, tar xz, cp), no check", f"gpg --batch --decrypt {top}/seed.gpg | tar xz -C {restored} && "
                    f"cp {restored}/edge_store.db {work}/back.db && sync", env=gnupg, shell=True)
    print(f"  ratio of CPU {back['cpu'] / peer['cpu']:.2f} (goal 1)")


if __name__ == "__main__":
    main()
