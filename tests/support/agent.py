"""A model of the agent for tests: its audit chain and its queue, as far as they are documented, and every form that the
documentation leaves open. Python's own json and hashlib are the oracle for what is hashed.

    agent.py records SEED COUNT                     random records with their hash in each of the 16 dialects
    agent.py write DB SEED COUNT DIALECT GENESIS    appends COUNT records to the chain in DB
    agent.py verify DB DIALECT                      verifies the chain: "ok COUNT HASH" or "broken ID"
    agent.py queue DB SEED COUNT                    enqueues COUNT items and nacks some of them
"""
import hashlib
import json
import random
import sqlite3
import struct
import sys

GENESIS = {"zeros": "0" * 64, "empty": "", "null": None, "word": "GENESIS"}
WORDS = ["", "a", "temp.warehouse.a", "café °C 😀", "\x7f", "\x00\x01\x1f", "\u2028\u2029", "\"\\/\b\f\n\r\t",
         "\ud800", "\udfff\ud800", "x\ud83d", "\uffff", "\U0010ffff", "ключ", "鍵", "é", "e\u0301", "~", " "]


def dumps(value, dialect):
    separators = (", ", ": ") if dialect & 2 else (",", ":")
    return json.dumps(value, sort_keys=not dialect & 1, separators=separators, ensure_ascii=not dialect & 4)


def record_hash(action, stored, timestamp, prev, dialect):
    details = stored if dialect & 8 else json.loads(stored)
    value = {"action": action, "details": details, "timestamp": timestamp, "prev_hash": prev}
    return hashlib.sha256(dumps(value, dialect).encode("utf-8")).hexdigest()


def random_float(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice([0.0, -0.0, 1e15, 1e16, 1e17, 9999999999999998.0, 0.0001, 0.00009999, 1e-5, 5e-324, 2.2250738585072014e-308,
                           1.7976931348623157e308, 0.1, 1 / 3, 123456789012345680.0, float("nan"), float("inf"), float("-inf")])
    if kind == 1:
        return struct.unpack("<d", rng.randbytes(8))[0]
    if kind == 2:
        return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-8, 19)
    if kind == 3:
        return float(rng.randrange(-10**17, 10**17))
    if kind == 4:
        return 10.0 ** rng.randrange(-20, 25)
    if kind == 5:
        return round(rng.uniform(0, 2e9), rng.randrange(0, 7))
    if kind == 6:
        return float(2 ** rng.randrange(-60, 70)) + rng.choice([0, 1, -1])
    return rng.uniform(1.6e9, 1.9e9)


def random_text(rng):
    if rng.randrange(4) == 0:
        return "".join(chr(rng.choice([rng.randrange(0x20, 0x7f), rng.randrange(0x250), rng.randrange(0x11_0000)])) for _ in range(rng.randrange(8)))
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 4)))


def random_value(rng, depth):
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randrange(-10, 10**rng.choice([1, 3, 9]))
    if kind == 2:
        return rng.choice([-1, 1]) * rng.randrange(10**rng.choice([15, 18, 19, 20, 40, 200]))
    if kind in (3, 4):
        return random_float(rng)
    if kind in (5, 6):
        return random_text(rng)
    if kind == 7:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return random_object(rng, depth + 1)


def random_object(rng, depth=0):
    keys = [random_text(rng) if rng.randrange(8) else rng.randrange(-5, 120) for _ in range(rng.randrange(5))]
    return {key: random_value(rng, depth) for key in keys}


def random_stored(rng, raw=True):
    """The text in the column: Python's default, or any other form that json.dumps can give."""
    value = random_object(rng)
    form = rng.randrange(8) & (7 if raw else 3)
    if form & 1:
        form &= ~1 if len({type(k) for k in value}) > 1 else -1
    try:
        text = dumps(value, form ^ 3)
        text.encode("utf-8")
    except (UnicodeEncodeError, TypeError):  # a lone surrogate cannot be stored raw; mixed keys cannot be sorted
        text = json.dumps(value)
    return text


