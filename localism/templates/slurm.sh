#!/bin/bash
# {{ title }}
# Written by localism {{ version }}; edit it as you like. Hand it in with: sbatch {{ name }}
#SBATCH --job-name={{ job }}
#SBATCH --partition={{ partition }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
{% if gpus %}
#SBATCH --gpus-per-node={{ gpus }}
{% endif %}
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time={{ time }}
{% if array %}
#SBATCH --array={{ array }}
{% endif %}
#SBATCH --signal=B:TERM@{{ warning }}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={{ log }}
set -uo pipefail

cd {{ folder }} || exit 2
{% if array %}
run={{ run }}-$SLURM_ARRAY_TASK_ID
own=(--set seed="$SLURM_ARRAY_TASK_ID")
{% else %}
run={{ run }}
own=()
{% endif %}

# One process owns the run; it starts the other machines' part of a training, or of an engine that
# spans machines (by Ray), with srun by itself.
# It begins nothing new shortly before the job's end, and the same command continues in the next job.
{{ localism }} run-all --run "$run" --models {{ models }} --plain --budget-hours {{ budget }}{{ more }} "${own[@]}" &
child=$!

# Slurm warns this shell alone: hand it on. What is finished is kept, as after any interruption.
trap 'kill -TERM "$child" 2>/dev/null' TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  code=$?
done

# 6: the budget is used up. 130 or 143: warned or ended. In each case there is more to do.
if [ "$code" = 6 ] || [ "$code" = 130 ] || [ "$code" = 143 ]; then
  echo "localism: not finished (exit code $code); the job is queued again"
  scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
  exit 0
fi
exit "$code"
