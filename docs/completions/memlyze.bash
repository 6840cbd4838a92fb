# bash completion of memlyze and memlyze-TOOL. Everything is asked of the programs' own --help, so it cannot be out of date.

_memlyze_options() { # TOOL: its long options, a line each
  memlyze "$1" --help 2>/dev/null | grep -oE -- '^ +(-[a-z], )?--[a-z-]+(, --[a-z-]+)*' | grep -oE -- '--[a-z-]+'
}

_memlyze_values() { # TOOL OPTION: the values that its help lists as a|b|c
  memlyze "$1" --help 2>/dev/null | awk -v option="$2" '
    $0 ~ "^ +(-[a-z], )?--" { here = index($0 " ", option " ") > 0 }
    here' | sed -e ':join' -e '/|$/{N; s/|\n */|/; b join' -e '}' | grep -oE '[a-z0-9-]+(\|[a-z0-9-]+)+' | head -n 1 | tr '|' '\n'
}

_memlyze_recorders() { # the recorders of this user's running sessions
  local link
  for link in "${TMPDIR:-/tmp}/memlyze-$UID"/*/arena; do
    [ -e "$link" ] && readlink "$link" | cut -d / -f 3
  done
}

_memlyze_files() { # WORD PATTERN: files that match, and folders
  compgen -f -X "!$2" -- "$1"
  compgen -d -S / -- "$1"
}

_memlyze() {
  local word=$2 previous=$3 tool first=1 i
  COMPREPLY=()
  tool=${COMP_WORDS[0]##*/}
  case $tool in
  memlyze-*) tool=${tool#memlyze-} ;;
  *)
    if [ "$COMP_CWORD" = 1 ]; then
      mapfile -t COMPREPLY < <(compgen -W "$(memlyze --help 2>/dev/null | awk '/^  [a-z]+  / { print $1 }') help --help --version" -- "$word")
      return
    fi
    tool=${COMP_WORDS[1]} first=2
    if [ "$tool" = help ]; then
      mapfile -t COMPREPLY < <(compgen -W "$(memlyze --help 2>/dev/null | awk '/^  [a-z]+  / { print $1 }')" -- "$word")
      return
    fi
    ;;
  esac
  if [ "$tool" = record ]; then # from COMMAND on the words are the program's
    for ((i = first; i < COMP_CWORD; i++)); do
      case ${COMP_WORDS[i]} in
      -o | --output | --sample-rate | --sample-over | --max-stack-depth | --max-events | --on-full | --wait | --include | --exclude | --snapshot-every | --max-size | --flight-recorder) i=$((i + 1)) ;;
      -*) ;;
      *)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
      esac
    done
  fi
  case $word in
  -*)
    mapfile -t COMPREPLY < <(compgen -W "$(_memlyze_options "$tool")" -- "$word")
    return
    ;;
  esac
  case $previous in
  --baseline | --save-baseline | --config | --suppress | --diff | --repair) # any file, traces too
    mapfile -t COMPREPLY < <(_memlyze_files "$word" '*')
    return
    ;;
  --*)
    local values
    values=$(_memlyze_values "$tool" "$previous")
    if [ -n "$values" ]; then
      mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
      [ ${#COMPREPLY[@]} -gt 0 ] && return
    fi
    ;;
  esac
  if [ "$tool" = control ]; then # all of its words are options and their values
    if [ "$previous" = --pid ] || [ "$previous" = -p ]; then
      mapfile -t COMPREPLY < <(compgen -W "$(_memlyze_recorders)" -- "$word")
    fi
  elif [ "$tool" = record ]; then
    mapfile -t COMPREPLY < <(compgen -c -- "$word")
  else
    mapfile -t COMPREPLY < <(_memlyze_files "$word" '*.mlyze')
  fi
}

complete -o filenames -F _memlyze memlyze Memlyze memlyze-record memlyze-control memlyze-stats memlyze-top memlyze-leaks memlyze-flame memlyze-gc memlyze-diff memlyze-check memlyze-export memlyze-verify memlyze-annotate
