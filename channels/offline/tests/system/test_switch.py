"""What a switch decides about units."""

import os
import tempfile
import unittest

from load import load

program = load("switch-to-configuration")

SERVICE = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/{}\n"


def active(*names):
    return {name: {"ActiveState": "active", "SubState": "running"} for name in names}


class Plan(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def units(self, system, files):
        """The unit folder of a system; a value of None is a masked unit."""
        top = os.path.join(self.folder.name, system)
        os.makedirs(top)
        for name, text in files.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if text is None:
                os.symlink("/dev/null", path)
            else:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
        return program.UnitFolder(top)

    def plan(self, old, new, running):
        plan = program.make_plan(self.units("old", old), self.units("new", new), running)
        return {kind: names for kind, names in vars(plan).items() if names}

    def changed(self, extra="", old_extra=None):
        """The plan for a.service, whose command changes and which has the extra lines."""
        before = SERVICE.format("old") + (extra if old_extra is None else old_extra)
        return self.plan({"a.service": before}, {"a.service": SERVICE.format("new") + extra}, active("a.service"))

    def test_cases(self):
        same = SERVICE.format("old")
        cases = {
            "unchanged": (({"a.service": same}, {"a.service": same}, active("a.service")), {}),
            "inactive": (({"a.service": same}, {"a.service": SERVICE.format("new")},
                          {"a.service": {"ActiveState": "inactive", "SubState": "dead"}}), {}),
            "removed": (({"a.service": same}, {}, active("a.service")), {"stop": ["a.service"]}),
            "masked": (({"a.service": same}, {"a.service": None}, active("a.service")), {"stop": ["a.service"]}),
            "not ours": (({}, {}, active("run-user-1000.mount", "init.scope")), {}),
            "instance": (({"a@.service": same}, {"a@.service": SERVICE.format("new")}, active("a@1.service")),
                         {"stop": ["a@1.service"], "start": ["a@1.service"]}),
            "drop-in": (({"a.service": same, "a.service.d/overrides.conf": "[Service]\nNice=1\n"},
                         {"a.service": same, "a.service.d/overrides.conf": "[Service]\nNice=2\n"}, active("a.service")),
                        {"stop": ["a.service"], "start": ["a.service"]}),
            "description": (({"a.service": same}, {"a.service": same.replace("=x", "=y")}, active("a.service")), {}),
            "reload trigger": (({"a.service": same + "[Unit]\nX-Reload-Triggers=1\n"},
                                {"a.service": same + "[Unit]\nX-Reload-Triggers=2\n"}, active("a.service")),
                               {"reload": ["a.service"]}),
            "restart trigger": (({"a.service": same + "[Unit]\nX-Restart-Triggers=1\n"},
                                 {"a.service": same + "[Unit]\nX-Restart-Triggers=2\n"}, active("a.service")),
                                {"stop": ["a.service"], "start": ["a.service"]}),
            "active target": (({"a.target": ""}, {"a.target": ""}, active("a.target")), {"start": ["a.target"]}),
            "target of shutdown": (({"poweroff.target": ""}, {"poweroff.target": ""}, active("poweroff.target")), {}),
            "timer": (({"a.timer": "[Timer]\nOnCalendar=daily\n"}, {"a.timer": "[Timer]\nOnCalendar=hourly\n"}, active("a.timer")),
                      {"restart": ["a.timer"]}),
            "path": (({"a.path": "[Path]\nPathChanged=/a\n"}, {"a.path": "[Path]\nPathChanged=/b\n"}, active("a.path")),
                     {"restart": ["a.path"]}),
            "slice": (({"a.slice": "[Slice]\nMemoryMax=1G\n"}, {"a.slice": "[Slice]\nMemoryMax=2G\n"}, active("a.slice")), {}),
            "bus": (({"dbus.socket": "[Socket]\nListenStream=/a\n"}, {"dbus.socket": "[Socket]\nListenStream=/b\n"},
                     active("dbus.socket")), {}),
        }
        for name, (arguments, want) in cases.items():
            with self.subTest(name):
                self.folder.cleanup()
                self.assertEqual(self.plan(*arguments), want)

    def test_changed_service(self):
        cases = {
            "": {"stop": ["a.service"], "start": ["a.service"]},
            "X-StopIfChanged=false\n": {"restart": ["a.service"]},
            "X-RestartIfChanged=false\n": {"skip": ["a.service"]},
            "X-ReloadIfChanged=true\n": {"reload": ["a.service"]},
            "[Unit]\nRefuseManualStop=yes\n": {"skip": ["a.service"]},
            "[Unit]\nX-OnlyManualStart=yes\n": {"skip": ["a.service"]},
        }
        for extra, want in cases.items():
            with self.subTest(extra):
                self.folder.cleanup()
                self.assertEqual(self.changed(extra), want)

    def test_the_new_unit_decides(self):
        self.assertEqual(self.changed("X-RestartIfChanged=false\n", old_extra=""), {"skip": ["a.service"]})

    def test_socket_starts_its_service(self):
        files = {"a.socket": "[Socket]\nListenStream=/a\n"}
        self.assertEqual(
            self.plan({"a.service": SERVICE.format("old"), **files}, {"a.service": SERVICE.format("new"), **files},
                      active("a.service", "a.socket")),
            {"stop": ["a.service", "a.socket"], "start": ["a.socket"]})


class Settings(unittest.TestCase):
    def test_empty_assignment_clears(self):
        unit = program.settings(["[Service]\nExecStart=/a\n", "[Service]\nExecStart=\nExecStart=/b\n"])
        self.assertEqual(unit, {("Service", "ExecStart"): ["/b"]})

    def test_continued_lines_and_comments(self):
        unit = program.settings(["# no\n; no\n[Unit]\nAfter=a \\\n b\n"])
        self.assertEqual(unit, {("Unit", "After"): ["a   b"]})


if __name__ == "__main__":
    unittest.main()
