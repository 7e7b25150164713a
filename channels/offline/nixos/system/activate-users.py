"""Makes the accounts and groups of a specification (JSON file, first argument).

Writes /etc/passwd, /etc/group and /etc/shadow. An id that was given out once stays with its
name (/var/lib/nixos/{uid,gid}-map), also when the account goes and comes back, because files
keep the number.
"""

import json
import os
import subprocess
import sys

ETC = "/etc"
STATE = "/var/lib/nixos"
LOCKED = "!"


def read_lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except FileNotFoundError:
        return []


def read_json(path, default):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def write(path, text, mode, group=0):
    """Replaces path, so that a reader sees the old or the new file."""
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        os.fchown(descriptor, 0, group)
        file.write(text)
    os.rename(temporary, path)


def hash_password(clear):
    result = subprocess.run(
        ["/usr/bin/openssl", "passwd", "-6", "-stdin"],
        input=clear + "\n", capture_output=True, text=True, check=True,
    )
    return result.stdout.strip()


class Numbers:
    """Gives out ids: the declared one, else the one that the name had, else a free one."""

    def __init__(self, path, declared, present):
        self.path = path
        self.remembered = read_json(path, {})
        self.present = present
        # Numbers of names that were there before, here or gone, are not given to others.
        self.reserved = set(self.remembered.values()) | set(present.values())
        self.used = {number for number in declared if number is not None}

    def of(self, name, declared, system):
        number = declared
        if number is None:
            number = self.present.get(name, self.remembered.get(name))
            if number is None or number in self.used:
                # Service ids count down from 999, as NixOS' do; people's count up.
                span = range(999, 399, -1) if system else range(1000, 29999)
                number = next((free for free in span if free not in self.used | self.reserved), None)
                if number is None:
                    sys.exit(f"no id is left for {name}")
        self.used.add(number)
        self.remembered[name] = number
        return number

    def save(self):
        write(self.path, json.dumps(self.remembered, sort_keys=True), 0o600)


def password_of(user, old, mutable):
    """The shadow entry. With mutable users, what is declared counts for a new account only."""
    exists = old is not None
    chosen = old if exists else None
    if not exists:
        if user["initialPassword"] is not None:
            chosen = hash_password(user["initialPassword"])
        if user["initialHashedPassword"] is not None:
            chosen = user["initialHashedPassword"]
    if not exists or not mutable:
        if user["passwordFile"] is not None:
            lines = read_lines(user["passwordFile"])
            if lines:
                chosen = lines[0]
            else:
                print(f"password file {user['passwordFile']} of {user['name']} is missing or empty", file=sys.stderr)
        if user["password"] is not None:
            chosen = hash_password(user["password"])
        if user["hashedPassword"] is not None:
            chosen = user["hashedPassword"]
    return LOCKED if chosen is None else chosen


def make_home(user, uid, gid):
    if not user["createHome"] or os.path.lexists(user["home"]):
        return
    os.makedirs(os.path.dirname(user["home"]), exist_ok=True)
    os.mkdir(user["home"], 0o700)
    os.chown(user["home"], uid, gid)
    os.chmod(user["home"], int(user["homeMode"], 8))


def accounts(path, fields):
    """Name -> fields of a file of colon-separated lines; malformed lines are dropped."""
    rows = (line.split(":") for line in read_lines(path))
    return {row[0]: row for row in rows if len(row) == fields}


def activate(spec):
    mutable = spec["mutableUsers"]
    os.makedirs(STATE, exist_ok=True)

    passwd = accounts(f"{ETC}/passwd", 7)
    group = accounts(f"{ETC}/group", 4)
    shadow = accounts(f"{ETC}/shadow", 9)
    earlier_users = set(read_json(f"{STATE}/declarative-users", []))
    earlier_groups = set(read_json(f"{STATE}/declarative-groups", []))
    users = {user["name"]: user for user in spec["users"]}
    groups = {entry["name"]: entry for entry in spec["groups"]}

    # Accounts made inside the container stay with mutableUsers; declared ones that are gone do not.
    kept_users = {name: fields for name, fields in passwd.items()
                  if name not in users and mutable and name not in earlier_users}
    kept_groups = {name: fields for name, fields in group.items()
                   if name not in groups and mutable and name not in earlier_groups}

    gids = Numbers(f"{STATE}/gid-map", [entry["gid"] for entry in groups.values()],
                   {name: int(fields[2]) for name, fields in group.items() if name in groups or name in kept_groups})
    group_lines, gid_of = [], {}
    for name, entry in sorted(groups.items()):
        gid_of[name] = gids.of(name, entry["gid"], True)
        members = set(entry["members"])
        if mutable and name in group:
            # People added inside stay members; declared accounts follow the declaration.
            members.update(member for member in group[name][3].split(",") if member in kept_users)
        group_lines.append((gid_of[name], f"{name}:x:{gid_of[name]}:{','.join(sorted(members))}"))
    group_lines += [(int(fields[2]), ":".join(fields)) for fields in kept_groups.values()]
    gids.save()

    uids = Numbers(f"{STATE}/uid-map", [user["uid"] for user in users.values()],
                   {name: int(fields[2]) for name, fields in passwd.items() if name in users or name in kept_users})
    passwd_lines, shadow_lines, homes = [], [], []
    for name, user in sorted(users.items()):
        uid = uids.of(name, user["uid"], user["isSystemUser"])
        gid = gid_of[user["group"]]
        passwd_lines.append((uid, f"{name}:x:{uid}:{gid}:{user['description']}:{user['home']}:{user['shell']}"))
        old = shadow.get(name)
        fields = list(old) if old else [name, "", "1", "", "", "", "", "", ""]
        fields[1] = password_of(user, old[1] if old else None, mutable)
        shadow_lines.append(":".join(fields))
        homes.append((user, uid, gid))
    for name, fields in kept_users.items():
        passwd_lines.append((int(fields[2]), ":".join(fields)))
        if name in shadow:
            shadow_lines.append(":".join(shadow[name]))
    uids.save()

    write(f"{ETC}/group", "".join(f"{line}\n" for _, line in sorted(group_lines)), 0o644)
    write(f"{ETC}/passwd", "".join(f"{line}\n" for _, line in sorted(passwd_lines)), 0o644)
    write(f"{ETC}/shadow", "".join(f"{line}\n" for line in sorted(shadow_lines)), 0o600)
    write(f"{STATE}/declarative-users", json.dumps(sorted(users)), 0o644)
    write(f"{STATE}/declarative-groups", json.dumps(sorted(groups)), 0o644)
    for user, uid, gid in homes:
        make_home(user, uid, gid)


if __name__ == "__main__":
    activate(read_json(sys.argv[1], None))
