#!/usr/bin/env python3
"""Writes a newc cpio archive from a content list, the same bytes for the same inputs.

GNU cpio takes owners, dates and inode numbers from a directory tree and cannot make a device node without root;
an archive written record by record has none of these problems.

Usage: cpio.py LIST OUT NAME=FILE... MODULE_PATH=FILE...
"""

import os
import stat
import sys


class Archive:
    def __init__(self, out, date):
        self.out = out
        self.date = date
        self.inode = 0
        self.size = 0
        self.seen = set()

    def put(self, data):
        self.out.write(data)
        self.size += len(data)

    def pad(self, to=4):
        self.put(b"\0" * (-self.size % to))

    def record(self, path, mode, data=b"", major=0, minor=0):
        """One member. Owner 0:0, one link; inode numbers only have to differ."""
        self.inode += 1
        name = path.lstrip("/").encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        date = 0 if path == "TRAILER!!!" else self.date
        fields = (self.inode, mode, 0, 0, links, date, len(data), 0, 0, major, minor, len(name), 0)
        self.put(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self.pad()
        self.put(data)
        self.pad()

    def add(self, path, *rest, **more):
        if path in self.seen:
            sys.exit(f"cpio.py: {path} is listed twice")
        parent = os.path.dirname(path)
        if parent != "/" and parent not in self.seen:
            sys.exit(f"cpio.py: {path} stands before its directory {parent}: the kernel would drop it")
        self.seen.add(path)
        self.record(path, *rest, **more)

    def finish(self):
        self.inode = -1
        self.record("TRAILER!!!", 0)
        self.pad(512)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def add_modules(archive, modules):
    """The modules under one directory, and the order in which to load them."""
    for path, file in modules:
        archive.add(path, stat.S_IFREG | 0o644, read(file))
    order = "".join(path + "\n" for path, _ in modules)
    archive.add("/lib/modules/load-order", stat.S_IFREG | 0o644, order.encode())


def main(arguments):
    content, target, *rest = arguments
    inputs, modules = {}, []
    for word in rest:
        name, _, file = word.partition("=")
        if name.startswith("/"):
            modules.append((name, file))
        else:
            inputs[name] = file
    with open(content, encoding="utf-8") as lines, open(target, "wb") as out:
        archive = Archive(out, int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            match words:
                case []:
                    pass
                case ["modules"]:
                    add_modules(archive, modules)
                case ["dir", path, mode]:
                    archive.add(path, stat.S_IFDIR | int(mode, 8))
                case ["slink", path, to]:
                    archive.add(path, stat.S_IFLNK | 0o777, to.encode())
                case ["nod", path, mode, kind, major, minor]:
                    base = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
                    archive.add(path, base | int(mode, 8), major=int(major), minor=int(minor))
                case ["file", path, name, mode] if name.startswith("@"):
                    if name[1:] not in inputs:
                        sys.exit(f"cpio.py: no input {name[1:]} was given for {path}")
                    archive.add(path, stat.S_IFREG | int(mode, 8), read(inputs[name[1:]]))
                case _:
                    sys.exit(f"cpio.py: {content}:{number}: cannot read: {line.strip()}")
        archive.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
