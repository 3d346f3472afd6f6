#!/usr/bin/env python3
"""Converts a Debian package index to JSON lines, one object for each record.

    apt-cache dumpavail | examples/apt-to-jsonl.py > packages.jsonl
    examples/apt-to-jsonl.py --limit 100 /var/lib/apt/lists/*_Packages

Every field of a record is a string, in the order of the index. The lines of a folded field
are joined by line feeds. The first field, "key", has the form Package:Architecture=Version.
The number of records with a key that occurred before is printed on standard error.

--short keeps a few fields only and renames them: key, name, version, section, size,
description. examples/sample.jsonl was made by

    apt-cache dumpavail | examples/apt-to-jsonl.py --short --every 31 --limit 2000
"""

import argparse
import json
import sys


def records(lines):
    """Yields the records of an index as dicts. Blank lines separate them."""
    record, field = {}, None
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if record:
                yield record
            record, field = {}, None
        elif line[0] in " \t":
            if field is None:
                raise ValueError(f"line {number}: a continuation line before the first field of a record")
            record[field] += "\n" + line[1:]
        else:
            field, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"line {number}: neither a field nor a continuation line")
            record[field] = value.strip()
    if record:
        yield record


def with_key(record):
    """Returns the record with its key as the first field."""
    for field in ("Package", "Architecture", "Version"):
        if not record.get(field):
            name = record.get("Package", "without a name")
            raise ValueError(f"the record {name} has no field {field}")
    key = f"{record['Package']}:{record['Architecture']}={record['Version']}"
    return {"key": key, **record}


def short(record):
    """Returns the fields of a record that --short keeps, under their new names."""
    return {
        "key": record["key"],
        "name": record["Package"],
        "version": record["Version"],
        "section": record.get("Section", ""),
        "size": int(record.get("Size", 0)),
        "description": record.get("Description", "").partition("\n")[0],
    }


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description="Converts a Debian package index to JSON lines.",
        epilog="Example: apt-cache dumpavail | examples/apt-to-jsonl.py > packages.jsonl",
    )
    parser.add_argument("file", nargs="?", help="a Packages file (default: standard input)")
    parser.add_argument("--limit", type=natural, metavar="N", help="stop after N records")
    parser.add_argument(
        "--every", type=natural, metavar="N", default=1, help="convert every Nth record only"
    )
    parser.add_argument(
        "--short", action="store_true", help="keep a few fields only, under short names"
    )
    return parser.parse_args()


def natural(text):
    """Parses a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def convert(lines, options, out):
    """Writes the selected records. Returns their number and the number of duplicate keys."""
    seen = set()
    written = duplicates = 0
    for index, record in enumerate(records(lines)):
        if index % options.every:
            continue
        record = with_key(record)
        duplicates += record["key"] in seen
        seen.add(record["key"])
        json.dump(short(record) if options.short else record, out, ensure_ascii=False)
        out.write("\n")
        written += 1
        if written == options.limit:
            break
    return written, duplicates


def main():
    """Converts one index; returns the exit status."""
    options = arguments()
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        if options.file:
            with open(options.file, encoding="utf-8", newline="\n") as lines:
                written, duplicates = convert(lines, options, sys.stdout)
        else:
            sys.stdin.reconfigure(encoding="utf-8", newline="\n")
            written, duplicates = convert(sys.stdin, options, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe, for example head, has exited. That is not an error.
        sys.stderr.close()
        return 0
    except (OSError, ValueError) as error:
        print(f"apt-to-jsonl: {error}", file=sys.stderr)
        return 1
    print(f"{written} records, {duplicates} duplicate keys", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