def records(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        stored = random_stored(rng)
        action = random_text(rng).encode("utf-8", "replace").decode("utf-8")
        timestamp = rng.choice([random_float(rng), rng.uniform(1.6e9, 1.9e9), rng.randrange(2**31)])
        prev = rng.choice([None, "", "0" * 64, "GENESIS", hashlib.sha256(rng.randbytes(8)).hexdigest()])
        hashes = []
        for dialect in range(16):
            try:
                hashes.append(record_hash(action, stored, timestamp, prev, dialect))
            except UnicodeEncodeError:
                hashes.append(None)
        bits = ["f", str(struct.unpack("<Q", struct.pack("<d", timestamp))[0])] if isinstance(timestamp, float) else ["i", str(timestamp)]
        print(json.dumps({"stored": stored, "action": action, "timestamp": bits, "prev": prev, "hashes": hashes}))


class PrivacyAudit:
    def __init__(self, db_path, dialect, genesis="zeros"):
        self.db = sqlite3.connect(db_path, isolation_level=None)
        self.dialect, self.genesis = dialect, GENESIS[genesis]
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS privacy_audit (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp REAL NOT NULL, "
                        "action TEXT NOT NULL, details TEXT, prev_hash TEXT, record_hash TEXT NOT NULL)")

    def append(self, action, stored, timestamp):
        last = self.db.execute("SELECT record_hash FROM privacy_audit ORDER BY id DESC LIMIT 1").fetchone()
        prev = last[0] if last else self.genesis
        value = record_hash(action, stored, timestamp, prev, self.dialect)
        self.db.execute("INSERT INTO privacy_audit (timestamp, action, details, prev_hash, record_hash) VALUES (?, ?, ?, ?, ?)",
                        (timestamp, action, stored, prev, value))

    def verify(self):
        prev, count = None, 0
        for id, timestamp, action, stored, prev_hash, value in self.db.execute(
                "SELECT id, timestamp, action, details, prev_hash, record_hash FROM privacy_audit ORDER BY id"):
            if count and prev_hash != prev or value != record_hash(action, stored, timestamp, prev_hash, self.dialect):
                return f"broken {id}"
            prev, count = value, count + 1
        return f"ok {count} {prev}"


def write(path, seed, count, dialect, genesis):
    rng = random.Random(seed)
    audit = PrivacyAudit(path, dialect, genesis)
    actions = ["policy_reloaded", "field_redacted", "batch_signed", "sensor_batch_processed"]
    audit.db.execute("BEGIN")
    for n in range(count):
        while True:
            stored = random_stored(rng, raw=bool(dialect & 4)) if rng.randrange(3) else json.dumps({"n": n, "note": "café"})
            timestamp = 1.7e9 + n if rng.randrange(4) == 0 else 1.7e9 + n + rng.random()
            try:
                audit.append(rng.choice(actions), stored, timestamp)
                break
            except UnicodeEncodeError:
                continue
    audit.db.execute("COMMIT")
    audit.db.close()


def queue(path, seed, count):
    rng = random.Random(seed)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE IF NOT EXISTS sync_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL, priority INTEGER NOT NULL, "
               "created_at REAL NOT NULL, ttl_seconds INTEGER NOT NULL, retry_count INTEGER NOT NULL DEFAULT 0, next_retry_at REAL NOT NULL DEFAULT 0)")
    db.execute("CREATE INDEX IF NOT EXISTS idx_sync_queue_priority ON sync_queue(priority, next_retry_at)")
    db.execute("BEGIN")
    for n in range(count):
        payload = json.dumps({"sensor_name": "temp.a", "timestamp": 1.7e9 + n, "value": rng.random(), "unit": "°C"})
        db.execute("INSERT INTO sync_queue (payload, priority, created_at, ttl_seconds) VALUES (?, ?, ?, ?)",
                   (payload, rng.randrange(1, 5), 1.7e9 + n + rng.choice([0, rng.random()]), 86400))
        if rng.randrange(5) == 0:
            db.execute("UPDATE sync_queue SET retry_count = retry_count + 1, next_retry_at = ? WHERE id = (SELECT max(id) FROM sync_queue)",
                       (1.8e9 + rng.random(),))
    db.execute("COMMIT")
    db.close()


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "records":
        records(int(arguments[0]), int(arguments[1]))
    elif command == "write":
        write(arguments[0], int(arguments[1]), int(arguments[2]), int(arguments[3]), arguments[4])
    elif command == "verify":
        print(PrivacyAudit(arguments[0], int(arguments[1])).verify())
    elif command == "queue":
        queue(arguments[0], int(arguments[1]), int(arguments[2]))
    else:
        sys.exit(__doc__)
