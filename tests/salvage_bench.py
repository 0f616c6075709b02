"""Salvage beside the shell's own .recover: rows back after each damage, and time and memory on a store of about 500 MB.

The peer is compiled here, from the newest SQLite that this project links (the C source of the libsqlite3-sys package) and
the newest shell found in a package of the registry (libsql-ffi carries one); Debian's own shell cannot run .recover.
Both programs run in the same run on the same files. CPU time is the figure to look at on a shared machine.
"""

import glob
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "target/release/pyvorin-recovery"
CACHE = ROOT / "target/peer"
ROWS = int(os.environ.get("SALVAGE_ROWS", "3600000"))
SCHEMA = """
CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,
  value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);
CREATE INDEX idx_time ON readings(timestamp);
"""


def peer():
    """Path of a shell whose .recover works."""
    CACHE.mkdir(parents=True, exist_ok=True)
    shell = CACHE / "sqlite3"
    if shell.exists():
        return shell
    (CACHE / "Cargo.toml").write_text(
        '[package]\nname = "peer"\nversion = "0.0.0"\nedition = "2021"\n[lib]\npath = "peer.rs"\n[workspace]\n'
        '[dependencies]\nlibsql-ffi = "=0.10.0"\n')
    (CACHE / "peer.rs").touch()
    subprocess.run(["cargo", "fetch", "-q"], cwd=CACHE, check=True)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    found = sorted(glob.glob(f"{home}/registry/src/*/libsql-ffi-0.10.0/bundled/SQLite3MultipleCiphers/src/shell.c"))
    library = sorted(glob.glob(f"{home}/registry/src/*/libsqlite3-sys-*/sqlite3"))
    shutil.copy(found[-1], CACHE / "shell.c")
    (CACHE / "stub.c").write_text('const char *sqlite3mc_version(void) { return ""; }\n')
    subprocess.run(
        ["cc", "-O2", "-w", f"-I{library[-1]}", "-DSQLITE_ENABLE_DBPAGE_VTAB", "-DSQLITE_THREADSAFE=0",
         "-DSQLITE_OMIT_LOAD_EXTENSION", "shell.c", f"{library[-1]}/sqlite3.c", "stub.c", "-o", "sqlite3", "-lm"],
        cwd=CACHE, check=True)
    return shell


def measured(argv):
    """Runs a command line: (wall, CPU, largest RSS in MiB)."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        os.execvp(argv[0], argv)
    _, _, used = os.wait4(pid, 0)
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def build(path, rows):
    noise = random.Random(1)
    store = sqlite3.connect(path, isolation_level=None)
    store.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)
    store.execute("BEGIN")
    store.executemany(
        "INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES (?, ?, ?, '°C', ?)",
        ((f"temp.warehouse.{n % 7}", 1717000000.0 + n + noise.random(), noise.uniform(-20, 40),
          '{"seq": %d, "quality": 0.%03d, "src": "modbus"}' % (n, noise.randrange(1000))) for n in range(rows)))
    store.execute("COMMIT")
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


def rows_in(path):
    try:
        store = sqlite3.connect(path)
        return set(store.execute("SELECT id, sensor_name, timestamp, value, unit, metadata FROM readings"))
    except sqlite3.Error:
        return set()


def damages(path, seed):
    data = Path(path).read_bytes()
    pages = len(data) // 4096
    noise = random.Random(seed)
    for percent in (1, 5, 20):
        for how in ("zeroed", "random"):
            bad = bytearray(data)
            for page in noise.sample(range(1, pages), pages * percent // 100):
                bad[page * 4096:page * 4096 + 4096] = bytes(4096) if how == "zeroed" else noise.randbytes(4096)
            yield f"{percent} % of pages {how}", bytes(bad)
    bad = bytearray(data)
    for page in range(1, pages):
        if bad[page * 4096] == 5:
            bad[page * 4096:page * 4096 + 4096] = bytes(4096)
    yield "inner table pages zeroed", bytes(bad)
    yield "page 1 zeroed", bytes(4096) + data[4096:]
    yield "page 1 random", noise.randbytes(4096) + data[4096:]
    yield "header random", noise.randbytes(100) + data[100:]
    yield "first 512 B random", noise.randbytes(512) + data[512:]
    yield "file cut in half", data[:len(data) // 2]


def main():
    shell = peer()
    version = subprocess.run([shell, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"peer: .recover of a shell with the library {version} (its recover code is the 3.47.0 shell's)")
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as scratch:
        small = f"{scratch}/small.db"
        build(small, 100_000)
        truth = rows_in(small)
        schema = f"{scratch}/schema.sql"
        Path(schema).write_text(SCHEMA)
        print(f"{'damage (100 000 rows)':<28} {'ours exact':>10} {'not true':>9} {'.recover exact':>15} {'not true':>9}")
        for name, data in damages(small, 7):
            bad, ours, theirs = f"{scratch}/bad.db", f"{scratch}/ours.db", f"{scratch}/theirs.db"
            Path(bad).write_bytes(data)
            for old in glob.glob(f"{ours}*") + glob.glob(f"{theirs}*"):
                os.remove(old)
            subprocess.run([OURS, "-q", "salvage", "--schema", schema, bad, ours], capture_output=True)
            subprocess.run(f"'{shell}' '{bad}' .recover | '{shell}' '{theirs}'", shell=True, capture_output=True)
            mine, other = rows_in(ours), rows_in(theirs)
            print(f"{name:<28} {len(mine & truth):>10} {len(mine - truth):>9} {len(other & truth):>15} "
                  f"{len(other - truth):>9}")
        large, out = f"{scratch}/large.db", f"{scratch}/out.db"
        build(large, ROWS)
        size = os.path.getsize(large) / 1e6
        wall, cpu, rss = measured([str(OURS), "-q", "salvage", large, out])
        os.remove(out)
        p_wall, p_cpu, p_rss = measured(["sh", "-c", f"'{shell}' '{large}' .recover | '{shell}' '{out}'"])
        print(f"salvage of {size:.0f} MB, {ROWS} rows, two indexes, a full check of the result included: "
              f"{wall:.1f} s, {cpu:.1f} s CPU, {rss:.0f} MiB")
        print(f".recover into a new database (both processes, nothing checked): {p_wall:.1f} s, {p_cpu:.1f} s CPU, "
              f"{p_rss:.0f} MiB")
        print(f"ratio of CPU {cpu / p_cpu:.2f} (goal 0.20), memory {rss:.0f} MiB (goal 64)")


if __name__ == "__main__":
    sys.exit(main())
