#!/usr/bin/env bash
# onnxruntime 1.32.0: importing it on Linux makes a device id and a database of events in ~/.cache/Microsoft.
#
# Expected: a library that computes on the processor writes no files that nobody asked for.
# Seen: ~/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid and onnxruntime.db, and .ses in the folder of temporary
# files. What is in the database is sent to Microsoft, as the Privacy.md of the package says.
# Why: packages for Linux and macOS are built with the telemetry of Windows (pull request 27379), on by default. It is off
# where a variable such as CI is set, so that tests do not show it, and with ORT_DISABLE_TELEMETRY=1, set before the
# import. disable_telemetry_events() comes too late: a first event has been stored then.
# It matters to programs that promise to send nothing, or to leave nothing behind.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0
written() {  # no event leaves this machine: the proxy is none
    rm -rf "$folder/home" && mkdir "$folder/home"
    env -i HOME="$folder/home" TMPDIR="$folder/home" HTTPS_PROXY=http://127.0.0.1:9 "$@" \
        "$folder/venv/bin/python" -c "import onnxruntime; onnxruntime.disable_telemetry_events()"
    find "$folder/home" -type f -printf '%f\n' | sort | tr '\n' ' '
}
default="$(written)"
off="$(written ORT_DISABLE_TELEMETRY=1)"
ci="$(written CI=true)"
echo "left behind: [$default] by default, [$off] with ORT_DISABLE_TELEMETRY=1, [$ci] with CI=true"
[[ "$default" == *deviceid*onnxruntime.db* && -z "$off" && -z "$ci" ]]
