"""Which accounts, ids and passwords an activation makes."""

import os
import tempfile
import unittest
from unittest import mock

from load import load


def user(name, **settings):
    return {
        "name": name, "description": "", "uid": None, "group": "g", "home": "/var/empty", "homeMode": "700",
        "createHome": False, "isSystemUser": True, "hashedPassword": None, "initialHashedPassword": None,
        "password": None, "initialPassword": None, "passwordFile": None, "shell": "/bin/sh", **settings,
    }


def group(name, gid=None, members=()):
    return {"name": name, "gid": gid, "members": list(members)}


class Users(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        self.program = load("activate-users")
        self.program.ETC = os.path.join(self.top, "etc")
        self.program.STATE = os.path.join(self.top, "state")
        os.mkdir(self.program.ETC)
        for call in ("chown", "fchown"):
            patch = mock.patch.object(self.program.os, call)
            setattr(self, call, patch.start())
            self.addCleanup(patch.stop)

    def activate(self, users, groups=(), mutable=True):
        self.program.activate({"mutableUsers": mutable, "users": users, "groups": [group("g", 5), *groups]})

    def read(self, name):
        """Name -> fields of a file in etc."""
        with open(os.path.join(self.program.ETC, name), encoding="utf-8") as file:
            return {line.split(":")[0]: line.rstrip("\n").split(":") for line in file}

    def append(self, name, line):
        with open(os.path.join(self.program.ETC, name), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def uid(self, name):
        return int(self.read("passwd")[name][2])

    def password(self, name):
        return self.read("shadow")[name][1]

    def test_declared_and_free_ids(self):
        self.activate([user("a", uid=999), user("b"), user("c", isSystemUser=False), user("d", isSystemUser=False, uid=1000)])
        self.assertEqual([self.uid(name) for name in "abcd"], [999, 998, 1001, 1000])

    def test_ids_stay_when_others_come(self):
        self.activate([user("b"), user("c")])
        before = [self.uid("b"), self.uid("c")]
        self.activate([user("a"), user("b"), user("c")])
        self.assertEqual([self.uid("b"), self.uid("c")], before)

    def test_id_of_a_gone_account_is_kept_for_it(self):
        self.activate([user("a")])
        first = self.uid("a")
        self.activate([user("b")])
        self.assertNotIn("a", self.read("passwd"))
        self.assertNotEqual(self.uid("b"), first)
        self.activate([user("a"), user("b")])
        self.assertEqual(self.uid("a"), first)

    def test_declared_id_wins_over_a_remembered_one(self):
        self.activate([user("a")])
        self.activate([user("a"), user("b", uid=self.uid("a"))])
        self.assertNotEqual(self.uid("a"), self.uid("b"))

    def test_password_of_a_new_account(self):
        cases = {
            "none": ({}, "!"),
            "hashed": ({"hashedPassword": "*"}, "*"),
            "initial hashed": ({"initialHashedPassword": "$6$x"}, "$6$x"),
            "hashed wins": ({"initialHashedPassword": "$6$x", "hashedPassword": "$6$y"}, "$6$y"),
        }
        for number, (name, (settings, want)) in enumerate(cases.items()):
            with self.subTest(name):
                account = f"a{number}"
                self.activate([user(account, **settings)])
                self.assertEqual(self.password(account), want)

    def test_clear_password_is_hashed(self):
        self.activate([user("a", password="secret")])
        self.assertTrue(self.password("a").startswith("$6$"))

    def test_password_file(self):
        path = os.path.join(self.top, "password")
        with open(path, "w", encoding="utf-8") as file:
            file.write("$6$file\n")
        self.activate([user("a", passwordFile=path)])
        self.assertEqual(self.password("a"), "$6$file")

    def test_changed_declaration(self):
        for mutable, want in ((True, "$6$old"), (False, "$6$new")):
            with self.subTest(mutable=mutable):
                self.setUp()
                self.activate([user("a", hashedPassword="$6$old")], mutable=mutable)
                self.activate([user("a", hashedPassword="$6$new")], mutable=mutable)
                self.assertEqual(self.password("a"), want)

    def test_accounts_made_inside(self):
        for mutable in (True, False):
            with self.subTest(mutable=mutable):
                self.setUp()
                self.activate([user("a")], mutable=mutable)
                self.append("passwd", "own:x:1500:5::/home/own:/bin/sh")
                self.append("shadow", "own:$6$own:1::::::")
                self.activate([user("a")], mutable=mutable)
                self.assertEqual("own" in self.read("passwd"), mutable)
                self.assertEqual("own" in self.read("shadow"), mutable)

    def test_groups(self):
        self.activate([user("a")], [group("h", 70, ["a"]), group("i")])
        self.assertEqual(self.read("group")["h"], ["h", "x", "70", "a"])
        self.assertEqual(self.read("group")["i"][2], "999")

    def test_files_are_closed_to_others(self):
        self.activate([user("a")])
        modes = {name: os.stat(os.path.join(self.program.ETC, name)).st_mode & 0o777 for name in ("passwd", "shadow", "group")}
        self.assertEqual(modes, {"passwd": 0o644, "shadow": 0o600, "group": 0o644})

    def test_home(self):
        home = os.path.join(self.top, "home", "a")
        self.activate([user("a", uid=7, home=home, createHome=True, homeMode="750")])
        self.assertEqual(os.stat(home).st_mode & 0o777, 0o750)
        self.chown.assert_called_once_with(home, 7, 5)
        os.chmod(home, 0o755)
        self.activate([user("a", uid=7, home=home, createHome=True, homeMode="750")])
        self.assertEqual(os.stat(home).st_mode & 0o777, 0o755, "a home that is there belongs to its owner")


if __name__ == "__main__":
    unittest.main()
