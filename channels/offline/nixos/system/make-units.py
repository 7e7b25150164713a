"""Makes the store folder of systemd's units from a JSON manifest (first argument).

`system` holds units as files, links to those of the host's systemd that the manifest
names, and the folders `.wants`, `.requires`, `.upholds` and `.d`; `user` holds links to the
units of the users' systemd. /usr/lib/systemd is never searched: see toplevel.nix.
"""

import json
import os
import sys

HOST = "/usr/lib/systemd"


def link(target, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.lexists(path):
        os.symlink(target, path)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def template(name):
    """foo@bar.service -> foo@.service; other names are returned as they are."""
    stem, dot, suffix = name.rpartition(".")
    if "@" in stem:
        return f"{stem.split('@', 1)[0]}@{dot}{suffix}"
    return name


def link_upstream(names, optional, source, target):
    for name in names:
        path = os.path.join(source, name)
        if os.path.isfile(path):
            link(path, os.path.join(target, name))
        elif name not in optional:
            sys.exit(f"channels/offline: this host's systemd has no unit {path}.\n"
                     "Install the Debian or Ubuntu packages that bring it and build again: apt-get install systemd dbus")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        manifest = json.load(file)
    system = os.path.join(os.environ["out"], "system")
    user = os.path.join(os.environ["out"], "user")
    os.makedirs(system)
    os.makedirs(user)
    optional = set(manifest["optional"])
    suppressed = set(manifest["suppressed"])
    upstream = [name for name in manifest["upstream"] + manifest["optional"] if name not in suppressed]
    link_upstream(upstream, optional, f"{HOST}/system", system)
    user_optional = set(manifest["userOptional"])
    link_upstream(manifest["user"] + manifest["userOptional"], user_optional, f"{HOST}/user", user)
    for folder, wants in ((system, manifest["wants"]), (user, manifest["userWants"])):
        for unit, wanted in wants.items():
            for name in wanted:
                if os.path.lexists(os.path.join(folder, template(name))):
                    link(f"../{template(name)}", os.path.join(folder, f"{unit}.wants", name))
    for name, unit in manifest["aliases"].items():
        link(unit, os.path.join(system, name))
    for name, unit in sorted(manifest["units"].items()):
        path = os.path.join(system, name)
        if not unit["enable"]:
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink("/dev/null", path)
            continue
        instance_of = template(name) != name and template(name) in manifest["units"]
        if unit["overrideStrategy"] == "asDropin" or name in upstream or instance_of or (
                template(name) != name and template(name) in upstream):
            write(os.path.join(system, f"{name}.d", "overrides.conf"), unit["text"])
        else:
            write(path, unit["text"])
        for key, folder in (("wantedBy", "wants"), ("requiredBy", "requires"), ("upheldBy", "upholds")):
            for other in unit[key]:
                link(f"../{name}", os.path.join(system, f"{other}.{folder}", name))
        for alias in unit["aliases"]:
            link(name, os.path.join(system, alias))


if __name__ == "__main__":
    main()
