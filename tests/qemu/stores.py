"""Databases in the state in which a killed writer leaves them, and what then happens to them.

The schema is the ASSUMED fixture of the facts sheet (section 3); the agent's real one is not documented.
Everything random comes from a seed that is printed with the case.
"""

import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

STORE = "edge_store.db"
SCHEMA = """
CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,
  value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);
"""
HEADER = 32
PAGE = 4096
FRAME = 24 + PAGE


def insert(store, count, noise, metadata="{}"):
    """Each row in a transaction of its own, as store_reading() does it."""
    for n in range(count):
        store.execute(
            "INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES (?, ?, ?, ?, ?)",
            (f"temp.warehouse.{n % 7}", 1717000000.0 + n, noise.uniform(-20, 40), "°C", metadata))


def killed_writer(directory, rows=1000, folded=0, seed=1):
    """A store whose last `rows` commits live only in its WAL: the files are taken while the writer has them open.

    `folded` rows come first and are checkpointed into the database file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed)
    with tempfile.TemporaryDirectory() as live:
        store = sqlite3.connect(Path(live) / STORE, isolation_level=None)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=OFF")
        store.execute("PRAGMA wal_autocheckpoint=0")
        store.executescript(SCHEMA)
        if folded:
            insert(store, folded, noise)
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        insert(store, rows, noise)
        for suffix in ("", "-wal", "-shm"):
            shutil.copyfile(Path(live) / (STORE + suffix), directory / (STORE + suffix))
        store.close()
    return directory


def closed_writer(directory, rows=1000, seed=1):
    """A store that was closed in good order: no WAL is left."""
    directory.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(directory / STORE, isolation_level=None)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("PRAGMA synchronous=OFF")
    store.executescript(SCHEMA)
    insert(store, rows, random.Random(seed))
    store.close()
    return directory


def large(directory, mib, wal_mib, seed=1):
    """A store of about `mib` MiB with `wal_mib` MiB of commits waiting in its WAL, as a killed writer leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed)
    filler = "x" * 900
    with tempfile.TemporaryDirectory(dir=directory.parent) as live:
        store = sqlite3.connect(Path(live) / STORE, isolation_level=None)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=OFF")
        store.executescript(SCHEMA)
        store.execute("BEGIN")
        store.executemany(
            "INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES (?, ?, ?, '°C', ?)",
            ((f"temp.warehouse.{n % 7}", 1717000000.0 + n, noise.random(), filler) for n in range(mib * 970)))
        store.execute("COMMIT")
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.execute("PRAGMA wal_autocheckpoint=0")
        while not frames(Path(live)) * FRAME >= wal_mib << 20:
            insert(store, 20, noise)
        for suffix in ("", "-wal", "-shm"):
            shutil.copyfile(Path(live) / (STORE + suffix), directory / (STORE + suffix))
        store.close()
    return directory


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def ruin_head(directory, seed, length=512):
    """The seed drill: the first bytes of the WAL become random."""
    overwrite(directory / (STORE + "-wal"), 0, random.Random(seed).randbytes(length))


def ruin_frame(directory, number, seed):
    """Random bytes in the page image of one frame (counted from 0)."""
    offset = HEADER + number * FRAME + 24 + 100
    overwrite(directory / (STORE + "-wal"), offset, random.Random(seed).randbytes(200))


def frames(directory):
    return ((directory / (STORE + "-wal")).stat().st_size - HEADER) // FRAME


def tear_tail(directory):
    """Half of the last frame never reached the disk: the last commit was never complete."""
    wal = directory / (STORE + "-wal")
    size = HEADER + (frames(directory) - 1) * FRAME + FRAME // 2
    with open(wal, "r+b") as file:
        file.truncate(size)


def what_sqlite_keeps(directory):
    """Opens a COPY with SQLite, as the agent would, and runs the seed script's check: (rows, verdict, error)."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(directory, copy)
        store = sqlite3.connect(copy / STORE)
        try:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            verdict = store.execute("PRAGMA integrity_check").fetchone()[0]
            try:
                rows = store.execute("SELECT count(*) FROM readings").fetchone()[0]
            except sqlite3.DatabaseError as error:
                return 0, verdict, str(error)
            return rows, verdict, None
        except sqlite3.DatabaseError as error:
            return 0, str(error), str(error)
        finally:
            store.close()
