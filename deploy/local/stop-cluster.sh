#!/bin/bash
# stop-cluster.sh: stops what start-cluster.sh started, by recorded pid; the data stays.
set -u
. "$(dirname "$0")/settings.sh"
stop_all node3:greyd node2:greyd node1:greyd launch3:grey-launch launch2:grey-launch launch1:grey-launch \
    tpm3:grey-tpm tpm2:grey-tpm tpm1:grey-tpm swtpm3:swtpm swtpm2:swtpm swtpm1:swtpm core:grey-core broker:mosquitto
