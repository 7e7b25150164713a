# The build environment of derivation.nix, run by bash -e in Nix' sandbox.
PATH=${inputPath:+$inputPath:}/usr/bin:/bin:/usr/sbin:/sbin
export PATH
CC=gcc
shopt -s nullglob

substitute() { python3 -I -S "$bedSubstitute" "$@"; }
substituteAll() { substitute "$1" "$2" --all; }
substituteInPlace() {
  local files=()
  while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do
    files+=("$1")
    shift
  done
  local file
  for file in "${files[@]}"; do
    substitute "$file" "$file" "$@"
  done
}
runHook() { eval "${!1-}"; }

if [ -n "${buildCommandPath-}" ]; then
  # Where nixpkgs' builder begins too.
  cd "$TMPDIR"
  eval "$(cat "$buildCommandPath")"
else
  eval "${buildPhase-}"
  eval "${installPhase-}"
fi
