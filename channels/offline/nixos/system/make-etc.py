"""Makes the store folder behind /etc from a JSON manifest (first argument).

The manifest is a list of entries: `target` (relative to /etc), `text` or `source`,
`mode` ("symlink" or octal), `user`, `group`. The result holds `etc/TARGET`, a file or
a link, and, for copied files, `etc/TARGET.mode`, `.uid` and `.gid`, which
activate-etc.py reads.
"""

import glob
import json
import os
import sys


def place(path, entry):
    """Writes the text of the entry to path, or links path to its source."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        sys.exit(f"environment.etc: two entries make /etc/{entry['target']}")
    if "text" in entry:
        with open(path, "w", encoding="utf-8") as file:
            file.write(entry["text"])
    else:
        os.symlink(entry["source"], path)
    if entry["mode"] != "symlink":
        for suffix, key in (("mode", "mode"), ("uid", "user"), ("gid", "group")):
            with open(f"{path}.{suffix}", "w", encoding="utf-8") as file:
                file.write(entry[key])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        manifest = json.load(file)
    top = os.path.join(os.environ["out"], "etc")
    os.makedirs(top)
    for entry in sorted(manifest, key=lambda entry: entry["target"]):
        if any(part in ("", ".", "..") for part in entry["target"].split("/")):
            sys.exit(f"environment.etc: target {entry['target']!r} is no path relative to /etc")
        if "*" in entry.get("source", ""):
            for source in sorted(glob.glob(entry["source"])):
                target = os.path.join(entry["target"], os.path.basename(source))
                place(os.path.join(top, target), {**entry, "source": source, "target": target})
        else:
            place(os.path.join(top, entry["target"]), entry)


if __name__ == "__main__":
    main()
