#!/usr/bin/env python3
"""Boots virtual gateways in every state that a power cut, a dying card or a bad update can leave them in.

run.py [--jobs N] [--list] [WORD...]   only the cases whose name holds one of the words; without a word all but those
that are kept for `make test-full`
"""

import argparse
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import artefacts  # noqa: E402  (the path must be set first)
import machine  # noqa: E402
from cases import ALL  # noqa: E402

SERIAL_LINES = 60


class Case:
    """What one case works with: its directory, its disk, the boots it has made."""

    def __init__(self, name, arch, directory):
        self.name = name
        self.arch = arch
        self.directory = directory
        self.disk = directory / "disk.img"
        self.layout = None
        self.boots = []
        self.notes = []
        directory.mkdir(parents=True)

    def make_disk(self, tree=None, **more):
        self.layout = artefacts.disk(self.disk, self.arch, tree, **more)

    def boot(self, *words, config=None, **more):
        result = machine.boot(
            self.arch, artefacts.kernel(self.arch),
            artefacts.initramfs(self.arch, config or artefacts.CONFIG), self.disk, words, **more)
        self.boots.append(result)
        return result

    def note(self, text):
        """A figure or a seed that belongs beside the case's line."""
        self.notes.append(text)

    def serial(self):
        """The last lines of every boot of this case."""
        out = []
        for number, boot in enumerate(self.boots, 1):
            out.append(f"--- boot {number} of {len(self.boots)}: {boot.ended} after {boot.seconds:.1f} s")
            out += [f"{at:7.2f} {line}" for at, line in boot.lines[-SERIAL_LINES:]]
        return "\n".join(out)

    def free(self):
        for file in self.directory.glob("*.img"):
            file.unlink()


def perform(spec, directory):
    case = Case(spec.name, spec.arch, directory)
    started = time.monotonic()
    problem = None
    try:
        spec.body(case)
    except AssertionError as error:
        problem = str(error) or traceback.format_exc()
    except Exception:  # a case that breaks must not take the others with it
        problem = traceback.format_exc()
    case.free()
    return case, time.monotonic() - started, problem


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--begun", type=float, help="when the whole run began (epoch), for the total")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    chosen = [spec for spec in ALL
              if (any(word in spec.name for word in asked.words) if asked.words else not spec.full)]
    if asked.list:
        print("\n".join(spec.name for spec in chosen))
        return 0
    if not chosen:
        print(f"no case is named like {' or '.join(asked.words)}; --list shows all", file=sys.stderr)
        return 2
    artefacts.fetch()
    scratch = artefacts.scratch()
    passed = failed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        running = [pool.submit(perform, spec, scratch / f"case-{n:03}") for n, spec in enumerate(chosen)]
        for future in as_completed(running):
            case, seconds, problem = future.result()
            (scratch / f"{case.name.replace('/', '-').replace(' ', '-')}.log").write_text(case.serial())
            notes = "; ".join(case.notes)
            print(f"{'FAIL' if problem else 'ok  '} {seconds:6.1f} s  {case.name}{'  [' + notes + ']' if notes else ''}",
                  flush=True)
            if problem:
                failed += 1
                print(f"{problem.rstrip()}\n{case.serial()}\n", flush=True)
            else:
                passed += 1
    artefacts.forget_old()
    if asked.begun:
        print(f"=== all: {time.time() - asked.begun:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
