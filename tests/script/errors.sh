#!/bin/bash
# errors.sh: the table of docs/ERRORS.md, from include/grey/error.h.
echo '| id | name | HTTP | what it means | what to do |'
echo '|---|---|---|---|---|'
sed -n 's/^ *X(\(E_[A-Z_]*\), \([0-9]*\), \([0-9]*\), "\([^"]*\)", "\([^"]*\)").*/| GREY-\2 | \1 | \3 | \4 | \5 |/p' include/grey/error.h |
    sed 's/| 0 |/| - |/' | sort
