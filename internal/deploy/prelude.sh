# What devhost-deploy puts in front of provision.sh. It is handed to bash as an
# argument and holds nothing of an environment. Arguments of the functions go to
# the container through standard input, byte for byte: no process list, no log and
# no shell sees them on their way. It works with bash 3.2 (macOS).
set -eE
__dd_script=$1 __dd_config=$2 __dd_control=$3 __dd_container=$4 __dd_user=$5 __dd_run=$6 __dd_run_as=$7 __dd_echo=$8 __dd_rsync=$9 __dd_rsh=${10} __dd_text=${11}
set --
# What is said of lines goes away from what a script may use itself. The output has a
# pipe of its own, so that nobody waits for what the script leaves running.
exec 198>&3 >&4 2>&4 3>&- 4>&-

# Remembers where in provision.sh the command is that runs now.
__dd_where() {
  local __dd_i
  __dd_at=$1
  for ((__dd_i = 2; __dd_i < ${#BASH_SOURCE[@]}; __dd_i++)); do
    if [[ ${BASH_SOURCE[__dd_i]} == "$__dd_script" ]]; then
      if ((__dd_i > 2)) || [[ -z $__dd_at ]]; then __dd_at=${BASH_LINENO[__dd_i - 1]}; fi
      return 0
    fi
  done
  __dd_at=
}

__dd_failed() {
  local __dd_at
  __dd_where "$2"
  [[ -z $__dd_at ]] || builtin printf 'failed %s %s\n' "$__dd_at" "$1" >&198 2>/dev/null || :
}

__dd_step() {
  local __dd_at
  __dd_where ''
  [[ -z $__dd_at ]] || builtin printf 'step %s 0\n' "$__dd_at" >&198 2>/dev/null || :
}

__dd_wrong() {
  builtin printf '%s\n' "$1" >&2
  return 2
}

# Hands the other arguments to a constant command line in the container.
__dd_call() {
  local __dd_line=$1
  shift
  { builtin printf '%s\0' "$@" 2>/dev/null || :; } |
    command ssh -F "$__dd_config" -o ControlPath="$__dd_control" -o ControlMaster=no -o BatchMode=yes -o LogLevel=ERROR -o RemoteCommand=none -T -- "$__dd_container" "$__dd_line" 198>&-
}

# Does what a word means. The names of variables are such that the script has none of
# them, perhaps readonly.
__dd_do() {
  local __dd_status=0
  __dd_step
  "$@" || __dd_status=$?
  { if [[ $__dd_flags == *x* ]]; then set -x; fi; return "$__dd_status"; } 2>/dev/null
}

# set -x of the script shows its own commands and none of these. (A redirection
# hides that it is turned off.)
RUN() {
  { local __dd_flags=$-; set +x; } 2>/dev/null
  __dd_do __dd_do_run "$@"
}
RUN_AS() {
  { local __dd_flags=$-; set +x; } 2>/dev/null
  __dd_do __dd_do_run_as "$@"
}
ECHO() {
  { local __dd_flags=$-; set +x; } 2>/dev/null
  __dd_do __dd_do_echo "$@"
}
COPY() {
  { local __dd_flags=$-; set +x; } 2>/dev/null
  __dd_do __dd_do_copy "$@"
}

__dd_do_run() {
  if (($# == 0)); then __dd_wrong 'RUN needs a command: RUN cmd arg1 arg2'; return 2; fi
  __dd_call "$__dd_run" "$@"
}

__dd_do_run_as() {
  if (($# < 2)); then __dd_wrong 'RUN_AS needs a user and a command: RUN_AS postgres psql'; return 2; fi
  if ! [[ $1 =~ ^[a-z_][a-z0-9_-]*$ ]]; then __dd_wrong "RUN_AS: \"$1\" is no name of a user"; return 2; fi
  local __dd_as=$1
  shift
  __dd_call "${__dd_run_as//USER/$__dd_as}" "$@"
}

__dd_do_echo() {
  if (($# != 2)); then __dd_wrong "ECHO needs a value and a path, and was given $# arguments; quote the value: ECHO \"\$VALUE\" /remote/path"; return 2; fi
  if [[ $2 != /* ]]; then __dd_wrong "ECHO: the remote path \"$2\" must be absolute"; return 2; fi
  __dd_call "$__dd_echo" "$2" "$1"
}

__dd_do_copy() {
  if (($# != 2)); then __dd_wrong "COPY needs a local and a remote path, and was given $# arguments; quote what has blanks"; return 2; fi
  local __dd_from=$1 __dd_to=$2 __dd_protect= __dd_links=--copy-unsafe-links __dd_copied=0
  if [[ $__dd_to != /* ]]; then __dd_wrong "COPY: the remote path \"$__dd_to\" must be absolute"; return 2; fi
  if ! [[ -e $__dd_from ]]; then __dd_wrong "COPY: there is no \"$__dd_from\" in $PWD"; return 2; fi
  # What a link leads to is meant, not the link.
  if [[ -L $__dd_from ]]; then __dd_links=--copy-links; fi
  # Else a colon would be a host, and a hyphen an option.
  if [[ $__dd_from != /* ]]; then __dd_from=./$__dd_from; fi
  # rsync of macOS has no --protect-args, and needs none for a plain path.
  if [[ $__dd_to == *[!A-Za-z0-9_./,+@=%-]* ]]; then __dd_protect=--protect-args; fi
  command rsync -rlptz "$__dd_links" ${__dd_protect:+"$__dd_protect"} --rsync-path="$__dd_rsync" -e "$__dd_rsh" -- "$__dd_from" "$__dd_container:$__dd_to" 198>&- || __dd_copied=$?
  if ((__dd_copied == 23)); then builtin printf 'COPY writes as %s; what only root may write, is put in place by RUN: COPY x /tmp/ and RUN install /tmp/x /etc/x\n' "$__dd_user" >&2; fi
  return "$__dd_copied"
}

exit() {
  {
    local __dd_status=${1-$?}
    if [[ $__dd_status != 0 ]] && ((BASH_SUBSHELL == 0)); then __dd_failed "$__dd_status" ''; fi
  } 2>/dev/null
  builtin exit "$__dd_status"
}

trap '{ __dd_failed "$?" "$LINENO"; } 2>/dev/null' ERR
if [[ -n $__dd_text ]]; then eval "$__dd_text"; else . "$__dd_script"; fi
