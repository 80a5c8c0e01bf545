#!/usr/bin/env python3
"""Compare the machine code of two jitc caches, kernel by kernel.

    compare.py BEFORE_CACHE AFTER_CACHE [--renames FILE] [--subset] [--out FILE]

Entries are matched by family, constants and architecture, not by key: a change of sources that must not change
machine code (moved headers, renamed functions) changes every key. Of each pair the SHA-256 of every `.text.*` and
`.nv.constant*` section and the manifest's `resources` (registers, spills, stack, static shared memory) must agree.
Not compared: symbol and string tables, relocations, `.nv.info*`, the texts of assertions (`.nv.global.init`,
`.rodata`), which hold the names of functions and files, and tables of nothing but addresses that the loader fills in
(`.nv.constant4`: one for each `constexpr` at namespace scope of the headers, read or not; code that reads one names
its place in the table, so it would differ).

`--renames FILE`: JSON that says what BEFORE's names are called in AFTER. All of it is optional:

    {"families":  {"old": "new"},
     "entries":   {"old": "new"},
     "constants": {"old": "new"},
     "values":    {"constant, old name": {"old value": "new value"}},
     "added":     {"family, old name": {"constant": "value that its entries have now"}}}

`--subset`: AFTER may have fewer entries than BEFORE; without it every entry needs its partner in both.
`--out FILE`: digests of every pair, and what differs, as JSON.

Exit status: 0 if all agree, 1 on any difference, 2 if a cache or an entry could not be read.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys

COMPARED = (".text.", ".nv.constant")
SHT_NOBITS = 8
RELOCATIONS = {".rel": 16, ".rela": 24}  # sections of relocations, and the bytes of one
ADDRESS_BYTES = 8


class Unreadable(Exception):
    """A file that is not what it should be."""


def sections(cubin):
    """Names and bytes of a 64-bit little-endian ELF file's sections."""
    if cubin[:6] != b"\x7fELF\x02\x01":
        raise Unreadable("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    for name, kind, _flags, _address, offset, length in headers:
        start = names + name
        text = cubin[start : cubin.index(b"\0", start)].decode()
        yield text, b"" if kind == SHT_NOBITS else cubin[offset : offset + length]


def compared_sections(cubin):
    """Sections that are compared, by name."""
    found = dict(sections(cubin))
    for name, data in found.items():
        if not name.startswith(COMPARED):
            continue
        places = set()
        for prefix, size in RELOCATIONS.items():
            table = found.get(prefix + name, b"")
            places |= {struct.unpack_from("<Q", table, at)[0] for at in range(0, len(table), size)}
        addresses_only = bool(data) and places == set(range(0, len(data), ADDRESS_BYTES)) and not any(data)
        if not addresses_only:
            yield name, data


def rename_section(name, entries):
    """A section's name with the entry point in it renamed: `.text.old` -> `.text.new`."""
    for old, new in entries.items():
        if name.endswith("." + old):
            return name[: -len(old)] + new
    return name


def as_text(value):
    """A constant as its flag spells it, so that 4 and "4", true and "true" are alike."""
    return value if isinstance(value, str) else json.dumps(value)


def read_files(path):
    """Manifest and machine code of an entry, of this format or the one before."""
    if path.name == "manifest.json":
        return json.loads(path.read_text()), (path.parent / "kernel.cubin").read_bytes()
    data = path.read_bytes()
    if data[:8] != b"JITCENTR" or struct.unpack_from("<I", data, 8) != (2,):
        raise Unreadable(f"{path}: not an entry of format 2")
    manifest, _, at, code = struct.unpack_from("<QQQQ", data, 48)
    return json.loads(data[160 : 160 + manifest]), data[at : at + code]


def read_entry(path, renames):
    """One entry: what identifies it, and what is compared."""
    manifest, cubin = read_files(path)
    entries = renames.get("entries", {})
    constants = {}
    for name, value in manifest["constants"].items():
        text = as_text(value)
        text = renames.get("values", {}).get(name, {}).get(text, text)
        constants[renames.get("constants", {}).get(name, name)] = text
    for name, value in renames.get("added", {}).get(manifest["family"], {}).items():
        constants.setdefault(name, as_text(value))
    family = renames.get("families", {}).get(manifest["family"], manifest["family"])
    digests = {
        rename_section(name, entries): hashlib.sha256(data).hexdigest() for name, data in compared_sections(cubin)
    }
    resources = {
        entries.get(resource["entry"], resource["entry"]): {k: v for k, v in resource.items() if k != "entry"}
        for resource in manifest["resources"]
    }
    toolchain = manifest["toolchain"]["version"]
    identity = (family, tuple(sorted(constants.items())), manifest["arch"])
    return identity, {"sections": digests, "resources": resources, "toolchain": toolchain}


def read_cache(root, renames):
    """All entries of a cache by their identity."""
    found = {}
    paths = [*pathlib.Path(root).glob("v1/*/*/manifest.json"), *pathlib.Path(root).glob("v2/??/*.jitc")]
    for path in sorted(paths):
        try:
            identity, entry = read_entry(path, renames)
        except (OSError, ValueError, KeyError, struct.error, Unreadable) as error:
            raise Unreadable(f"{path}: {error}") from error
        if identity in found and found[identity] != entry:
            raise Unreadable(f"{path}: a second entry of {describe(identity)}, with other machine code")
        found[identity] = entry
    if not found:
        raise Unreadable(f"{root}: no entries")
    return found


def describe(identity):
    family, constants, arch = identity
    return f"{family} {arch} " + " ".join(f"{name}={value}" for name, value in constants)


def differences(before, after):
    """What differs between two entries: one line each."""
    lines = []
    for part in ("toolchain", "sections", "resources"):
        one, other = before[part], after[part]
        if part == "toolchain":
            if one != other:
                lines.append(f"toolchain: {one}, then {other}: nothing can be said of the code")
            continue
        for name in sorted(one.keys() | other.keys()):
            if name not in one:
                lines.append(f"{part}: {name}: only in AFTER")
            elif name not in other:
                lines.append(f"{part}: {name}: only in BEFORE")
            elif one[name] != other[name]:
                lines.append(f"{part}: {name}: {one[name]}, then {other[name]}")
    return lines


def main():
    parser = argparse.ArgumentParser(description="Compare the machine code of two jitc caches.")
    parser.add_argument("before", metavar="BEFORE_CACHE")
    parser.add_argument("after", metavar="AFTER_CACHE")
    parser.add_argument("--renames", metavar="FILE", help="JSON: what names of BEFORE are called in AFTER")
    parser.add_argument("--subset", action="store_true", help="AFTER may have fewer entries than BEFORE")
    parser.add_argument("--out", metavar="FILE", help="write digests and differences as JSON")
    args = parser.parse_args()
    try:
        renames = json.loads(pathlib.Path(args.renames).read_text()) if args.renames else {}
        before, after = read_cache(args.before, renames), read_cache(args.after, {})
    except (OSError, ValueError, Unreadable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    found, pairs, compared = [], [], 0
    for identity in sorted(before.keys() & after.keys()):
        lines = differences(before[identity], after[identity])
        compared += len(before[identity]["sections"])
        family, constants, arch = identity
        pairs.append({"family": family, "arch": arch, "constants": dict(constants), **after[identity]})
        found += [f"{describe(identity)}: {line}" for line in lines]
    only_before = sorted(before.keys() - after.keys())
    only_after = sorted(after.keys() - before.keys())
    if not args.subset:
        found += [f"{describe(identity)}: only in BEFORE" for identity in only_before]
    found += [f"{describe(identity)}: only in AFTER" for identity in only_after]

    for line in found:
        print(line)
    print(
        f"{len(pairs)} kernels compared, {compared} sections; {len(only_before)} only in BEFORE, "
        f"{len(only_after)} only in AFTER; {len(found)} differences"
    )
    if args.out:
        summary = {
            "compared": len(pairs),
            "sections": compared,
            "only_before": len(only_before),
            "only_after": len(only_after),
            "differences": found,
            "kernels": pairs,
        }
        pathlib.Path(args.out).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    # Nothing compared is no proof of anything.
    return 1 if found or not pairs else 0


if __name__ == "__main__":
    sys.exit(main())
