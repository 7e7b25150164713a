"""Makes /etc show the store folder given as first argument.

Every file of the folder appears in /etc as a link through /etc/static, which is one
link to the folder, so a new system takes over with a single rename. Files with a
`.mode` companion are copied instead. Links and copies of an earlier system that the
new one does not have are removed; anything else in /etc is left alone.
"""

import grp
import os
import pwd
import shutil
import sys

ETC = "/etc"
# The one link that all others go through, and the names of copied files.
STATIC = "static"
COPIES = ".clean"
SUFFIXES = (".mode", ".uid", ".gid")


def replace_link(target, link):
    """Makes link a symbolic link to target, atomically."""
    temporary = f"{link}.tmp"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, link)


def is_static(path):
    """Tells whether path is a link that an activation made."""
    return os.path.islink(path) and os.readlink(path).startswith(f"{ETC}/{STATIC}/")


def only_static(path):
    """Tells whether path is a link of ours, or a folder of nothing but those."""
    if os.path.islink(path) or not os.path.isdir(path):
        return is_static(path)
    return all(only_static(os.path.join(path, name)) for name in os.listdir(path))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def number(text, lookup):
    """The id that text names: `+N` is N itself, anything else a name."""
    return int(text[1:]) if text.startswith("+") else lookup(text)


def remove_stale(source):
    """Removes our links whose target the new system does not have."""
    for folder, folders, names in os.walk(ETC):
        if folder == ETC and STATIC in folders:
            folders.remove(STATIC)
        for name in names + folders:
            path = os.path.join(folder, name)
            if is_static(path) and not os.path.lexists(os.path.join(source, os.path.relpath(path, ETC))):
                os.unlink(path)


def copy(source, target):
    mode = read(f"{source}.mode")
    temporary = f"{target}.tmp"
    # The mode of a new file: nobody reads the copy before it has its own.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    shutil.copyfile(source, temporary)
    os.chown(
        temporary,
        number(read(f"{source}.uid"), lambda name: pwd.getpwnam(name).pw_uid),
        number(read(f"{source}.gid"), lambda name: grp.getgrnam(name).gr_gid),
    )
    os.chmod(temporary, int(mode, 8))
    os.rename(temporary, target)


def install(source):
    """Links or copies everything; returns the names of the copied files and whether all went well."""
    copies, good = [], True
    for folder, folders, names in os.walk(source):
        relative = os.path.relpath(folder, source)
        here = os.path.normpath(os.path.join(ETC, relative))
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        # A link in the place of a folder, left by an earlier system.
        if is_static(here):
            os.unlink(here)
        if os.path.lexists(here) and not os.path.isdir(here):
            print(f"{here} is no folder; nothing below it is made", file=sys.stderr)
            good = False
            folders.clear()
            continue
        os.makedirs(here, exist_ok=True)
        for name in names + linked:
            if name.endswith(SUFFIXES) and os.path.splitext(name)[0] in names:
                continue
            wanted = os.path.join(folder, name)
            target = os.path.join(here, name)
            if os.path.isdir(target) and not os.path.islink(target):
                if not only_static(target):
                    print(f"{target} is a folder with files of its own; not replaced", file=sys.stderr)
                    good = False
                    continue
                shutil.rmtree(target)
            if os.path.exists(f"{wanted}.mode"):
                mode = read(f"{wanted}.mode")
                if mode == "direct-symlink":
                    replace_link(os.readlink(wanted), target)
                else:
                    copy(wanted, target)
                copies.append(os.path.relpath(target, ETC))
            else:
                link = os.path.join(ETC, STATIC, os.path.normpath(os.path.join(relative, name)))
                if not os.path.islink(target) or os.readlink(target) != link:
                    replace_link(link, target)
    return copies, good


def activate(source):
    """Makes /etc show source; returns whether all went well."""
    os.makedirs(ETC, exist_ok=True)
    replace_link(source, os.path.join(ETC, STATIC))
    remove_stale(source)
    copies, good = install(source)
    record = os.path.join(ETC, COPIES)
    earlier = read(record).splitlines() if os.path.exists(record) else []
    for name in earlier:
        path = os.path.join(ETC, name)
        if name not in copies and os.path.lexists(path) and not is_static(path):
            print(f"removing obsolete file {path}", file=sys.stderr)
            os.unlink(path)
    with open(record, "w", encoding="utf-8") as file:
        file.write("".join(f"{name}\n" for name in copies))
    return good


if __name__ == "__main__":
    sys.exit(0 if activate(sys.argv[1]) else 1)
