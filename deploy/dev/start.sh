#!/bin/bash
# start.sh: a single node for development; see ../dev.sh.
exec "$(dirname "$0")/../dev.sh" start
