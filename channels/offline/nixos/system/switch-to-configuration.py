"""Makes the running container use the system given as first argument.

usage: switch-to-configuration SYSTEM switch|boot|test|dry-activate

Compares the units of the running system with those of the new one, stops what is gone,
activates, and reloads, restarts and starts what changed, by the rules of NixOS
(restartIfChanged, reloadIfChanged, stopIfChanged, restart and reload triggers).

Exit status: 0 all well; 1 wrong usage, or another switch runs; 2 activation failed;
3 systemd could not reload; 4 units failed.
"""

import fcntl
import os
import subprocess
import sys
import time

UNITS = "/etc/systemd/system"
LOCK = "/run/nixos/switch-to-configuration.lock"
SYSTEMCTL = "/usr/bin/systemctl"
ACTIVE = ("active", "activating", "reloading")
# Units that boot and shutdown go through; starting one by hand would end the system or do nothing.
NEVER_START = {
    "emergency.target", "exit.target", "final.target", "halt.target", "hibernate.target", "kexec.target",
    "poweroff.target", "reboot.target", "rescue.target", "shutdown.target", "sigpwr.target", "sleep.target",
    "soft-reboot.target", "suspend.target", "umount.target",
}
# Restarting these would cut off every service from its log, the bus, or its session.
NEVER_RESTART = {"systemd-journal-flush.service", "dbus.socket", "systemd-journald.socket",
                 "systemd-journald-dev-log.socket", "systemd-networkd.socket"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def systemctl(*arguments, capture=False):
    return subprocess.run(
        [SYSTEMCTL, *arguments], check=False, text=True,
        stdout=subprocess.PIPE if capture else None,
    )


def running_units():
    """Name -> state and substate of every unit that systemd has loaded."""
    shown = systemctl("show", "*", "--all", "--property=Id,ActiveState,SubState,Result", capture=True).stdout
    units = {}
    for block in shown.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in properties:
            units[properties["Id"]] = properties
    return units


def template(name):
    """foo@bar.service -> foo@.service; other names are returned as they are."""
    stem, dot, suffix = name.rpartition(".")
    if "@" in stem:
        return f"{stem.split('@', 1)[0]}@{dot}{suffix}"
    return name


class UnitFolder:
    """The unit files of one system."""

    def __init__(self, path):
        self.path = path

    def files(self, name):
        """The texts that make up a unit, or None where the system does not have it."""
        texts = []
        for candidate in dict.fromkeys((template(name), name)):
            path = os.path.join(self.path, candidate)
            try:
                with open(path, encoding="utf-8") as file:
                    texts.append(file.read())
            except (FileNotFoundError, IsADirectoryError):
                pass
        if not texts:
            return None
        for candidate in dict.fromkeys((template(name), name)):
            folder = os.path.join(self.path, f"{candidate}.d")
            for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                with open(os.path.join(folder, entry), encoding="utf-8") as file:
                    texts.append(file.read())
        return texts

    def masked(self, name):
        return os.path.realpath(os.path.join(self.path, name)) == "/dev/null"


def settings(texts):
    """(section, key) -> values of the unit texts; an empty assignment clears the list, as in systemd."""
    result, section = {}, ""
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line:
                key, value = (part.strip() for part in line.split("=", 1))
                if value:
                    result.setdefault((section, key), []).append(value)
                else:
                    result[(section, key)] = []
    return result


def flag(unit, section, key, default):
    values = unit.get((section, key))
    return values[-1].lower() in ("1", "yes", "true", "on") if values else default


def only_differs_in(old, new, ignored):
    """Tells whether the settings are the same but for the ignored keys of [Unit]."""
    def rest(unit):
        return {key: value for key, value in unit.items() if not (key[0] == "Unit" and key[1] in ignored)}
    return rest(old) == rest(new)


# Seconds within which a service that cannot run usually ends, and after which one that
# systemd starts again has had its second chance.
SETTLE, SECOND_START = 0.2, 1

# Settings that describe a unit and do not change what runs.
DESCRIPTIVE = {"Description", "Documentation", "Wants", "After", "Before", "OnFailure", "OnSuccess",
               "X-Reload-Triggers"}


class Plan:
    """What the switch does with units, in the order in which it does it."""

    def __init__(self):
        self.stop, self.reload, self.restart, self.start, self.skip = [], [], [], [], []

    def add(self, kind, name):
        names = getattr(self, kind)
        if name not in names:
            names.append(name)


def sockets_of(name, unit, folder):
    """The socket units that start the service."""
    named = [socket for value in unit.get(("Service", "Sockets"), []) for socket in value.split()]
    own = f"{name.rpartition('.')[0]}.socket"
    return [socket for socket in dict.fromkeys(named + [own]) if folder.files(socket) is not None]


def plan_changed(name, old, new, running, folder, plan):
    """Decides about one running unit whose file changed."""
    suffix = name.rpartition(".")[2]
    if name in NEVER_RESTART or suffix in ("target", "slice", "path"):
        if suffix == "path":
            plan.add("restart", name)
        return
    if only_differs_in(old, new, DESCRIPTIVE):
        if old.get(("Unit", "X-Reload-Triggers")) != new.get(("Unit", "X-Reload-Triggers")):
            plan.add("reload", name)
        return
    if flag(new, "Service", "X-ReloadIfChanged", False):
        plan.add("reload", name)
        return
    if (not flag(new, "Service", "X-RestartIfChanged", True) or flag(new, "Unit", "RefuseManualStop", False)
            or flag(new, "Unit", "X-OnlyManualStart", False)):
        plan.add("skip", name)
        return
    if suffix != "service":
        plan.add("restart", name)
        return
    if not flag(new, "Service", "X-StopIfChanged", True):
        plan.add("restart", name)
        return
    sockets = [] if flag(new, "Service", "X-NotSocketActivated", False) else [
        socket for socket in sockets_of(name, new, folder)
        if running.get(socket, {}).get("ActiveState") in ACTIVE]
    plan.add("stop", name)
    for socket in sockets:
        plan.add("stop", socket)
        plan.add("start", socket)
    if not sockets:
        plan.add("start", name)


def make_plan(old_units, new_units, running):
    plan = Plan()
    for name, state in sorted(running.items()):
        if state["ActiveState"] not in ACTIVE:
            continue
        before, after = old_units.files(name), new_units.files(name)
        if before is None:
            continue
        if after is None or new_units.masked(name):
            if not flag(settings(before), "Unit", "X-StopOnRemoval", True):
                continue
            plan.add("stop", name)
            continue
        old, new = settings(before), settings(after)
        if name.endswith(".target"):
            # Starting an active target starts whatever it now wants as well.
            if name not in NEVER_START and not flag(new, "Unit", "RefuseManualStart", False) \
                    and not flag(new, "Unit", "X-OnlyManualStart", False):
                plan.add("start", name)
            if flag(new, "Unit", "X-StopOnReconfiguration", False):
                plan.add("stop", name)
        elif before != after:
            plan_changed(name, old, new, running, new_units, plan)
    return plan


def failed_units(before):
    """Units that are failed, or that systemd keeps restarting, after the switch."""
    # For systemd a simple service has started as soon as there is a process.
    time.sleep(SETTLE)
    failed, retrying = [], []
    for name, state in sorted(running_units().items()):
        if state["ActiveState"] == "failed":
            failed.append(name)
        elif state["SubState"] == "auto-restart" and before.get(name, {}).get("SubState") != "auto-restart":
            retrying.append(name)
    if retrying:
        time.sleep(SECOND_START)
        now = running_units()
        failed += [name for name in retrying
                   if now.get(name, {}).get("SubState") == "auto-restart" or now.get(name, {}).get("ActiveState") == "failed"]
    return failed


def show(verb, names):
    if names:
        say(f"{verb}: {', '.join(names)}")


def switch(system, action):
    old_units, new_units = UnitFolder(UNITS), UnitFolder(f"{system}/etc/systemd/system")
    before = running_units()
    plan = make_plan(old_units, new_units, before)
    targets = [name for name in plan.start if name.endswith(".target")]

    if action == "dry-activate":
        show("would stop the following units", plan.stop)
        show("would NOT restart the following changed units", plan.skip)
        show("would reload the following units", plan.reload)
        show("would restart the following units", plan.restart)
        show("would start the following units", [name for name in plan.start if name not in targets])
        return 0

    status = 0
    if plan.stop:
        show("stopping the following units", plan.stop)
        systemctl("stop", "--", *plan.stop)
    show("NOT restarting the following changed units", plan.skip)

    say("activating the configuration...")
    if subprocess.run([f"{system}/activate", system], check=False).returncode != 0:
        status = 2
    systemctl("reset-failed")
    if systemctl("daemon-reload").returncode != 0:
        say("systemd could not reload its units")
        return 3
    # Folders that new units expect, before those start.
    subprocess.run(["/bin/sh", "-c", "exec systemd-tmpfiles --create --remove --exclude-prefix=/dev /etc/tmpfiles.d/*.conf"],
                   check=False, env={"PATH": "/usr/bin:/usr/sbin"})

    if plan.reload:
        show("reloading the following units", plan.reload)
        if systemctl("reload", "--", *plan.reload).returncode != 0:
            status = 4
    if plan.restart:
        show("restarting the following units", plan.restart)
        if systemctl("restart", "--", *plan.restart).returncode != 0:
            status = 4
    show("starting the following units", [name for name in plan.start if name not in targets])
    if plan.start and systemctl("start", "--", *plan.start).returncode != 0:
        status = 4

    after = running_units()
    new = [name for name, state in sorted(after.items())
           if state["ActiveState"] == "active" and before.get(name, {}).get("ActiveState") not in ACTIVE
           and name not in plan.start and new_units.files(name) is not None]
    show("the following new units were started", new)

    failed = failed_units(before)
    if failed:
        say(f"warning: the following units failed: {', '.join(failed)}")
        for name in failed:
            systemctl("status", "--no-pager", "--full", "--lines=20", "--", name)
        status = 4
    return status


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in ("switch", "boot", "test", "dry-activate"):
        say("usage: switch-to-configuration switch|boot|test|dry-activate")
        return 1
    system, action = sys.argv[1:]
    if action == "boot":
        # The host chooses what a container boots.
        return 0
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    with open(LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another switch runs in this container ({LOCK}); try again when it is done")
            return 1
        return switch(system, action)


if __name__ == "__main__":
    sys.exit(main())
