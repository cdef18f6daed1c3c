#!/usr/bin/env bash
# Short trainings for docs/results.md, many at once on one GPU, until they are done or the time is up.
#
#     benchmarks/gpu_figures.sh DATA LABELS OUT AT_ONCE SECONDS
#
# DATA: the folder of `make coco-sample`. LABELS: seed-0.parquet to seed-2.parquet, what teachers of coco_sample
# labeled. OUT gets runs/, a log of each job, and the small files of its rows, for benchmarks/results.
# Trainings this small fill a card one or two at a time: fifteen at once gained nothing.
# What is there is not done again: call it again with more time, or to share OUT among machines.
set -u
data=$1 labels=$2 out=$3 at_once=$4 seconds=$5
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
steps=${STEPS:+--set teacher.train.steps=$STEPS}  # of a trial: STEPS=2
student_steps=${STEPS:+--set student.train.steps=$STEPS}
mkdir -p "$out/logs"

deepmac="$python -m deepmac_distill"
heads="$python $here/mask_heads.py train --data $data --out $out/runs/mask_heads --results $out/mask_heads \
  --seeds 1 --set data.workers=1 --set teacher.train.autocast=off $steps"
choices="$python $here/recipe_choices.py --data $data --out $out/runs/choices --json $out/recipe_choices --workers 1"
off="--set student.train.autocast=off --set threads=1"

job() { printf '%s\t%s\n' "$1" "$2"; }  # name, command

# A student that learns the labels of a seed's teacher, evaluated: name, seed, keys.
student() {
  local name=$1 seed=$2 run=$out/runs/$1/seed-$2
  shift 2
  job "$name-$seed" "$deepmac student $* $off $student_steps --data $data --labels $labels/seed-$seed.parquet \
    --seed $seed --out $run && $deepmac evaluate student --out $run"
}

jobs() {
  cp -n "$here/results/batch_norm.json" "$out/batch_norm.json"  # it goes on from what is there
  job batch-norm "$python $here/batch_norm.py measure $out/batch_norm.json"  # on the CPU, as the next one
  job coverage-of-ap "$python $here/coverage_of_ap.py --json $out/coverage_of_ap.json"
  local detector="--set data.workers=3 --set student.train.batch_size=16 --set student.train.steps=3000"
  student detect_mask_rcnn 0 --config coco_sample_mask_rcnn $detector
  student detect_deepmac 0 --config coco_sample $detector
  for seed in 0 1 2; do
    run=$out/runs/coco_sample/seed-$seed
    job "retention-$seed" "$deepmac student --config coco_sample --set data.workers=1 $off $student_steps \
      --data $data --labels $labels/seed-$seed.parquet --seed $seed --out $run && $deepmac retention --out $run"
  done
  job choices-long "$choices --only '4800 steps, 160 px'"
  for seed in 0 1 2; do
    for head in hourglass-20 resnet-4 hourglass-52 fully-connected-2 resnet-20 \
      hourglass-20-no-encoder-decoder hourglass-20-no-long-skips hourglass-10; do
      job "head-$head-$seed" "$heads --only $head --set seed=$seed"
    done
    student coco_sample_mask_rcnn $seed --config coco_sample_mask_rcnn --set data.workers=1
    for variant in base 'box jitter' '10 % of the masks' '30 % of the masks'; do
      noisy=$out/runs/choices/${variant// /-}-fold-0-of-2-seed-$seed
      after=true
      case $variant in
        base) after="$deepmac evaluate teacher --hidden --box-noise 0,5,10,20 --out $noisy && $deepmac pseudolabel --out $noisy \
          && cp -r $noisy $noisy-unmirrored \
          && $deepmac evaluate teacher --hidden --set teacher.look.mirror=false --force --out $noisy-unmirrored" ;;
        'box jitter') after="$deepmac evaluate teacher --hidden --box-noise 0,5,10,20 --out $noisy" ;;
      esac
      job "choices-${variant// /-}-$seed" "$choices --only '$variant' --seeds $seed && $after"
    done
    other=$out/runs/choices/base-fold-1-of-2-seed-$seed
    job "choices-other-fold-$seed" "$choices --hide fold:1/2 --only base --seeds $seed && $deepmac pseudolabel --out $other"
  done
  for seed in 0 1 2; do
    for head in hourglass-20 resnet-4 hourglass-52; do  # the same, four times as long
      job "longer-$head-$seed" "${heads//mask_heads /mask_heads_1920_steps } --only $head --set seed=$seed \
        --set teacher.train.steps=1920 --set teacher.train.ema_decay=0.998"
    done
  done
  for variant in 'whole images' 'with detection, in turn' '4800 steps' '160 px' 'hourglass-52' 'context 2' centered \
    'width 64' 'backbone learns as fast' '192 px' '1440 steps' 'second round'; do
    for seed in 0 1; do
      job "choices-${variant// /-}-$seed" "$choices --only '$variant' --seeds $seed"
    done
  done
}

jobs > "$out/jobs.tsv"
export out
run_one() {
  name=${1%%$'\t'*}
  began=$(date +%s)
  bash -c "${1#*$'\t'}" > "$out/logs/$name.log" 2>&1
  printf '%s\t%s\t%s\n' "$name" "$?" "$(($(date +%s) - began))" >> "$out/ended.tsv"
}
export -f run_one
timeout --kill-after=5 "$seconds" xargs -d '\n' -P "$at_once" -I{} bash -c 'run_one "$1"' _ {} < "$out/jobs.tsv"
sort -k2,2n -k3,3n "$out/ended.tsv"
