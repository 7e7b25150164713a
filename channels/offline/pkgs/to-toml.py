"""Reads JSON on standard input and writes it as TOML."""

import json
import sys


def key(name):
    plain = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if plain else value(name)


def value(item):
    if isinstance(item, dict):
        return "{ " + ", ".join(f"{key(name)} = {value(inner)}" for name, inner in item.items()) + " }" if item else "{}"
    if isinstance(item, list):
        return "[" + ", ".join(map(value, item)) + "]"
    # Booleans, numbers and, escaped alike, texts are as in JSON.
    return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")


def table(path, items):
    tables = {name: item for name, item in items.items() if isinstance(item, dict)}
    if path and (len(tables) < len(items) or not items):
        print("[" + ".".join(map(key, path)) + "]")
    for name, item in items.items():
        if name not in tables:
            print(f"{key(name)} = {value(item)}")
    for name, item in tables.items():
        table(path + [name], item)


table([], json.load(sys.stdin))
