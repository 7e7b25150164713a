"""substitute SOURCE TARGET OPTIONS..., as nixpkgs' build environment has it."""

import os
import re
import sys


def main():
    source, target, *options = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        text = file.read()
    while options:
        option = options.pop(0)
        if option == "--all":
            for name, value in os.environ.items():
                if re.fullmatch("[a-z][A-Za-z0-9_]*", name):
                    text = text.replace(f"@{name}@", value)
        elif option == "--subst-var":
            name = options.pop(0)
            text = text.replace(f"@{name}@", os.environ[name])
        elif option == "--subst-var-by":
            name, value = options.pop(0), options.pop(0)
            text = text.replace(f"@{name}@", value)
        elif option in ("--replace", "--replace-warn", "--replace-fail", "--replace-quiet"):
            before, after = options.pop(0), options.pop(0)
            if option == "--replace-fail" and before not in text:
                sys.exit(f"substitute: {source} has no {before}")
            text = text.replace(before, after)
        else:
            sys.exit(f"substitute: what is {option}?")
    mode = os.stat(source).st_mode
    # A copy from the store cannot be written.
    if os.path.lexists(target):
        os.remove(target)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(target, mode | 0o200)


if __name__ == "__main__":
    main()
