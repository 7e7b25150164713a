"""What formats.toml writes."""

import json
import pathlib
import subprocess
import sys
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "pkgs" / "to-toml.py"


def written(value):
    return subprocess.run(
        [sys.executable, PROGRAM], input=json.dumps(value), capture_output=True, text=True, check=True
    ).stdout


class Toml(unittest.TestCase):
    def test_values_of_the_top_come_before_tables(self):
        self.assertEqual(
            written({"b": {"x": 1, "inner": {"y": True}}, "a": [1, "two"]}),
            'a = [1, "two"]\n[b]\nx = 1\n[b.inner]\ny = true\n',
        )

    def test_empty(self):
        self.assertEqual(written({}), "")
        self.assertEqual(written({"a": {}, "b": []}), "b = []\n[a]\n")

    def test_folders_of_nothing_but_tables_have_no_line(self):
        self.assertEqual(written({"a": {"b": {"c": 1.5}}}), "[a.b]\nc = 1.5\n")

    def test_tables_in_lists(self):
        self.assertEqual(written({"a": [{"b": 1, "c": {"d": []}}, {}]}), "a = [{ b = 1, c = { d = [] } }, {}]\n")

    def test_names_and_texts_are_quoted(self):
        self.assertEqual(written({"a b": {"": 'q"\\\n\u007f\u00e4'}}), '["a b"]\n"" = "q\\"\\\\\\n\\u007f\u00e4"\n')
