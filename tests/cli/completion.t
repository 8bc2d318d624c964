#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion for bash offers every verb, every option and the names that there are.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"

command -v bash >/dev/null || skip_all "bash isn't installed"

# offers WORD...: what there is for the last word, sorted, in one line
offers() {
    bash -c '. "$0" && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) && _flockctl; printf "%s\n" "${COMPREPLY[@]}"' \
        "$top_srcdir/tools/completion/flockctl" "$FLOCKCTL" "$@" | LC_ALL=C sort | tr '\n' ' ' | sed 's/^ *//; s/ $//'
}

ok "bash reads it" bash -n "$top_srcdir/tools/completion/flockctl"
like "$(bash -c '. "$0" && complete -p flockctl' "$top_srcdir/tools/completion/flockctl")" "-F _flockctl flockctl" \
    "it is flockctl's"

# ---- what exists, by the tool's own help ----

verbs=$(flockctl help | sed -n '/^Example/q; s/^  \([a-z][a-z]*\) .*/\1/p' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')
is "$(offers '')" "$verbs" "every verb is offered"
is "$(offers help '')" "$verbs" "behind help, too"
for verb in $verbs; do
    options=$(flockctl help "$verb" | sed '/^Example/,/^$/d' | grep '^ .*--[a-z]' | grep -o -e '--[a-z][a-z-]*' | LC_ALL=C sort -u |
        tr '\n' ' ' | sed 's/ $//')
    is "$(offers "$verb" --)" "-- $options" "every option of $verb is offered, and no other"
    letters=$(flockctl help "$verb" | sed -n 's/^  \(-[a-zA-Z]\), .*/\1/p')
    for letter in $letters; do
        like " $(offers "$verb" -) " " $letter " "$verb: $letter is offered"
    done
done
is "$(offers a)" acquire "a verb is completed"
is "$(offers --dir "$T" ru)" run "behind a global option, too"
is "$(offers acquire --time)" --timeout "an option is completed"
is "$(offers acquire engine --de)" "--deadline --detach" "behind a name, too"

# ---- names ----

flockctl define engine --slots 2
flockctl define db --slots 1
is "$(offers acquire '')" "db engine" "the names that there are"
is "$(offers acquire db en)" engine "a second name"
is "$(offers acquire --wait 3 --shared d)" db "behind options"
is "$(offers status '')|$(offers evict -y e)" "db engine|engine" "where one looks"
is "$(offers remove '')|$(offers run '')" "db engine|" "where names are taken"
is "$(offers reap '')|$(offers state '')" "db engine|add drop list" "to clean up"
is "$(offers state add --label x e)|$(offers state list d)|$(offers state drop '')" "engine|db|" "for state's words"
is "$(offers acquire engine :)" all "a count, behind a colon"
is "$(offers acquire engine : a)" all "begun"
flockctl --dir "$T/other" define elsewhere --slots 1
is "$(offers --dir "$T/other" acquire '')" elsewhere "of the lock directory that is named"
is "$(offers acquire --dir = "$T/other" e)" elsewhere "behind the verb and with =, too"

# ---- values ----

: >"$T/output.log"
mkdir "$T/output.d"
is "$(offers run --output "$T/out")" "$T/output.d $T/output.log" "files"
is "$(offers --dir "$T/out")" "$T/output.d" "directories"
is "$(offers status --color a)" "always auto" "a colour"
is "$(offers run --isolate m)" mount "a namespace"
is "$(offers run --isolate pid,u)" "pid,user pid,uts" "another one"
is "$(offers run --isolate pid,net,p)" "" "none twice"
is "$(offers run --signal SIGTER)" SIGTERM "a signal"
is "$(offers acquire --while $$)" $$ "a process"
is "$(offers acquire -w f)" forever "a time"
is "$(offers acquire --label '')" "" "nothing for a text"

# ---- the command ----

mkdir "$T/bin"
printf '#!/bin/sh\n' >"$T/bin/flockctl-completed"
chmod +x "$T/bin/flockctl-completed"
is "$(PATH=$T/bin:$PATH offers acquire db -- flockctl-comp)" flockctl-completed "a command behind --"
is "$(offers acquire db -- true --)" "" "and no options of ours for it"
done_testing
