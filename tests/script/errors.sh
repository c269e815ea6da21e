#!/bin/bash
# errors.sh: the table of docs/ERRORS.md, from include/grey/error.h.
echo '| id | name | HTTP | what it means | what to do |'
echo '|---|---|---|---|---|'
# One entry may take several lines of the list.
sed -z 's/ *\\\n */ /g; s/X(E_/\nX(E_/g' include/grey/error.h |
    sed -n 's/^X(\(E_[A-Z_]*\), *\([0-9]*\), *\([0-9]*\), *"\([^"]*\)", *"\([^"]*\)").*/| GREY-\2 | \1 | \3 | \4 | \5 |/p' |
    sed 's/| 0 |/| - |/' | LC_ALL=C sort
