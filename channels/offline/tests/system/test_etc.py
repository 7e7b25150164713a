"""What activation leaves in /etc."""

import contextlib
import io
import os
import tempfile
import unittest
from unittest import mock

from load import load


class Etc(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        self.count = 0
        self.program = load("activate-etc")
        self.program.ETC = os.path.join(self.top, "etc")
        patch = mock.patch.object(self.program.os, "chown")
        self.chown = patch.start()
        self.addCleanup(patch.stop)

    def system(self, files):
        """The etc folder of a system: texts, or links where the value starts with ->."""
        self.count += 1
        top = os.path.join(self.top, f"system{self.count}")
        os.makedirs(top)
        for name, text in files.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if text.startswith("->"):
                os.symlink(text[2:], path)
            else:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
        return top

    def activate(self, files):
        """Activates a system; returns whether all went well and what was said."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            good = self.program.activate(self.system(files))
        return good, said.getvalue()

    def path(self, name):
        return os.path.join(self.program.ETC, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def test_links_follow_the_system(self):
        self.activate({"a": "1", "d/b": "2", "gone/c": "3"})
        self.assertEqual((self.read("a"), self.read("d/b")), ("1", "2"))
        self.activate({"a": "new", "d/b": "2"})
        self.assertEqual(self.read("a"), "new")
        self.assertFalse(os.path.lexists(self.path("gone/c")))

    def test_own_files_stay(self):
        self.activate({"d/a": "1"})
        with open(self.path("d/own"), "w", encoding="utf-8") as file:
            file.write("mine")
        self.activate({})
        self.assertEqual(self.read("d/own"), "mine")

    def test_dangling_link_is_kept(self):
        self.activate({"resolv.conf": "->/run/devhost/resolv.conf"})
        self.activate({"resolv.conf": "->/run/devhost/resolv.conf", "b": "1"})
        self.assertTrue(os.path.islink(self.path("resolv.conf")))

    def test_copies(self):
        copied = {"c": "secret", "c.mode": "0640", "c.uid": "+0", "c.gid": "+7"}
        self.activate(copied)
        self.assertFalse(os.path.islink(self.path("c")))
        self.assertEqual(os.stat(self.path("c")).st_mode & 0o777, 0o640)
        self.assertEqual(self.chown.call_args.args[1:], (0, 7))
        self.assertFalse(os.path.lexists(self.path("c.mode")))
        _, said = self.activate({})
        self.assertFalse(os.path.lexists(self.path("c")))
        self.assertIn("removing obsolete file", said)

    def test_copy_becomes_link(self):
        self.activate({"c": "1", "c.mode": "0600", "c.uid": "+0", "c.gid": "+0"})
        self.activate({"c": "2"})
        self.assertTrue(os.path.islink(self.path("c")))
        self.assertEqual(self.read("c"), "2")

    def test_direct_link(self):
        self.activate({"localtime": "->/usr/share/zoneinfo/UTC", "localtime.mode": "direct-symlink",
                       "localtime.uid": "+0", "localtime.gid": "+0"})
        self.assertEqual(os.readlink(self.path("localtime")), "/usr/share/zoneinfo/UTC")
        self.activate({})
        self.assertFalse(os.path.lexists(self.path("localtime")))

    def test_folder_and_link_change_places(self):
        self.activate({"x": "->/nowhere", "y/a": "1"})
        good, _ = self.activate({"x/a": "1", "y": "->/nowhere"})
        self.assertTrue(good)
        self.assertEqual(self.read("x/a"), "1")
        self.assertTrue(os.path.islink(self.path("y")))

    def test_own_folder_or_file_in_the_way(self):
        self.activate({})
        os.makedirs(self.path("x"))
        for name in ("x/own", "y"):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write("mine")
        good, said = self.activate({"x": "1", "y/a": "1", "y/b/c": "1", "z": "1"})
        self.assertFalse(good)
        self.assertIn(f"{self.path('x')} is a folder with files of its own", said)
        self.assertIn(f"{self.path('y')} is no folder", said)
        self.assertEqual((self.read("x/own"), self.read("y"), self.read("z")), ("mine", "mine", "1"))


if __name__ == "__main__":
    unittest.main()
