#!/usr/bin/env bash
# Short trainings for docs/results.md, many at once on one GPU, until they are done or the time is up.
#
#     benchmarks/gpu_figures.sh DATA LABELS OUT AT_ONCE SECONDS
#
# DATA: the folder of `make coco-sample`. LABELS: seed-0.parquet to seed-2.parquet, what teachers of coco_sample
# labeled, and calibrated.parquet with calibrated.json, labels of one with a hold-out. OUT gets runs/, a log of each
# job, and the small files of its rows, for benchmarks/results.
# Trainings this small fill a card one or two at a time: fifteen at once gained nothing, unless CUDA's multi-process
# service (nvidia-cuda-mps-control -d) lets their kernels run side by side.
# Try a job of each kind there first, with STEPS=2: a package that is missing ends all of them.
# What is there is not done again: call it again with more time, or to share OUT among machines.
set -u
data=$1 labels=$2 out=$3 at_once=$4 seconds=$5
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
steps=${STEPS:+--set teacher.train.steps=$STEPS}  # of a trial: STEPS=2
student_steps=${STEPS:+--set student.train.steps=$STEPS}
mkdir -p "$out/logs"
for folder in mask_heads paper recipe_choices; do  # it goes on from what is recorded
  [ -d "$here/results/$folder" ] && cp -rn "$here/results/$folder" "$out/"
done

deepmac="$python -m deepmac_distill"
plain="--set threads=1 --set data.workers=1"
off="--set student.train.autocast=off $plain"
heads="$python $here/mask_heads.py train --data $data --seeds 1 --set data.workers=1 $steps"
choices="$python $here/recipe_choices.py --data $data --out $out/runs/choices --json $out/recipe_choices --workers 1"
paper="$python $here/paper.py run"
float32="--data $data $plain --set device=cuda --set teacher.train.autocast=off --seeds 1 ${STEPS:+--steps $STEPS}"

job() { printf '%s\t%s\n' "$1" "$2"; }  # name, command

# A student that learns the labels of a seed's teacher, evaluated: name, seed, keys.
student() {
  local name=$1 seed=$2 run=$out/runs/$1/seed-$2
  shift 2
  job "$name-$seed" "$deepmac student $* $off $student_steps --data $data --labels $labels/seed-$seed.parquet \
    --seed $seed --out $run && $deepmac evaluate student --out $run"
}

# A row of a table of the paper at the small scale: table, row, seed.
paper_row() {
  job "$1-$2-$3" "$paper $1 small --only $2 --first-seed $3 $float32 --out $out/runs/paper --results $out/paper"
}

jobs() {
  for seed in 0 1 2; do
    run=$out/runs/coco_sample/seed-$seed
    job "retention-$seed" "$deepmac student --config coco_sample $off $student_steps --data $data \
      --labels $labels/seed-$seed.parquet --seed $seed --out $run && $deepmac evaluate student --out $run \
      && $deepmac retention --out $run"
  done
  job choices-long "$choices --only '4800 steps, 160 px'"
  local targets="$python $here/student_targets.py train --data $data --labels $labels/calibrated.parquet \
    --calibration $labels/calibrated.json $plain ${STEPS:+--set student.train.steps=$STEPS --set student.train.warmup_steps=1}"
  for seed in 0 1 2; do
    for arm in plain quality soft both; do
      job "targets-$arm-$seed" "$targets --arms $arm --seeds $seed --out $out/runs/student_targets"
    done
  done
  local short="--config coco_sample --set data.workers=1 --set teacher.train.steps=${STEPS:-60} --data $data"
  job torchrun "torchrun --standalone --nproc-per-node 1 -m deepmac_distill teach $short --out $out/runs/torchrun"
  for head in hourglass-20 resnet-4; do  # the same, four times as long
    job "longer-$head-0" "$heads --only $head --out $out/runs/longer --results $out/mask_heads_1920_steps \
      --set teacher.train.steps=${STEPS:-1920} --set teacher.train.ema_decay=0.998"
  done
  for row in resnet101-gt resnet101-proposals resnet101-hourglass-20-gt resnet101-hourglass-20-proposals; do
    job "longer-$row-0" "$paper table-2 small --only mask-rcnn-$row ${float32} --out $out/runs/paper_longer \
      --results $out/paper_1440_steps --set teacher.train.steps=${STEPS:-1440}"
  done
  for seed in 0 1 2; do student coco_sample_mask_rcnn $seed --config coco_sample_mask_rcnn; done
  for seed in 0 1 2; do
    for head in hourglass-52 hourglass-20 resnet-4 resnet-20 fully-connected-2 hourglass-10 \
      hourglass-20-no-encoder-decoder hourglass-20-no-long-skips; do
      [ -f "$out/mask_heads/$head-seed-$seed.json" ] && continue
      job "head-$head-$seed" "$heads --only $head --set seed=$seed --out $out/runs/mask_heads --results $out/mask_heads"
    done
  done
  for seed in 0 1 2; do
    for class in person bottle chair car dining-table bicycle; do paper_row appendix-c "one-class-$class" $seed; done
    paper_row table-11 deepmac-512-fully-connected-4 $seed
    for head in resnet-4 hourglass-20 hourglass-10; do paper_row table-3 "deepmac-512-resnet101-$head" $seed; done
  done
  for seed in 0 1 2; do
    for row in resnet101-gt resnet101-proposals resnet101-hourglass-20-gt resnet101-hourglass-20-proposals; do
      paper_row table-2 "mask-rcnn-$row" $seed
    done
    for boxes in gt proposals; do paper_row table-1 "mask-rcnn-resnet50-$boxes" $seed; done
  done
  for seed in 0 1 2; do
    for head in hourglass-32 resnet-12 bottleneck-21 bottleneck-9 bottleneck-quarter-12 bottleneck-quarter-51; do
      paper_row figure-3 "deepmac-512-$head" $seed
    done
  done
  for seed in 0 1 2; do
    for head in resnet-4 hourglass-52; do
      for boxes in gt proposals; do paper_row table-2 "mask-rcnn-resnet101-$head-$boxes" $seed; done
    done
  done
  local detector="--set data.workers=3 --set student.train.batch_size=16 --set student.train.steps=${STEPS:-3000}"
  student detect_mask_rcnn 0 --config coco_sample_mask_rcnn $detector
  student detect_deepmac 0 --config coco_sample $detector
  for head in hourglass-52 hourglass-20 resnet-4; do
    for seed in 1 2; do
      job "longer-$head-$seed" "$heads --only $head --set seed=$seed --out $out/runs/longer \
        --results $out/mask_heads_1920_steps --set teacher.train.steps=${STEPS:-1920} --set teacher.train.ema_decay=0.998"
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
