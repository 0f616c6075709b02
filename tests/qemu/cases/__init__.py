"""All boot cases. A case is a function that gets a `Case` and asserts; its name is what the runner prints."""

from typing import Callable, NamedTuple


class Spec(NamedTuple):
    name: str
    arch: str
    body: Callable
    full: bool


ALL = []


def case(name, arch="arm64", full=False):
    """`full`: only where it is asked for by name, as `make test-full` does."""
    def register(body):
        ALL.append(Spec(f"{arch} {name}", arch, body, full))
        return body
    return register


def found(boot, **wanted):
    """Asserts that the OS came up and saw these values in its store; returns what it said."""
    said = boot.userland
    assert said is not None, f"no OS was reached ({boot.ended} after {boot.seconds:.1f} s)"
    for key, value in wanted.items():
        assert said.get(key) == str(value), f"{key} is {said.get(key)}, not {value}: {said}"
    return said


def whole(boot, rows=1000, **wanted):
    """The usual good end: all rows there, in a database that SQLite finds sound."""
    return found(boot, rows=rows, max_id=rows, integrity="ok", **wanted)


def database(boot, name="edge_store.db"):
    """The boot report's entry for one database."""
    entries = (boot.report or {}).get("databases", [])
    mine = [entry for entry in entries if entry.get("path", "").endswith(name)]
    assert mine, f"the report names no {name}: {boot.report}"
    return mine[0]


# Importing a file registers its cases; the order here is the order in which they start. Power cuts take longest.
from cases import power, reset, wal, filesystem, slots, stages, x86  # noqa: E402,F401
