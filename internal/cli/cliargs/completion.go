package cliargs

import "strings"

const bashCompletion = `# bash completion for PROGRAM: eval "$(PROGRAM completion bash)"
_FUNCTION() {
  local current=${COMP_WORDS[COMP_CWORD]}
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $current == -* ]] && words+=("$current")
  local IFS=$'\n'
  mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current")
}
complete -o bashdefault -o default -F _FUNCTION PROGRAM
`

const zshCompletion = `#compdef PROGRAM
# zsh completion for PROGRAM: eval "$(PROGRAM completion zsh)"
_FUNCTION() {
  local -a words_before candidates
  words_before=("${(@)words[1,CURRENT-1]}")
  [[ ${words[CURRENT]} == -* ]] && words_before+=("${words[CURRENT]}")
  candidates=("${(@f)$("${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
  compadd -- "${candidates[@]}"
  _files
}
compdef _FUNCTION PROGRAM
`

// fill names the program in a completion script.
func fill(script, program string) string {
	return strings.NewReplacer("_FUNCTION", "_"+strings.ReplaceAll(program, "-", "_"), "PROGRAM", program).Replace(script)
}
