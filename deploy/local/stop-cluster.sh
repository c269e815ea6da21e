#!/bin/bash
# stop-cluster.sh: stops what start-cluster.sh started, by recorded pid; the data stays.
set -u
. "$(dirname "$0")/settings.sh"
stop_all node3:greyd node2:greyd node1:greyd launch3:grey-launch launch2:grey-launch launch1:grey-launch core:grey-core broker:mosquitto
