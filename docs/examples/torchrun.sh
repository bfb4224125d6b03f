#!/bin/bash
# One run as two processes of this machine, on its CPU; with two GPUs `trainer=gpu_bf16` instead of `trainer=cpu`.
set -euo pipefail
torchrun --standalone --nproc-per-node 2 -m bitnet_train train quickstart trainer=cpu trainer.devices=2 \
  trainer.strategy=ddp trainer.num_threads=1 run.dir=runs/as_two trainer.resume=auto
