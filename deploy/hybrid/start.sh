#!/bin/bash
# start.sh: sites and core together: here the local site and its core (more sites come with the federation).
exec "$(dirname "$0")/../local/start-cluster.sh"
