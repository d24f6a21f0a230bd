#!/usr/bin/env bash
# Checks and measures the engine on a machine with an NVIDIA GPU, beside PyTorch there. Rust is not needed: benches/gpu-pack made PACK.
# usage: benches/gpu.sh PACK OUT PART...
#   PACK      the folder that benches/gpu-pack filled
#   OUT       folder for results: gpu-*.jsonl, for benches/results, and gpu.log
#   check     devices, op tests, fixtures, the same picture as on the processor, noise to the bit
#   sanitize  compute-sanitizer's memcheck and racecheck over op tests and a small picture
#   parts     products, attention and a large copy, beside PyTorch eager and compiled
#   images    pictures: b and l alone, b in a batch of 64, beside PyTorch; images-b, images-l and images-b-64 are one each
#   kernels   every op of a picture of b
# From the environment: PYTHON, one with torch, numpy and safetensors (python3); TIMES, runs of each engine by turns (2); LIMIT, seconds
# of a check (300); RACE_LIMIT, of one under racecheck (1800). tests/gpu-script tries this script without a GPU: QUICK=1 takes tiny sizes,
# PEER_DEVICE=cpu is for PyTorch; the figures mean nothing then.
# Exits 2 if there is no GPU, 1 if anything failed; all else is done before.
set -uo pipefail
usage() { sed -n '3,/^set/s/^# //p' "$0" >&2; exit 64; }
[[ $# -ge 3 ]] || usage
sources=$(cd "$(dirname "$0")/.." && pwd) || exit 1
pack=$(realpath "$1") out=$(realpath -m "$2")
shift 2

parts=()
for part; do
  case $part in
    images) parts+=(images-b images-l images-b-64) ;;
    check | sanitize | parts | images-b | images-l | images-b-64 | kernels) parts+=("$part") ;;
    *) echo "gpu.sh: no part is called $part" >&2; usage ;;
  esac
done
[[ -f $pack/bin.tar.gz ]] || { echo "gpu.sh: no bin.tar.gz in $pack; benches/gpu-pack makes it" >&2; exit 64; }

python=${PYTHON:-python3} quick=${QUICK:-} limit=${LIMIT:-300} race_limit=${RACE_LIMIT:-1800}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" && tar -C "$work" -xzf "$pack/bin.tar.gz" || exit 1
bin=$work/bin log=$out/gpu.log
# Tests find their fixtures by it, as under cargo.
export CARGO_MANIFEST_DIR=$sources
export TORCHINDUCTOR_CACHE_DIR=$work/inductor
cd "$sources" || exit 1

devices=$("$bin/discon" devices --json) || exit 1
why=$("$python" -c 'import json, sys; d = json.loads(sys.argv[1]); print("" if d["gpus"] else d["no_gpus"] or "none is listed")' "$devices") || exit 1
[[ -z $why ]] || { echo "gpu.sh: no GPU to measure: $why" >&2; exit 2; }
machine=$("$python" benches/peers/gpu machine) || exit 1
printf '%s\n%s\n' "$machine, commit $(<"$bin/commit")" "$devices" | tee -a "$log"

failed=()

# Runs a command under the limit, its output in the log. A test that says it tested nothing has failed.
check() { # NAME COMMAND...
  local name=$1 start=$EPOCHREALTIME status passed=true
  shift
  printf '\n== %s: %s\n' "$name" "$*" >>"$log"
  timeout "$limit" "$@" >"$work/said" 2>&1
  status=$?
  cat "$work/said" >>"$log"
  if grep -q 'NOT TESTED' "$work/said"; then echo "it tested nothing: see NOT TESTED" >>"$log"; status=1; fi
  if grep -q '^running' "$work/said" && ! grep -Eq '^test result: .* [1-9][0-9]* passed' "$work/said"; then
    echo "no test of that name" >>"$log"; status=1
  fi
  if [[ $status != 0 ]]; then
    passed=false
    failed+=("$part: $name (exit code $status)")
    # Of tests, what failed; of all else the end.
    { grep -E '^test .*FAILED|panicked at|========= [A-Z]' "$work/said" | head -n 20; tail -n 5 "$work/said"; } | sed 's/^/    /'
  fi
  "$python" -c 'import json, sys; n, p, a, b = sys.argv[1:]
print(json.dumps({"check": n, "passed": p == "true", "seconds": round(float(b) - float(a), 2)}))' \
    "$name" "$passed" "$start" "$EPOCHREALTIME" >>"$out/gpu-$part.jsonl"
}

# Starts the file of results of a part that is made of checks.
begin_checks() {
  "$python" -c 'import json, sys; print(json.dumps({"kind": "gpu-" + sys.argv[1], "machine": sys.argv[2]}))' "$part" "$machine" >"$out/gpu-$part.jsonl"
}

