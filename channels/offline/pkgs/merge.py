"""Merges package folders into $out by one link per file.

The manifest (a JSON file, first argument) holds `paths`, `pathsToLink` and
`ignoreCollisions`. Nothing in the result links to a folder: a build script that
writes below such a link would write into what it points to.
"""

import json
import os
import sys


def files_below(top, below):
    """Yields the names, relative to top, of all files below top/below."""
    start = os.path.normpath(os.path.join(top, below.lstrip("/")))
    if os.path.isfile(start):
        yield os.path.relpath(start, top)
        return
    for folder, _, names in os.walk(start, followlinks=True):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), top)


def main():
    out = os.environ["out"]
    with open(sys.argv[1], encoding="utf-8") as file:
        manifest = json.load(file)
    os.makedirs(out)
    seen = {}
    for path in manifest["paths"]:
        for below in manifest["pathsToLink"]:
            for name in files_below(path, below):
                target = os.path.join(path, name)
                if name in seen:
                    same = os.path.realpath(seen[name]) == os.path.realpath(target)
                    if same or manifest["ignoreCollisions"]:
                        continue
                    sys.exit(f"two packages hold {name}: {seen[name]} and {target}")
                seen[name] = target
                os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
                os.symlink(target, os.path.join(out, name))


if __name__ == "__main__":
    main()
