#!/bin/bash
# man5.sh BUILD: the KEYS section of docs/man/greyd.yaml.5, from greyd's own table.
"$1/greyd" --config-keys | awk -F'|' '
    function trim(t) { gsub(/^[ `]+|[ `]+$/, "", t); return t }
    function plain(t) { gsub(/-/, "\\-", t); return t }
    function line(t) { return (t ~ /^[.\x27]/ ? "\\&" : "") t } # else man takes it for a request
    function more(t) { if (t != "") { remarks = remarks (remarks == "" ? "" : "; ") t } }
    NR > 2 && trim($2) != "" {
        remarks = ""
        range = trim($6)
        gsub(/[()]/, "", range)
        more(trim($5) != "" ? "default " trim($5) : "")
        more(range == "true, false" ? "" : range)
        more(trim($3))
        more(trim($4) != "" ? "$" trim($4) : "")
        print ".TP\n.B " plain(trim($2)) "\n" line(plain(trim($7))) (remarks == "" ? "" : " (" plain(remarks) ")")
    }'