tests() { printf '%s\n' "$bin/$1" --nocapture --test-threads=4; }

do_check() {
  begin_checks
  local run
  mapfile -t run < <(tests library-tests)
  check "op tests" "${run[@]}" ops:: plan:: cuda::
  check "noise, to the bit" "${run[@]}" ops::noise::
  mapfile -t run < <(tests gpu-tests)
  check "the same picture as on the processor" "${run[@]}" pictures_from_the_same_codes
  check "fixtures in f32 and bf16" "${run[@]}" holds
  check "sessions on a GPU" "${run[@]}" --skip pictures_from_the_same_codes --skip holds
  if [[ -x $bin/driver-tests ]]; then
    mapfile -t run < <(tests driver-tests)
    check "the driver's layer" "${run[@]}" hardware::
  fi
  local model=weights/avatars-64
  [[ -z $quick ]] || model=tests/fixtures/tiny
  for dtype in f32 bf16; do
    check "${model##*/} against its cases, $dtype" "$bin/discon" verify $model --device cuda --dtype $dtype --tolerance-report
  done
  "$python" benches/peers/gpu table "$out/gpu-check.jsonl"
}

do_sanitize() {
  begin_checks
  local sanitizer tool run limit=$limit
  sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) || {
    failed+=("sanitize: compute-sanitizer is not installed")
    return
  }
  mapfile -t run < <(tests library-tests)
  for tool in memcheck racecheck; do
    # It takes many times as long.
    [[ $tool != racecheck ]] || limit=$race_limit
    local under=("$sanitizer" --tool "$tool" --error-exitcode 99 --print-limit 20)
    for dtype in f32 bf16; do
      check "$tool: pictures, $dtype" "${under[@]}" "$bin/discon" bench --device cuda --model tests/fixtures/tiny --dtype $dtype \
        --rounds 2 --steps 2 --tokens 4 --repeat 1 --batch 2
    done
    check "$tool: op tests" "${under[@]}" "${run[@]}" ops::
  done
  "$python" benches/peers/gpu table "$out/gpu-sanitize.jsonl"
}

# The model of a size, written once.
model() { # SIZE
  if [[ -n $quick ]]; then ln -sfn "$sources/tests/fixtures/tiny" "$work/$1"; fi
  [[ -f $work/$1/discon.json ]] || "$bin/discon" synth --size "$1" --dtype bf16 --out "$work/$1" >>"$log" 2>&1
}

# Runs `benches/peers/gpu`; its warnings and errors go to the log, and the last line here.
peers() {
  local status
  printf '\n== gpu %s\n' "$*" >>"$log"
  "$python" benches/peers/gpu "$@" --times "${TIMES:-2}" --peer-device "${PEER_DEVICE:-cuda}" 2>"$work/cried" | tee -a "$log"
  status=${PIPESTATUS[0]}
  cat "$work/cried" >>"$log"
  [[ $status == 0 ]] || failed+=("$part: $(tail -n 1 "$work/cried")")
}

do_parts() {
  local given=()
  [[ -z $quick ]] || given+=(product:2x64x96 product:40x64x96 attention:4x20x24 --once)
  [[ $devices != *'"compute_capability":"9.0"'* ]] || given+=(--wgmma)
  peers parts "${given[@]}" --bench "$bin/gpu-bench" --out "$out/gpu-parts.jsonl"
}

pictures() { # WHAT SIZE FILE OPTIONS...
  local what=$1 size=$2 file=$3
  shift 3
  local given=(--rounds 32 --steps 50 --repeat 3 "$@")
  if [[ -n $quick ]]; then size=tiny given=("$@" --rounds 2 --steps 2 --tokens 2 --repeat 1); fi
  model "$size" || { failed+=("$part: no model of size $size: see gpu.log"); return; }
  peers "$what" --model "$work/$size" --discon "$bin/discon" "${given[@]}" --out "$out/$file.jsonl"
}

for part in "${parts[@]}"; do
  printf '\n## %s\n\n' "$part"
  start=$SECONDS
  case $part in
    check) do_check ;;
    sanitize) do_sanitize ;;
    parts) do_parts ;;
    images-b) pictures images b gpu-images-b ;;
    images-l) pictures images l gpu-images-l ;;
    images-b-64) pictures images b gpu-images-b-64 --batch $([[ -n $quick ]] && echo 2 || echo 64) --repeat 1 ;;
    kernels) pictures kernels b gpu-kernels ;;
  esac
  echo "($part took $((SECONDS - start)) s)"
done

if [[ ${#failed[@]} != 0 ]]; then
  printf '\nFailed, more in %s:\n' "$log"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
printf '\nAll of it ran: %s\n' "${parts[*]}"
